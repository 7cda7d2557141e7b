# As samcp_r50.py on Swin-L, pretrained on ImageNet-22k at 384 pixels. Each stage is computed a
# second time for the gradients (with_cp), which saves most of its memory.
_base_ = './samcp_r50.py'
model = dict(
    backbone=dict(
        _delete_=True,
        type='mmseg.SwinTransformer',
        pretrain_img_size=384,
        embed_dims=192,
        depths=(2, 2, 18, 2),
        num_heads=(6, 12, 24, 48),
        window_size=12,
        drop_path_rate=0.2,
        with_cp=True,
        init_cfg=dict(
            type='Pretrained',
            checkpoint='https://download.openmmlab.com/mmsegmentation/v0.5/pretrain/swin/'
            'swin_large_patch4_window12_384_22k_20220412-6580f57d.pth',
        ),
    ),
    neck=dict(in_channels=[192, 384, 768, 1536]),
)

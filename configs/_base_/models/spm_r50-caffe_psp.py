# As spm_r50-caffe_pup.py, with PSPNet's head: pyramid pooling on the last map.
_base_ = './spm_r50-caffe_pup.py'
model = dict(
    decode_head=dict(
        _delete_=True,
        type='mmseg.PSPHead',
        in_channels=2048,
        in_index=3,
        channels=512,
        pool_scales=(1, 2, 3, 6),
        num_classes={{_base_.num_classes}},
        dropout_ratio=0.1,
        norm_cfg={{_base_.norm_cfg}},
        align_corners=False,
        loss_decode=dict(type='mmseg.CrossEntropyLoss', loss_weight=1.0),
    ),
)

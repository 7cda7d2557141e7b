# As spm_r101_psp.py, with the progressive upsampling head of SETR on the last map.
_base_ = './spm_r101_psp.py'
model = dict(
    decode_head=dict(
        _delete_=True,
        type='mmseg.SETRUPHead',
        in_channels=2048,
        in_index=3,
        channels=256,
        num_convs=3,
        up_scale=2,
        kernel_size=3,
        dropout_ratio=0.1,
        norm_cfg={{_base_.norm_cfg}},
        norm_layer=dict(type='LN', eps=1e-6),
        align_corners=False,
        loss_decode=dict(type='mmseg.CrossEntropyLoss', loss_weight=1.0),
    ),
)

# SPM on ADE20K, Table 5 of the paper: the ResNet-101 of a PSPNet that MMSegmentation trained on
# COCO-Stuff-164k, three matchers, PPM head.
#   python tools/train.py configs/spm/spm_r101-coco-stuff_psp_ade20k.py
# The other ways of tuning: --cfg-options model.backbone.tuning=head (full, scratch). The column
# COCO of Tables 6 and 7: the options of spm_r101_psp_ade20k.py.
_base_ = './spm_r101_psp_ade20k.py'
model = dict(
    backbone=dict(
        backbone=dict(
            init_cfg=dict(
                checkpoint='https://download.openmmlab.com/mmsegmentation/v0.5/pspnet/'
                'pspnet_r101-d8_512x512_4x4_80k_coco-stuff164k/'
                'pspnet_r101-d8_512x512_4x4_80k_coco-stuff164k_20210707_152034-7eb41789.pth',
                prefix='backbone.',
            ),
        ),
        prompt_at=['layer1', 'layer2', 'layer3'],
    ),
    expected_parameters=dict(spm=dict(prompt=2_273_026)),
    paper_parameters=dict(spm=dict(prompt=1.78)),
)

# SPM on ADE20K, Table 9 of the paper: as spm_vit-l_pup_ade20k.py with 1 matcher (1 stage).
#   python tools/train.py configs/spm/spm_vit-l_pup_ade20k_1-stage.py
_base_ = './spm_vit-l_pup_ade20k.py'
model = dict(
    backbone=dict(prompt_at=['layers.0']),
    expected_parameters=dict(spm=dict(prompt=1_331_862)),
    paper_parameters=dict(spm=dict(prompt=0.59)),
)

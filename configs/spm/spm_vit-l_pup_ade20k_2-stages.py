# SPM on ADE20K, Table 9 of the paper: as spm_vit-l_pup_ade20k.py with 2 matchers (2 stages).
#   python tools/train.py configs/spm/spm_vit-l_pup_ade20k_2-stages.py
_base_ = './spm_vit-l_pup_ade20k.py'
model = dict(
    backbone=dict(prompt_at=['layers.0', 'layers.12']),
    expected_parameters=dict(spm=dict(prompt=2_663_724)),
    paper_parameters=dict(spm=dict(prompt=1.17)),
)

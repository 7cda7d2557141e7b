# SpaPrompt alone (Eq. 4, Table 5) in fog.
#   python tools/train.py configs/ssprompt/nano_streets-fog_16shot_spaprompt.py
_base_ = [
    '../_base_/models/ssprompt_seem-nano.py',
    '../_base_/datasets/streets-fog.py',
    '../_base_/schedules/ssprompt_few-steps.py',
    '../_base_/default_runtime.py',
]
model = dict(
    classes={{_base_.class_names}},
    expected_parameters=dict(spaprompt=8_100),
    decode_head=dict(semantic_prompt=dict(_delete_=True, type='DefaultPrompt')),
)

# CoOp by its own recipe in fog: larger batches, more passes.
#   python tools/train.py configs/ssprompt/nano_streets-fog_16shot_coop_native.py
_base_ = [
    '../_base_/models/ssprompt_seem-nano.py',
    '../_base_/datasets/streets-fog.py',
    '../_base_/schedules/coop_native.py',
    '../_base_/default_runtime.py',
]
model = dict(method='coop', classes={{_base_.class_names}}, expected_parameters=dict(coop=1_024))
train_dataloader = dict(batch_size=32)

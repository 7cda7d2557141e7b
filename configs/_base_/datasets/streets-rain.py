# Street scenes of condition `rain`; made as streets-fog.py says, with this condition's name.
_base_ = './streets-fog.py'
data_root = 'data/streets/rain'
manifest = 'data/streets/rain/16shot_seed0.json'
train_dataloader = dict(dataset=dict(manifest=manifest, dataset=dict(data_root=data_root)))
val_dataloader = dict(dataset=dict(data_root=data_root))
test_dataloader = dict(dataset=dict(data_root=data_root))

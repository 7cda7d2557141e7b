# Clear street scenes, 16 images per class of those that SEEM-nano was pre-trained on (streets.py
# says how they are made), measured on scenes that nothing was trained on:
#   python tools/make_streets.py --out data/streets/clear --condition clear --split test --num 60
#   python tools/make_few_shot_split.py configs/ssprompt/nano_streets-clear_16shot.py
_base_ = './streets-fog.py'
data_root = 'data/streets/clear'
manifest = 'data/streets/clear/16shot_seed0.json'
train_dataloader = dict(dataset=dict(manifest=manifest, dataset=dict(data_root=data_root)))
val_dataloader = dict(dataset=dict(data_root=data_root))
test_dataloader = dict(dataset=dict(data_root=data_root))

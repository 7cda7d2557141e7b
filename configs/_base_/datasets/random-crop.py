# What the data sets of SPM share: MMSegmentation's loaders, with a sampler that can resume. A data
# set adds its type, folders, pipelines and batch size, which is that of all processes together.
train_dataloader = dict(
    num_workers=4,
    persistent_workers=True,
    sampler=dict(type='ResumableSampler', shuffle=True),
)
val_dataloader = dict(
    batch_size=1,
    num_workers=4,
    persistent_workers=True,
    sampler=dict(type='DefaultSampler', shuffle=False),
)
test_dataloader = val_dataloader

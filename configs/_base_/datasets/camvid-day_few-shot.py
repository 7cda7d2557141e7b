# CamVid's day clips for prompts: learned on frames that the base was trained on, chosen on the
# first half of the validation clip, and measured on its second half.
_base_ = './camvid-dusk.py'
clips = ['0006R0', '0016E5']
prefix = dict(img_path='val', seg_map_path='valannot')
train_dataloader = dict(
    dataset=dict(allow_missing=False, dataset=dict(clips=clips, frames=None)),
)
val_dataloader = dict(dataset=dict(data_prefix=prefix, clips=clips[1:], frames=(0, 50)))
test_dataloader = dict(dataset=dict(data_prefix=prefix, clips=clips[1:], frames=(50, 101)))

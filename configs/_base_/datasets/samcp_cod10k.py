# COD10K's 2,026 test images of camouflaged objects, with a class for each of its 69 sub-classes;
# docs/datasets.md says where to get it. Patches:
#   python tools/generate_patches.py configs/_base_/datasets/samcp_cod10k.py \
#       --generator sam --split test
dataset_type = 'COD10KInstanceSegDataset'
data_root = '{{$MMPROMPT_DATA:data}}/COD10K-v3'
# The sub-classes by their number, as `COD10KInstanceSegDataset` calls them.
class_names = (
    'batfish', 'clownfish', 'crab', 'crocodile', 'crocodilefish', 'fish', 'flounder', 'frogfish',
    'ghost pipefish', 'leafy sea dragon', 'octopus', 'hermit crab', 'pipefish', 'scorpionfish',
    'seahorse', 'shrimp', 'slug', 'starfish', 'stingray', 'turtle', 'ant', 'bug', 'cat',
    'caterpillar', 'centipede', 'chameleon', 'cheetah', 'deer', 'dog', 'duck', 'gecko', 'giraffe',
    'grouse', 'human', 'kangaroo', 'leopard', 'lion', 'lizard', 'monkey', 'rabbit', 'raccoon',
    'squirrel', 'sheep', 'snake', 'spider', 'stick insect', 'tiger', 'wolf', 'worm', 'bat', 'bee',
    'beetle', 'bird', 'bittern', 'butterfly', 'cicada', 'dragonfly', 'frogmouth', 'grasshopper',
    'heron', 'katydid', 'mantis', 'mockingbird', 'moth', 'owl', 'owlfly', 'frog', 'toad', 'other',
)  # fmt: skip
thing_classes = tuple(range(69))
test_patches = 'data/patches/samcp_cod10k_test_sam.db'
max_patches = None

test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadPatches', store=test_patches, max_patches=max_patches),
    dict(type='DetResize', scale=(1333, 800), keep_ratio=True),
    # After the resizing, so that metrics see the labels at their own size.
    dict(type='LoadAnnotationsFromCocoInstances'),
    dict(type='LoadUnits'),
    dict(type='PackPatchInputs'),
]
test_dataloader = dict(
    batch_size=1,
    num_workers=2,
    persistent_workers=True,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        type=dataset_type,
        data_root=data_root,
        ann_file='Test/CAM_Instance_Test.json',
        data_prefix=dict(img_path='Test/Image'),
        pipeline=test_pipeline,
    ),
)
test_evaluator = [
    dict(type='PanopticQuality'),
    dict(type='InstanceAP', boxes=True),
    dict(type='mmseg.IoUMetric', iou_metrics=['mIoU']),
]

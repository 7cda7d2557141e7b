# Of the 71 classes that occur in coco128-seg, 60 to train on. All 71 occur in the images to train
# on and 41 in those to test on. These 41, ordered by their objects in both (then by name), are cut
# into 11 groups of three or four as even as can be (number r of 41 ends one where floor(r * 11 /
# 41) rises), and the last of each is held out: from chair, 35 objects, to vase, 2. The test images
# have 19 objects of these classes. Only how often classes occur was looked at.
# In training, objects of the held out classes are without annotation: patches on them belong to
# nothing, as the background does. Their images are kept, with all other objects.
unseen_names = (
    'train', 'dog', 'umbrella', 'baseball bat', 'tennis racket', 'knife', 'spoon', 'chair', 'couch',
    'dining table', 'vase',
)  # fmt: skip
seen_names = (
    'person', 'bicycle', 'car', 'motorcycle', 'airplane', 'bus', 'truck', 'boat', 'traffic light',
    'stop sign', 'bench', 'bird', 'cat', 'horse', 'elephant', 'bear', 'zebra', 'giraffe',
    'backpack', 'handbag', 'tie', 'suitcase', 'frisbee', 'skis', 'snowboard', 'sports ball', 'kite',
    'baseball glove', 'skateboard', 'bottle', 'wine glass', 'cup', 'fork', 'bowl', 'banana',
    'sandwich', 'orange', 'broccoli', 'carrot', 'hot dog', 'pizza', 'donut', 'cake', 'potted plant',
    'bed', 'toilet', 'tv', 'laptop', 'mouse', 'remote', 'cell phone', 'microwave', 'oven', 'sink',
    'refrigerator', 'book', 'clock', 'scissors', 'teddy bear', 'toothbrush',
)  # fmt: skip
present_names = seen_names + unseen_names

# The 19 classes of Cityscapes, which the other street scenes use too.
class_names = (
    'road', 'sidewalk', 'building', 'wall', 'fence', 'pole', 'traffic light', 'traffic sign',
    'vegetation', 'terrain', 'sky', 'person', 'rider', 'car', 'truck', 'bus', 'train',
    'motorcycle', 'bicycle',
)  # fmt: skip
# Counted one by one in instance and panoptic segmentation: from person on.
thing_classes = (11, 12, 13, 14, 15, 16, 17, 18)

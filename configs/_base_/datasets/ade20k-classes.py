# ADE20K's 150 classes.
# The data set's own names, as MMSegmentation writes them.
class_names = (
    'wall', 'building', 'sky', 'floor', 'tree', 'ceiling', 'road', 'bed ', 'windowpane', 'grass',
    'cabinet', 'sidewalk', 'person', 'earth', 'door', 'table', 'mountain', 'plant', 'curtain',
    'chair', 'car', 'water', 'painting', 'sofa', 'shelf', 'house', 'sea', 'mirror', 'rug', 'field',
    'armchair', 'seat', 'fence', 'desk', 'rock', 'wardrobe', 'lamp', 'bathtub', 'railing',
    'cushion', 'base', 'box', 'column', 'signboard', 'chest of drawers', 'counter', 'sand', 'sink',
    'skyscraper', 'fireplace', 'refrigerator', 'grandstand', 'path', 'stairs', 'runway', 'case',
    'pool table', 'pillow', 'screen door', 'stairway', 'river', 'bridge', 'bookcase', 'blind',
    'coffee table', 'toilet', 'flower', 'book', 'hill', 'bench', 'countertop', 'stove', 'palm',
    'kitchen island', 'computer', 'swivel chair', 'boat', 'bar', 'arcade machine', 'hovel', 'bus',
    'towel', 'light', 'truck', 'tower', 'chandelier', 'awning', 'streetlight', 'booth',
    'television receiver', 'airplane', 'dirt track', 'apparel', 'pole', 'land', 'bannister',
    'escalator', 'ottoman', 'bottle', 'buffet', 'poster', 'stage', 'van', 'ship', 'fountain',
    'conveyer belt', 'canopy', 'washer', 'plaything', 'swimming pool', 'stool', 'barrel', 'basket',
    'waterfall', 'tent', 'bag', 'minibike', 'cradle', 'oven', 'ball', 'food', 'step', 'tank',
    'trade name', 'microwave', 'pot', 'animal', 'bicycle', 'lake', 'dishwasher', 'screen',
    'blanket', 'sculpture', 'hood', 'sconce', 'vase', 'traffic light', 'tray', 'ashcan', 'fan',
    'pier', 'crt screen', 'plate', 'monitor', 'bulletin board', 'shower', 'radiator', 'glass',
    'clock', 'flag',
)  # fmt: skip
# For the text encoder.
class_texts = tuple(name.strip() for name in class_names)
# The 50 that are not counted one by one in its panoptic set; the other 100 are things.
stuff_names = (
    'wall', 'building', 'sky', 'floor', 'tree', 'ceiling', 'road', 'grass', 'sidewalk', 'earth',
    'mountain', 'plant', 'water', 'house', 'sea', 'rug', 'field', 'rock', 'base', 'sand',
    'skyscraper', 'grandstand', 'path', 'runway', 'stairway', 'river', 'bridge', 'blind', 'hill',
    'bar', 'hovel', 'tower', 'dirt track', 'land', 'escalator', 'buffet', 'poster', 'stage',
    'conveyer belt', 'canopy', 'swimming pool', 'waterfall', 'tent', 'cradle', 'tank', 'lake',
    'blanket', 'pier', 'crt screen', 'shower',
)  # fmt: skip
thing_classes = tuple(i for i, name in enumerate(class_names) if name not in stuff_names)

"""The 19 Cityscapes classes in trainId order, and how a label becomes a Cityscapes id."""

CLASSES = (
    'road',
    'sidewalk',
    'building',
    'wall',
    'fence',
    'pole',
    'traffic light',
    'traffic sign',
    'vegetation',
    'terrain',
    'sky',
    'person',
    'rider',
    'car',
    'truck',
    'bus',
    'train',
    'motorcycle',
    'bicycle',
)
(
    ROAD,
    SIDEWALK,
    BUILDING,
    WALL,
    FENCE,
    POLE,
    LIGHT,
    SIGN,
    VEGETATION,
    TERRAIN,
    SKY,
    PERSON,
    RIDER,
    CAR,
    TRUCK,
    BUS,
    TRAIN,
    MOTORCYCLE,
    BICYCLE,
) = range(19)
IGNORE = 255

# labelIds of the Cityscapes scripts (helpers/labels.py), by trainId
LABEL_IDS = (7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33)
THINGS = frozenset(range(PERSON, BICYCLE + 1))
EGO_ID = 1  # labelId 'ego vehicle', ignored in training
STATIC_ID = 4  # labelId 'static', ignored in training


def instance_id(train_id: int, number: int) -> int:
    """Cityscapes id of instance ``number`` (from 0) of a class: things labelId * 1000 + number."""
    label = LABEL_IDS[train_id]
    return label * 1000 + number if train_id in THINGS else label

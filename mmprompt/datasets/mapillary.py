"""Mapillary Vistas reduced to the 19 classes that it shares with Cityscapes."""

from pathlib import Path

from mmseg.datasets import BaseSegDataset, CityscapesDataset, MapillaryDataset_v1

from mmprompt.common.errors import UserError
from mmprompt.registry import DATASETS

_PLAIN = {
    'Building': 'building',
    'Wall': 'wall',
    'Fence': 'fence',
    'Pole': 'pole',
    'Utility Pole': 'pole',
    'Traffic Light': 'traffic light',
    'Traffic Sign (Front)': 'traffic sign',
    'Vegetation': 'vegetation',
    'Terrain': 'terrain',
    'Sky': 'sky',
    'Person': 'person',
    'Bicyclist': 'rider',
    'Motorcyclist': 'rider',
    'Other Rider': 'rider',
    'Car': 'car',
    'Truck': 'truck',
    'Bus': 'bus',
    'On Rails': 'train',
    'Motorcycle': 'motorcycle',
    'Bicycle': 'bicycle',
    'Road': 'road',
    'Lane Marking - General': 'road',
    'Sidewalk': 'sidewalk',
    'Curb': 'sidewalk',
}
#: Class of Vistas v1.2 -> class of Cityscapes; a class that is not named is not evaluated.
MAPPINGS = {
    # Huang et al., Cross-View Regularization for Domain Adaptive Panoptic Segmentation, CVPR 2021;
    # the work that the SSPrompt paper follows. Equal to `id_to_trainid` in its public code:
    # github.com/jxhuang0508/CVRN, data loader and processing/init_vistas2cityscapes_format.py.
    'huang2021': {
        **_PLAIN,
        'Bike Lane': 'road',
        'Crosswalk - Plain': 'road',
        'Lane Marking - Crosswalk': 'road',
        'Parking': 'road',
        'Service Lane': 'road',
        'Curb Cut': 'sidewalk',
        'Pedestrian Area': 'sidewalk',
        'Traffic Sign (Back)': 'traffic sign',
    },
    # Choi et al., RobustNet, CVPR 2021; the usual one of work on domain generalisation.
    'choi2021': {**_PLAIN, 'Manhole': 'road'},
}


@DATASETS.register_module()
class Mapillary19Dataset(BaseSegDataset):
    """Mapillary Vistas with the labels of v1.2 (66 values), read as the 19 of Cityscapes.

    The expected layout is the download's own: ``validation/images/*.jpg`` and
    ``validation/v1.2/labels/*.png``. Labels are mapped when they are loaded, by class name; what
    has no counterpart becomes ``ignore_index``. The labels of v2.0 are refused: its 124 classes do
    not divide those of v1.2 (a driveway was sidewalk), and no mapping of them is published.

    Args:
        mapping: 'huang2021', with which SSPrompt reports, or 'choi2021', the narrower one of domain
            generalisation; see `MAPPINGS`.
        img_suffix, seg_map_suffix: how the names of images and labels end.

    Raises:
        UserError: for an unknown mapping, or a folder of v2.0.
    """

    METAINFO = dict(
        classes=CityscapesDataset.METAINFO['classes'],
        palette=CityscapesDataset.METAINFO['palette'],
    )

    def __init__(
        self,
        mapping: str = 'huang2021',
        img_suffix: str = '.jpg',
        seg_map_suffix: str = '.png',
        **kwargs,
    ) -> None:
        if mapping not in MAPPINGS:
            raise UserError(
                f'Mapillary19Dataset.mapping: expected one of {sorted(MAPPINGS)}, found '
                f'{mapping!r}. Correct it in the config.'
            )
        self.mapping = mapping
        super().__init__(img_suffix=img_suffix, seg_map_suffix=seg_map_suffix, **kwargs)

    def load_data_list(self) -> list[dict]:
        labels = self.data_prefix.get('seg_map_path') or ''
        if 'v2.0' in Path(labels).parts:
            raise UserError(
                f'{labels}: expected the labels of Mapillary Vistas v1.2, found those of v2.0, '
                f'whose classes have no agreed counterpart in Cityscapes. The download holds both; '
                f'point data_prefix.seg_map_path at v1.2/labels.'
            )
        # Here and not in get_label_map, from which the base class would derive a palette.
        self.label_map = self._ids()
        return super().load_data_list()

    def _ids(self) -> dict[int, int]:
        """Value in a label file -> index among the classes of this dataset, or `ignore_index`."""
        index = {name: i for i, name in enumerate(self.metainfo['classes'])}
        target = MAPPINGS[self.mapping]
        vistas = MapillaryDataset_v1.METAINFO['classes']
        return {i: index.get(target.get(name), self.ignore_index) for i, name in enumerate(vistas)}

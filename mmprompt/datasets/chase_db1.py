"""CHASE-DB1: retinal vessels, read straight from the files that its archive holds."""

from pathlib import Path

from mmseg.datasets import ChaseDB1Dataset

from mmprompt.common.errors import UserError
from mmprompt.datasets.folder import FolderDataset
from mmprompt.registry import DATASETS

IMAGES = 28
#: Places within the images ordered by name, two of each child: Image_01L, Image_01R, Image_02L ...
PARTS = {'train': (0, 20), 'test': (20, 28), 'fit': (0, 16), 'held-out': (16, 20)}


@DATASETS.register_module()
class ChaseDB1FolderDataset(FolderDataset):
    """CHASE-DB1 without the conversion that `mmseg.ChaseDB1Dataset` needs.

    ``Image_01L.jpg`` below ``data_prefix.img_path`` has its vessels in ``Image_01L_1stHO.png``
    below ``data_prefix.seg_map_path``, which may be the same folder. Masks of 1 bit, of 0 and 1,
    and of 0 and 255 mean the same: background and vessel. No pixel is ignored.

    Args:
        part: 'train', the first 20 images, or 'test', the other 8, as the paper and MMSegmentation
            divide them. Settings are chosen without the test images by training on 'fit', the first
            16, and testing on 'held-out', the other 4 of 'train'. No child is in two of them.
        observer: whose manual segmentation is the truth: '1stHO' or '2ndHO'.
        kwargs: of `FolderDataset`.

    Raises:
        UserError: another part, another number of images than 28, or whatever `FolderDataset` says.
    """

    METAINFO = dict(
        classes=ChaseDB1Dataset.METAINFO['classes'],
        palette=ChaseDB1Dataset.METAINFO['palette'],
    )

    def __init__(self, part: str = 'train', observer: str = '1stHO', **kwargs) -> None:
        if part not in PARTS:
            raise UserError(
                f'ChaseDB1FolderDataset.part: expected one of {", ".join(PARTS)}, found {part!r}. '
                f'Correct it.'
            )
        self.part = part
        super().__init__(mask_suffix=f'_{observer}', **kwargs)

    def load_data_list(self) -> list[dict]:
        """One entry per image of the part."""
        # Here and not in get_label_map, from which the base class would derive a palette.
        table = self.label_map or {}
        self.label_map = {**table, 255: table.get(1, 1)}
        entries = super().load_data_list()
        if len(entries) != IMAGES:
            raise UserError(
                f'{self.data_prefix["img_path"]}: expected the {IMAGES} images of CHASE-DB1, whose '
                f'order decides what is trained and tested on, found {len(entries)}. Put the '
                f'others back, or read a folder of your own with FolderDataset.'
            )
        return entries[slice(*PARTS[self.part])]

    def _is_mask(self, path: Path) -> bool:
        return path.stem.endswith('HO')

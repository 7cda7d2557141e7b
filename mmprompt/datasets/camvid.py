"""CamVid: 11 street classes in video clips, read straight from its usual two folders."""

from pathlib import Path

from mmseg.datasets import BaseSegDataset

from mmprompt.common.errors import UserError
from mmprompt.registry import DATASETS

UNLABELLED = 11  # the value that the label maps use for 'no class'


@DATASETS.register_module()
class CamVidDataset(BaseSegDataset):
    """CamVid with its 11 merged classes, restricted to clips and to parts of them.

    The expected layout is ``IMG/*.jpg|png`` and ``ANN/*.png`` with equal stems, where a stem starts
    with its clip's name (``0001TP_006690``). Label maps hold 0 to 10 for the classes and 11 for
    unlabelled pixels, which become ``ignore_index``. Frames are ordered by name, which within a
    clip is the order in time.

    Args:
        clips: names of the clips to keep; None keeps all.
        frames: ``(start, stop)``, the positions kept within the sorted frames of each clip, read as
            in a Python slice; None keeps all. Consecutive frames look alike, so a clip is divided
            into stretches and never at random.

    Raises:
        UserError: if a folder is missing, a clip has no frame, or an image has no label map.
    """

    METAINFO = dict(
        classes=(
            'sky', 'building', 'pole', 'road', 'sidewalk', 'tree', 'traffic sign', 'fence', 'car',
            'pedestrian', 'bicyclist',
        ),
        palette=[
            [128, 128, 128], [128, 0, 0], [192, 192, 128], [128, 64, 128], [60, 40, 222],
            [128, 128, 0], [192, 128, 128], [64, 64, 128], [64, 0, 128], [64, 64, 0],
            [0, 128, 192],
        ],
    )  # fmt: skip

    def __init__(
        self,
        clips: list[str] | None = None,
        frames: tuple[int | None, int | None] | None = None,
        **kwargs,
    ) -> None:
        self.clips = clips
        self.frames = frames
        super().__init__(img_suffix='', seg_map_suffix='.png', **kwargs)

    def load_data_list(self) -> list[dict]:
        images = Path(self.data_prefix['img_path'])
        labels = Path(self.data_prefix['seg_map_path'])
        for folder in (images, labels):
            if not folder.is_dir():
                raise UserError(
                    f'CamVidDataset: the folder {folder} does not exist. Expected data_root to '
                    f'hold the CamVid images and label maps; docs/datasets.md says where to get '
                    f'them and which folders to make.'
                )
        by_clip: dict[str, list[Path]] = {}
        for path in sorted(p for p in images.iterdir() if p.suffix in ('.jpg', '.png')):
            by_clip.setdefault(path.name.split('_')[0], []).append(path)
        wanted = sorted(by_clip) if self.clips is None else self.clips
        missing = [clip for clip in wanted if clip not in by_clip]
        if missing:
            raise UserError(
                f'CamVidDataset: no frame of clip {", ".join(missing)} in {images}; the clips '
                f'found are {", ".join(sorted(by_clip)) or "none"}. Correct `clips` or '
                f'`data_prefix`.'
            )
        part = slice(*self.frames) if self.frames is not None else slice(None)
        return [self._entry(path, labels) for clip in wanted for path in by_clip[clip][part]]

    def _entry(self, image: Path, labels: Path) -> dict:
        label = labels / f'{image.stem}{self.seg_map_suffix}'
        if not label.is_file():
            raise UserError(
                f'CamVidDataset: {image} has no label map; expected {label}. Add it or remove the '
                f'image.'
            )
        return dict(
            img_path=str(image),
            seg_map_path=str(label),
            label_map={**(self.label_map or {}), UNLABELLED: self.ignore_index},
            reduce_zero_label=False,
            seg_fields=[],
        )

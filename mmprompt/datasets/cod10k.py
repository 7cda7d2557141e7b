"""COD10K, camouflaged objects: instances in COCO's format, whose class is in the image's name.

Its images are called ``COD10K-CAM-<super number>-<super class>-<number>-<sub-class>-<image>.jpg``,
with sub-classes numbered from 1 to 69; its JSON tells objects from background only.
"""

import re
from pathlib import Path, PurePosixPath

from mmprompt.common.errors import UserError
from mmprompt.datasets.coco_instances import CocoInstanceSegDataset
from mmprompt.registry import DATASETS

#: Sub-classes by their number, in plain English: "pagurian" is 'hermit crab' here.
COD10K_CLASSES = tuple(
    """batfish; clownfish; crab; crocodile; crocodilefish; fish; flounder; frogfish; ghost pipefish;
    leafy sea dragon; octopus; hermit crab; pipefish; scorpionfish; seahorse; shrimp; slug;
    starfish; stingray; turtle; ant; bug; cat; caterpillar; centipede; chameleon; cheetah; deer;
    dog; duck; gecko; giraffe; grouse; human; kangaroo; leopard; lion; lizard; monkey; rabbit;
    raccoon; squirrel; sheep; snake; spider; stick insect; tiger; wolf; worm; bat; bee; beetle;
    bird; bittern; butterfly; cicada; dragonfly; frogmouth; grasshopper; heron; katydid; mantis;
    mockingbird; moth; owl; owlfly; frog; toad; other""".replace('\n    ', ' ').split('; ')
)
_NAME = re.compile(r'COD10K-CAM-\d+-[A-Za-z]+-(\d+)-[A-Za-z]+-\d+\.\w+')


@DATASETS.register_module()
class COD10KInstanceSegDataset(CocoInstanceSegDataset):
    """Camouflaged objects of COD10K with their sub-classes, all of them things.

    Args:
        metainfo: ``classes`` chooses from `COD10K_CLASSES`, and their order; objects of all others
            are ignored.
        args, kwargs: of `CocoInstanceSegDataset`.

    Raises:
        UserError: as of `CocoInstanceSegDataset`, or an image is not called as above.
    """

    @staticmethod
    def _read(path: Path) -> dict:
        content = CocoInstanceSegDataset._read(path)
        kinds = {image['id']: _class_of(image['file_name'], path) for image in content['images']}
        return content | dict(
            categories=[dict(id=i, name=name) for i, name in enumerate(COD10K_CLASSES, 1)],
            annotations=[
                a | dict(category_id=kinds.get(a['image_id'])) for a in content['annotations']
            ],
        )


def _class_of(file_name: str, path: Path) -> int:
    """Number of the sub-class, from 1."""
    found = _NAME.fullmatch(PurePosixPath(file_name).name)
    number = int(found[1]) if found else 0
    if not 1 <= number <= len(COD10K_CLASSES):
        raise UserError(
            f'{path}: expected images called COD10K-CAM-1-Aquatic-3-Crab-32.jpg, with the number '
            f'of one of {len(COD10K_CLASSES)} sub-classes in the fifth place, found {file_name!r}. '
            f'Give the annotations of camouflaged objects, as COD10K ships them.'
        )
    return number

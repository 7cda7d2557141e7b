"""SPM in `tools/learn.py`: the base is a config of SPM, whose model learns your classes."""

import copy
import hashlib
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np
from mmengine.config import ConfigDict
from PIL import Image

import mmprompt  # noqa: F401  (registers the components that a config names)
from mmprompt.apis.bases import is_spm
from mmprompt.apis.cli import find_config
from mmprompt.apis.learn.classes_file import Classes
from mmprompt.common.class_prior import save_class_prior
from mmprompt.common.errors import UserError
from mmprompt.common.files import sha256_of
from mmprompt.common.pretrained import checkpoint_of
from mmprompt.common.prompt_file import HEAD_FILE, PROMPT_FILE
from mmprompt.datasets.folder import mask_name

METHODS = {'head': 'head tuning', 'spm': 'SPM'}
#: What is learned by default, and how.
STEPS, LR, WEIGHT_DECAY = 400, 1e-3, 1e-2
CLASS_PRIOR = 'class_prior.json'


def files_of(method: str) -> tuple[str, ...]:
    """Names of the files that a method leaves in its work directory, the one to give first."""
    if method == 'spm':
        return PROMPT_FILE, HEAD_FILE
    return (HEAD_FILE,) if method == 'head' else (PROMPT_FILE,)


def base_facts(base: str) -> dict:
    """`config`, `fingerprint` and `record` of a base, as of a base file of SEEM.

    Raises:
        UserError: it is no config of SPM, or its pretrained weights are not there.
    """
    config = find_config(base)
    if not is_spm(config):
        raise UserError(
            f'--base {base}: expected weights of SEEM, or a config whose model is an '
            f'SPMSegmentor, found another model. Give for example '
            f'configs/spm/spm_r50_psp_camvid.py.'
        )
    model = config.model.to_dict()
    weights = checkpoint_of(model['backbone']['backbone'].get('init_cfg'))
    digest = hashlib.sha256(repr(model).encode())
    if weights is not None and '://' not in weights:
        digest.update(_digest_of(base, weights))
    return dict(config=model, fingerprint=digest.hexdigest(), record=None)


@lru_cache
def _digest_of(base: str, weights: str) -> bytes:
    if not Path(weights).is_file():
        raise UserError(
            f'{weights}: expected the frozen weights that {base} names, found no such file. Set '
            f'MMPROMPT_WEIGHTS to the folder where it is, or correct init_cfg in the config.'
        )
    return bytes.fromhex(sha256_of(weights))


def model_of(classes: Classes, base: dict, prior: Path) -> dict:
    """The model of a config for other classes.

    Args:
        classes: that it is to know.
        base: config of the model.
        prior: file of the class frequencies.
    """
    model = copy.deepcopy(base)
    number = len(classes.names)
    for key in ('expected_parameters', 'paper_parameters'):
        model.pop(key, None)  # those of other classes
    model['classes'] = list(classes.names)
    model['backbone'].update(num_classes=number, class_prior=str(prior), tuning='spm')
    heads = model.get('auxiliary_head') or []
    for head in [model['decode_head'], *(heads if isinstance(heads, list) else [heads])]:
        head['num_classes'] = number
    preprocessor = model['data_preprocessor']
    if preprocessor.get('size') is not None:  # images are not cropped to one size here
        preprocessor.update(size=None, size_divisor=32)
    preprocessor.setdefault('test_cfg', dict(size_divisor=32))
    model['test_cfg'] = dict(mode='whole')
    return ConfigDict(model).to_dict()


def count_prior(out: Path, classes: Sequence[str], names: Sequence[str]) -> None:
    """Count the pixels of each class in the label maps of the training images.

    Args:
        out: folder of the results, with ``labels/``; ``class_prior.json`` is written there.
        classes: their names.
        names: the images.
    """
    pixels, ignored = np.zeros(len(classes), np.int64), 0
    for name in names:
        with Image.open(out / 'labels' / mask_name(name)) as file:
            counts = np.bincount(np.asarray(file).ravel(), minlength=256)
        pixels += counts[: len(classes)]
        ignored += int(counts[len(classes) :].sum())
    save_class_prior(out / CLASS_PRIOR, classes, pixels.tolist(), len(names), ignored)

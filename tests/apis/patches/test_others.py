"""Testing on other patches than those of the training: the store is replaced, and it is said."""

from pathlib import Path

import numpy as np
import pytest
from mmengine.config import Config
from toy import shrink

from mmprompt.apis.patches.others import other_patches, use_patches
from mmprompt.apis.test import test as measure
from mmprompt.apis.train import train
from mmprompt.common.checkpoint import save_tensors
from mmprompt.common.errors import UserError
from mmprompt.common.patch_store import PatchStore, PatchStoreWriter
from mmprompt.common.patches import PatchSet
from mmprompt.common.prompt_file import PromptFile
from mmprompt.common.strict_loader import load_strict
from mmprompt.registry import MODELS

CONFIGS = Path(__file__).resolve().parents[3] / 'configs'


def write_store(path: Path, generator: str, **settings) -> str:
    with PatchStoreWriter(path, dict(generator=generator, settings=settings)) as writer:
        writer.add('a.png', PatchSet.from_masks(np.ones((1, 4, 4), bool)))
        writer.finish()
    return str(path)


def config(train: str, test: str) -> Config:
    """Pipelines that read patches from two stores; the data set of testing is wrapped."""
    steps = [[dict(type='mmprompt.LoadPatches', store=store)] for store in (train, test)]
    return Config(
        dict(
            train_dataloader=dict(dataset=dict(pipeline=steps[0])),
            test_dataloader=dict(dataset=dict(dataset=dict(pipeline=steps[1]))),
        )
    )


def test_says_what_is_otherwise(tmp_path):
    sam = write_store(tmp_path / 'sam.db', 'sam', points_per_side=32)
    fine = write_store(tmp_path / 'fine.db', 'sam', points_per_side=64)
    sam2 = write_store(tmp_path / 'sam2.db', 'sam2', points_per_side=32)
    assert other_patches(config(sam, sam), None) is None
    assert 'by sam2, not by sam' in other_patches(config(sam, sam2), None)
    assert 'points_per_side 64, not 32' in other_patches(config(sam, fine), None)
    # What the weights say comes before what the config would train on, which may not be here.
    recipe = dict(patches=dict(generator='sam2', settings=dict(points_per_side=32)))
    assert other_patches(config(sam, sam2), recipe) is None
    assert other_patches(config('none.db', sam2), None) is None
    assert 'by sam, not by sam2' in other_patches(config('none.db', sam), recipe)
    assert other_patches(Config(dict(test_dataloader=dict(dataset=dict(pipeline=[])))), {}) is None


def test_replaces_the_store(tmp_path):
    sam, sam2 = (write_store(tmp_path / f'{name}.db', name) for name in ('sam', 'sam2'))
    cfg = config(sam, sam)
    use_patches(cfg, sam2)
    assert cfg.test_dataloader.dataset.dataset.pipeline[0].store == sam2
    assert cfg.train_dataloader.dataset.pipeline[0].store == sam
    with pytest.raises(UserError, match='none.db'):
        use_patches(cfg, tmp_path / 'none.db')
    cfg.test_dataloader.dataset.dataset.pipeline = []
    with pytest.raises(UserError, match='expected a config whose test pipeline has LoadPatches'):
        use_patches(cfg, sam2)


def test_weights_are_measured_on_patches_of_another_generator(tmp_path, monkeypatch):
    monkeypatch.setenv('MMPROMPT_CACHE', str(tmp_path / 'cache'))
    cfg = shrink(Config.fromfile(str(CONFIGS / 'samcp/samcp_r50_coco128.py')), tmp_path)
    backbone = tmp_path / 'backbone.safetensors'
    save_tensors(backbone, MODELS.build(cfg.model.backbone).state_dict(), {})
    cfg.model.backbone.init_cfg = dict(type='Pretrained', checkpoint=str(backbone))
    train(cfg)
    steps = cfg.test_dataloader.dataset.pipeline
    own = PatchStore(next(s.store for s in steps if s.type == 'LoadPatches'))
    other = tmp_path / 'other.db'
    with PatchStoreWriter(other, dict(generator='other', settings={})) as writer:
        for key in own.keys():
            masks = own.get(key).decode()
            writer.add(key, PatchSet.from_masks(masks[:1]), own.digest(key))
        writer.finish()
    weights = Path(cfg.work_dir) / 'head.safetensors'
    told = 'patches: made otherwise than those of the training: by other, not by toy'
    before = measure(cfg.copy(), weights)
    assert told not in _logs(cfg)
    # A checkpoint says the same, also where the store of the training is not at hand.
    cfg.train_dataloader.dataset = dict(pipeline=[])
    cfg.work_dir = str(tmp_path / 'checkpoint')
    last = next(weights.parent.glob('*.pth'))
    recipe = load_strict(last)['mmprompt']['recipe']
    assert recipe['names'] == PromptFile.load(weights, ('head',)).recipe['names']
    assert recipe['names'][0] == [cfg.model.classes[0]]
    measure(cfg.copy(), last)
    assert told not in _logs(cfg)
    measure(cfg.copy(), last, patches=other)
    assert told in _logs(cfg)
    cfg.work_dir = str(weights.parent)
    after = measure(cfg.copy(), weights, patches=other)
    assert told in _logs(cfg)
    assert before.keys() == after.keys() and before != after


def _logs(cfg: Config) -> str:
    return '\n'.join(path.read_text() for path in Path(cfg.work_dir).rglob('*.log'))

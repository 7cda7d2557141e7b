"""The seen and unseen classes of coco128 follow the rule that their config tells."""

import json
from collections import Counter
from pathlib import Path

import pytest
from mmengine.config import Config
from toy import shrink

from mmprompt.apis.test import test as measure
from mmprompt.apis.train import train
from mmprompt.common.checkpoint import save_tensors
from mmprompt.datasets.coco_classes import COCO_THINGS
from mmprompt.registry import MODELS

ROOT = Path(__file__).resolve().parents[2]
GROUPS = ('seen', 'unseen')
BASE = Config.fromfile(str(ROOT / 'configs/_base_/datasets/coco128-seen-60.py'))


def test_seen_and_unseen_classes_are_71_of_cocos_in_its_order():
    seen, unseen = list(BASE.seen_names), list(BASE.unseen_names)
    assert (len(seen), len(unseen)) == (60, 11) and not set(seen) & set(unseen)
    for names in (seen, unseen):
        assert names == [name for name in COCO_THINGS if name in names]
    assert list(BASE.present_names) == seen + unseen


def test_the_rule():
    folder = ROOT / 'data/coco128/annotations'
    if not folder.is_dir():
        pytest.skip('coco128 is not here')
    parts = {}
    for part in ('train', 'val'):
        content = json.loads((folder / f'{part}.json').read_text())
        names = {c['id']: c['name'] for c in content['categories']}
        parts[part] = Counter(names[a['category_id']] for a in content['annotations'])
    both = parts['train'] + parts['val']
    assert set(both) == set(parts['train']) == set(BASE.present_names)
    tested = sorted(parts['val'], key=lambda name: (-both[name], name))
    assert len(tested) == 41
    ends = [r for r in range(1, 42) if r * 11 // 41 > (r - 1) * 11 // 41]
    held_out = [tested[r - 1] for r in ends]
    assert set(held_out) == set(BASE.unseen_names)
    assert [both[held_out[i]] for i in (0, -1)] == [35, 2]
    assert sum(parts['val'][name] for name in held_out) == 19


def test_a_head_of_60_classes_is_measured_on_71(tmp_path, monkeypatch):
    monkeypatch.setenv('MMPROMPT_CACHE', str(tmp_path / 'cache'))
    leaf = str(ROOT / 'configs/samcp/samcp_r50_coco128_seen-60')
    cfg = shrink(Config.fromfile(f'{leaf}.py'), tmp_path / 'seen')
    test = shrink(Config.fromfile(f'{leaf}_all-71.py'), tmp_path / 'all')
    weights = tmp_path / 'backbone.safetensors'
    save_tensors(weights, MODELS.build(cfg.model.backbone).state_dict(), {})
    for each in (cfg, test):
        each.model.backbone.init_cfg = dict(type='Pretrained', checkpoint=str(weights))
    train(cfg)
    found = measure(test, Path(cfg.work_dir) / 'head.safetensors')
    groups = {f'{name}_{group}' for name in ('PQ', 'AP', 'AP_det', 'mIoU') for group in GROUPS}
    assert groups <= {name.split('/')[-1] for name in found}
    log = '\n'.join(path.read_text() for path in Path(test.work_dir).rglob('*.log'))
    assert 'trained with 60 classes; 60 of the 71 of model.classes' in log

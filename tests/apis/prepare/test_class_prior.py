"""tools/class_prior.py end to end, against counting the pixels of the label files by hand."""

import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from layouts import LAYOUTS, write
from PIL import Image

from mmprompt.apis.prepare.class_prior import main
from mmprompt.apis.prepare.few_shot import main as make_split
from mmprompt.common.class_prior import read_class_prior

ROOT = Path(__file__).resolve().parents[3]
SIZES = [(64, 88), (108, 60), (48, 48)]
CONFIG = """
default_scope = 'mmprompt'
data_root = {root!r}
inner = dict(
    type='mmseg.ADE20KDataset',
    data_root=data_root,
    data_prefix=dict(img_path='images/training', seg_map_path='annotations/training'),
    {inner}
    pipeline=[
        dict(type='LoadImageFromFile'),
        dict(type='mmseg.LoadAnnotations'),
        # Would be seen in the counts.
        dict(type='mmseg.RandomCrop', crop_size=(8, 8)),
        dict(type='mmseg.PackSegInputs'),
    ],
)
train_dataloader = dict(dataset={dataset})
model = {model}
"""


@pytest.fixture
def ade(tmp_path):
    """Label files (H, W) of an ADE20K of three training images."""
    layout = LAYOUTS['ade20k']
    labels = write(tmp_path, layout, SIZES)[layout.splits[0]]
    return tmp_path / layout.root, labels


def config(root: Path, dataset: str = 'inner', inner: str = '', model: str = 'None') -> str:
    path = root.parent / 'config.py'
    path.write_text(CONFIG.format(root=str(root), dataset=dataset, inner=inner, model=model))
    return str(path)


def by_hand(labels: list[np.ndarray]) -> tuple[list[int], int]:
    """Pixels of each of the 150 classes, and of none, value by value."""
    counts = Counter(value for label in labels for value in label.ravel().tolist())
    return [counts[value] for value in range(1, 151)], counts[0]


def test_counts_are_those_by_hand_and_the_same_bytes_twice(ade, capsys):
    root, labels = ade
    made = []
    for name in ('a.json', 'b.json'):
        assert main([config(root), '--out', str(root.parent / name)]) == 0
        made.append((root.parent / name).read_bytes())
    assert made[0] == made[1]
    content, (pixels, ignored) = json.loads(made[0]), by_hand(labels)
    assert content['pixels'] == pixels and content['ignored_pixels'] == ignored > 0
    assert content['images'] == 3 and content['classes'][:2] == ['wall', 'building']
    expected = [n / sum(pixels) for n in pixels]
    found = read_class_prior(root.parent / 'a.json', 150)
    assert found == pytest.approx(expected, abs=1e-15) and sum(found) == pytest.approx(1)
    out = capsys.readouterr().out
    assert f'3 images, {sum(pixels):,} pixels, {ignored:,} ignored' in out and 'wall' in out


@pytest.mark.parametrize(
    ('dataset', 'places'),
    [
        ("dict(type='GuardedDataset', dataset=inner)", [0, 1, 2]),
        ("dict(type='RepeatDataset', times=40000, dataset=inner)", [0, 1, 2]),
        ("dict(type='ConcatDataset', datasets=[inner, inner])", [0, 1, 2] * 2),
        (
            "dict(type='RepeatDataset', times=2, dataset=dict(type='ConcatDataset', datasets=["
            "inner, dict(type='GuardedDataset', dataset=inner)]))",
            [0, 1, 2] * 2,
        ),
        (
            "dict(type='GuardedDataset', dataset=dict(type='RepeatDataset', times=2, "
            'dataset=inner))',
            [0, 1, 2],
        ),
        ("dict(type='mmseg.MultiImageMixDataset', dataset=inner, pipeline=[])", [0, 1, 2]),
    ],
)
def test_wrapped_datasets_are_counted_once(ade, dataset, places):
    root, labels = ade
    out = root.parent / 'out.json'
    assert main([config(root, dataset), '--out', str(out)]) == 0
    content = json.loads(out.read_text())
    assert content['pixels'] == by_hand([labels[i] for i in places])[0]
    assert content['images'] == len(places)


def test_a_few_shot_set_is_counted_alone(ade):
    root, labels = ade
    for i in range(1, 3):  # a class that one image shows
        labels[i][labels[i] == 1] = 2
        name = LAYOUTS['ade20k'].label.format(split='training', i=i)
        Image.fromarray(labels[i]).save(root / name)
    out = root.parent / 'out.json'
    few = "dict(type='FewShotDataset', manifest='{}', dataset=inner)"
    manifest = root.parent / 'few.json'
    assert make_split([config(root), '--k', '1', '--out', str(manifest)]) == 0
    chosen = json.loads(manifest.read_text())['images']
    assert 0 < len(chosen) < 3
    assert main([config(root, few.format(manifest)), '--out', str(out)]) == 0
    kept = [labels[int(name[-5])] for name in chosen]
    assert json.loads(out.read_text())['pixels'] == by_hand(kept)[0]


def test_label_maps_and_ignored_values_are_obeyed(ade):
    root, labels = ade
    out = root.parent / 'out.json'
    inner = "metainfo=dict(classes=('sky', 'wall')),"
    assert main([config(root, inner=inner), '--out', str(out)]) == 0
    content, (pixels, _) = json.loads(out.read_text()), by_hand(labels)
    assert content['classes'] == ['sky', 'wall']
    assert content['pixels'] == [pixels[2], pixels[0]]
    assert content['ignored_pixels'] == sum(x.size for x in labels) - pixels[0] - pixels[2]


@pytest.mark.parametrize(
    ('model', 'name'),
    [
        ('dict(backbone=dict(class_prior=data_root + "/own.json"))', 'own.json'),
        ('dict(backbone=dict(class_prior=[0.5, 0.5]))', 'class_prior.json'),
        ('dict(backbone=dict(class_prior=None))', 'class_prior.json'),
        ('None\nclass_prior = data_root + "/data.json"', 'data.json'),
    ],
)
def test_the_default_place_is_where_the_model_looks(ade, model, name):
    root, _ = ade
    wrapped = "dict(type='RepeatDataset', times=2, dataset=inner)"
    assert main([config(root, wrapped, model=model)]) == 0
    assert [path.name for path in root.glob('*.json')] == [name]


def test_what_is_wrong_is_said(ade, capsys):
    root, labels = ade
    out = root.parent / 'out.json'

    def said(*args) -> str:
        assert main([*args]) == 2 and not out.exists()
        return capsys.readouterr().err

    model = 'dict(backbone=dict(num_classes=19))'
    assert 'num_classes: expected 150' in said(config(root, model=model), '--out', str(out))
    assert 'found None' in said(config(root, dataset='None'), '--out', str(out))
    assert 'place that can be written to' in said(
        config(root), '--out', f'{out.parent}/config.py/a'
    )
    labels[1][0, 0] = 200
    name = LAYOUTS['ade20k'].label.format(split='training', i=1)
    Image.fromarray(labels[1]).save(root / name)
    text = said(config(root), '--out', str(out))
    assert f'{root / name}: ' in text and '0 to 149' in text and '199 (1 pixels)' in text
    Image.fromarray(np.zeros_like(labels[1])).save(root / name)
    for i in (0, 2):
        (root / LAYOUTS['ade20k'].label.format(split='training', i=i)).unlink()
        (root / LAYOUTS['ade20k'].image.format(split='training', i=i)).unlink()
    assert 'expected labelled pixels' in said(config(root), '--out', str(out))


def test_the_command_line_runs_by_itself(ade):
    root, labels = ade
    out = root.parent / 'out.json'
    command = [sys.executable, str(ROOT / 'tools/class_prior.py'), config(root), '--out', str(out)]
    done = subprocess.run(
        command, capture_output=True, text=True, env={**os.environ, 'OMP_NUM_THREADS': '1'}
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(out.read_text())['pixels'] == by_hand(labels)[0]

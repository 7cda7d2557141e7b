"""Missing rates over the IoU, against counting, and as files."""

import csv
import math

import numpy as np
import pytest
from mmengine.config import Config
from PIL import Image
from toy_patches import toy_patch_dataset, write_toy_patches

from mmprompt.apis.patches.curves import HEADS, THRESHOLDS, curves, missing_rates, write_curves
from mmprompt.apis.patches.stats import main, measure
from mmprompt.apis.patches.truth import PatchSplit
from mmprompt.common.errors import UserError
from mmprompt.evaluation.proposal_quality import ObjectQuality, summary


def quality(*areas: int, seed: int = 0) -> ObjectQuality:
    random = np.random.default_rng(seed)
    ious = random.random((3, len(areas))).round(2)  # some on thresholds
    nothing = np.zeros(len(areas))
    return ObjectQuality(np.array(areas), *ious, nothing.astype(int), nothing)


def test_a_rate_is_the_share_of_objects_without_an_iou_above():
    ious = np.array([0.0, 0.25, 0.2501, 0.5, 0.75, 0.9, 1.0])
    rates = missing_rates(ious)
    for threshold, rate in zip(THRESHOLDS, rates):
        count = sum(not value > threshold for value in ious)
        assert rate == pytest.approx(100 * count / len(ious))
    table = summary(ious)
    for threshold in (0.25, 0.5, 0.75):
        rate = missing_rates(ious, np.array([threshold]))[0]
        assert rate == pytest.approx(table[f'MR_{threshold}'])
    assert np.isnan(missing_rates(ious[:0])).all()


def test_sizes_share_the_objects():
    found = list(curves(quality(5, 100, 2000, 9300, 50000)))
    assert {(size, number) for size, number, _, _ in found} == {
        ('all', 5), ('small', 2), ('medium', 1), ('large', 2),
    }  # fmt: skip
    by_size = {(size, rule): (number, rates) for size, number, rule, rates in found}
    for rule in ('best', 'parts', 'greedy'):
        counted = sum(n * by_size[size, rule][1] for size, n in
                      (('small', 2), ('medium', 1), ('large', 2)))  # fmt: skip
        assert by_size['all', rule][1] == pytest.approx(counted / 5)
        assert (np.diff(by_size['all', rule][1]) >= 0).all()
    assert not [size for size, *_ in curves(quality(5)) if size == 'large']


def test_a_picture_has_a_row_per_split(tmp_path):
    one, two = tmp_path / 'one.png', tmp_path / 'new/two.png'
    write_curves(dict(test=quality(5, 2000, 9999)), one)
    write_curves(dict(train=quality(5, 2000, 9999), test=quality(5)), two)
    sizes = [Image.open(path).size for path in (one, two)]
    assert sizes[0][0] == pytest.approx(sizes[1][0], rel=0.05) and sizes[1][1] > 1.7 * sizes[0][1]
    with pytest.raises(UserError, match=r'ends in \.png or \.csv, found \.jpg'):
        write_curves({}, tmp_path / 'x.jpg')


def test_the_command_line_writes_what_it_measured(tmp_path, capsys):
    write_toy_patches(tmp_path, 3)
    loader = dict(dataset=toy_patch_dataset(tmp_path, test=True).to_dict())
    config, out = tmp_path / 'config.py', tmp_path / 'curves.csv'
    config.write_text(f'test_dataloader = {loader!r}\n')
    assert main([str(config), '--split', 'test', '--curves', str(out)]) == 0
    assert str(out) in capsys.readouterr().out
    stats = measure(PatchSplit(Config.fromfile(config), 'test'))
    with out.open(newline='') as stream:
        rows = list(csv.DictReader(stream))
    assert list(rows[0]) == list(HEADS) and {row['split'] for row in rows} == {'test'}
    mine = [r for r in rows if (r['size'], r['made of']) == ('all', 'best patch')]
    assert len(mine) == 101 and int(mine[0]['objects']) == len(stats.labels)
    half = next(float(r['missing rate']) for r in mine if r['IoU'] == '0.50')
    assert half == pytest.approx(summary(stats.quality.best)['MR_0.5'], abs=1e-3)
    assert not any(math.isnan(float(r['missing rate'])) for r in rows)
    assert main([str(config), '--split', 'test', '--curves', 'curves.jpg']) == 2
    assert 'expected a file that ends in .png or .csv' in capsys.readouterr().err

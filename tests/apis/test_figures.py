"""Pictures: right colours, readable files."""

import numpy as np
import pytest
from PIL import Image

from mmprompt.apis import figures
from mmprompt.apis.demo import format_table
from mmprompt.apis.figures import colour_labels, draw_curve, draw_scenes, draw_weights


def test_labels_get_their_class_colour_and_ignored_pixels_black():
    palette = [[10, 20, 30], [40, 50, 60]]
    painted = colour_labels(np.array([[0, 1, 255]]), palette)
    assert painted.tolist() == [[[10, 20, 30], [40, 50, 60], [0, 0, 0]]]
    many = [[i % 256, i // 256, 1] for i in range(600)]
    painted = colour_labels(np.array([[599, 300, -1]]), many)
    assert painted.tolist() == [[many[599], many[300], [0, 0, 0]]]


def test_scenes_stand_side_by_side(tmp_path):
    red = np.full((20, 40, 3), (255, 0, 0), np.uint8)
    blue = np.full((20, 40, 3), (0, 0, 255), np.uint8)
    path = tmp_path / 'new' / 'scenes.png'
    draw_scenes([dict(image=red, truth=blue)] * 2, path)
    with Image.open(path) as file:
        pixels = np.array(file.convert('RGB'))
    middle = pixels.shape[1] // 2
    is_red = (pixels == (255, 0, 0)).all(-1)
    is_blue = (pixels == (0, 0, 255)).all(-1)
    assert is_red[:, :middle].mean() > 0.5 and not is_red[:, middle:].any()
    assert is_blue[:, middle:].mean() > 0.5 and not is_blue[:, :middle].any()
    assert [p.name for p in path.parent.iterdir()] == ['scenes.png']


def test_weights_are_drawn_per_class(tmp_path):
    path = tmp_path / 'weights.png'
    draw_weights(['road', 'sky'], np.array([0.4, 0.6]), path)
    with Image.open(path) as file:
        assert file.format == 'PNG' and min(file.size) > 50


def shown(monkeypatch, draw, *arguments):
    """The axes of a picture, caught before it is written."""
    caught = []
    monkeypatch.setattr(figures, 'save_figure', lambda figure, path: caught.append(figure))
    draw(*arguments)
    return caught[0].axes


def test_counts_stand_below_the_weights_in_falling_order(monkeypatch):
    weights = np.array([0.4, 0.7, 0.5])
    top, bottom, right = shown(
        monkeypatch, draw_weights, ['a', 'b', 'c'], weights, 'x.png', [5, 900, 70]
    )
    (line,) = [line for line in top.lines if line.get_marker() == 'o']
    assert line.get_ydata().tolist() == [0.7, 0.5, 0.4]
    assert [bar.get_height() for bar in bottom.patches] == [900, 70, 5]
    assert [text.get_text() for text in bottom.get_xticklabels()] == ['b', 'c', 'a']
    low, high = top.get_ylim()
    assert right.get_ylim() == pytest.approx((1 - low, 1 - high))  # 1 - w at the height of w


def test_a_curve_has_means_and_the_zero_shot_level(monkeypatch):
    lines = {'zero-shot': {0: [30.0]}, 'SSPrompt': {4: [32.0, 36.0], 16: [40.0]}}
    (axis,) = shown(monkeypatch, draw_curve, lines, 'mIoU (%)', 'x.png')
    (level,) = [line for line in axis.lines if line.get_linestyle() == '--']
    assert set(level.get_ydata()) == {30.0}
    (curve,) = [line for line in axis.lines if line.get_marker() == 'o']
    assert curve.get_xdata().tolist() == [4, 16] and curve.get_ydata().tolist() == [34.0, 40.0]
    spans = axis.collections[0].get_segments()
    assert spans[0][:, 1].tolist() == pytest.approx([34 - 8**0.5, 34 + 8**0.5])


def test_level_lines_are_told_apart_by_colour_and_by_dashes(monkeypatch):
    names = ('zero-shot', 'zero-shot-bare', 'zero-shot-grid')
    lines = {name: {0: [30.0 + n]} for n, name in enumerate(names)}
    lines |= {'SSPrompt': {4: [32.0], 16: [40.0]}}
    (axis,) = shown(monkeypatch, draw_curve, lines, 'mIoU (%)', 'x.png')
    drawn = [line for line in axis.lines if line.get_label() in names]
    assert [line.get_ydata()[0] for line in drawn] == [30.0, 31.0, 32.0]
    curve = next(line for line in axis.lines if line.get_marker() == 'o')
    assert len({line.get_color() for line in (*drawn, curve)}) == 4
    assert len({line.get_linestyle() for line in drawn}) == 3


def test_the_demo_table_lines_up():
    results = {
        'zero-shot': dict(miou=30.126, parameters=0, bytes=0, seconds=None),
        'SSPrompt': dict(miou=41.0, parameters=9639, bytes=40960, seconds=12.3),
    }
    lines = format_table(results).splitlines()
    assert len({len(line) for line in lines}) == 1
    assert [c.strip() for c in lines[2].strip('|').split('|')] == [
        'zero-shot', '30.13', '0', '-', '-',
    ]  # fmt: skip
    assert '9,639' in lines[3] and '40 KiB' in lines[3] and '12 s' in lines[3]

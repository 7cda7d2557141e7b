"""Pictures: right colours, readable files."""

import numpy as np
from PIL import Image

from mmprompt.apis.demo import format_table
from mmprompt.apis.figures import colour_labels, draw_scenes, draw_weights


def test_labels_get_their_class_colour_and_ignored_pixels_black():
    palette = [[10, 20, 30], [40, 50, 60]]
    painted = colour_labels(np.array([[0, 1, 255]]), palette)
    assert painted.tolist() == [[[10, 20, 30], [40, 50, 60], [0, 0, 0]]]


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

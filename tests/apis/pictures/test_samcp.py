"""tools/pictures.py on a finished run of SAM-CP: patches, merged results, features."""

import sys

import numpy as np
import pytest
import torch
from PIL import Image
from toy import shrink

from mmprompt.apis.cli import find_config
from mmprompt.apis.pictures import samcp as module
from mmprompt.apis.pictures.command import main
from mmprompt.apis.pictures.samcp import holders, paint_patches
from mmprompt.apis.train import train
from mmprompt.common.patches import PatchSet
from mmprompt.registry import MODELS


def test_small_patches_lie_on_large_ones():
    masks = np.zeros((3, 6, 9), bool)
    masks[0, 2:4, 2:4] = True
    masks[1, :5, :5] = True  # around the first
    masks[2, 0, 8] = True
    painted = paint_patches(PatchSet.from_masks(masks))
    colours = [tuple(painted[at]) for at in ((2, 2), (0, 0), (0, 8))]
    assert len({*colours, (0, 0, 0)}) == 4 and painted[5, 5].sum() == 0
    assert (painted[2:4, 2:4] == colours[0]).all()
    around = masks[1] & ~masks[0]
    assert (painted[around] == colours[1]).all()


def test_patches_belong_to_the_unit_that_holds_most_of_them():
    iop = torch.tensor([[0.9, 0.2, 0.5], [0.1, 0.3, 0.6]])
    assert holders(iop, torch.tensor([7, 4])).tolist() == [7, -1, 4]
    assert holders(iop[:0], torch.tensor([], dtype=torch.long)).tolist() == [-1, -1, -1]


def test_features_before_are_means_over_the_cells_of_a_patch():
    """Of a map that tells the column, the mean over half a box is a quarter of the box aside."""
    columns = torch.arange(32.0).expand(1, 1, 16, 32) + 0.5
    regions = torch.zeros(1, 7, 7, dtype=torch.bool)
    regions[..., :1] = True
    boxes = torch.tensor([[7 * 16.0, 0, 14 * 16.0, 7 * 16.0]])  # columns 7 to 14
    found = module.means_of_patches(columns, boxes, regions)
    assert found.item() == pytest.approx(7.5, abs=1e-4)


def test_one_command_draws_what_became_of_patches(tmp_path, monkeypatch, capsys):
    pytest.importorskip('sklearn')
    cfg = shrink(find_config('samcp/samcp_nano_streets.py'), tmp_path)
    # The frozen part is random: saved beside, so that the run finds the same one.
    weights = tmp_path / 'backbone.pth'
    torch.save(MODELS.build(cfg.model.backbone).state_dict(), weights)
    cfg.model.backbone.init_cfg = dict(type='Pretrained', checkpoint=str(weights))
    cfg.work_dir = str(tmp_path / 'run')
    train(cfg)
    seen = []
    draw = module.draw_scenes
    monkeypatch.setattr(module, 'draw_scenes', lambda s, path: (seen.extend(s), draw(s, path)))
    assert main([cfg.work_dir, '--scenes', '2']) == 0
    folder = tmp_path / 'run' / 'pictures'
    drawn = [folder / 'merged_run.png', folder / 'tsne_run.png']
    assert capsys.readouterr().out.split()[-2:] == [str(path) for path in drawn]
    assert all(Image.open(path).size[0] > 500 for path in drawn)
    titles = ['image', 'patches', 'truth', 'semantic', 'instances', 'panoptic']
    assert len(seen) == 2 and all(list(scene) == titles for scene in seen)
    assert len({scene['image'].tobytes() for scene in seen}) == 2
    for scene in seen:
        assert len({column.shape for column in scene.values()}) == 1
        assert len(np.unique(scene['patches'].reshape(-1, 3), axis=0)) > 3


def test_without_scikit_learn_the_command_says_so(monkeypatch):
    monkeypatch.setitem(sys.modules, 'sklearn.manifold', None)
    with pytest.raises(module.UserError, match='pip install scikit-learn'):
        module.project(np.zeros((5, 4)))


def test_few_patches_need_no_projection():
    assert module.project(np.ones((2, 8))).tolist() == [[0, 0], [1, 0]]

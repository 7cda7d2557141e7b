"""The configs on real images and weights; skipped where the environment names none."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.registry import DATASETS, MODELS, DefaultScope
from PIL import Image

import mmprompt  # noqa: F401
from mmprompt.apis.cli import find_config
from mmprompt.apis.prepare.class_prior import main as count_classes
from mmprompt.common.checkpoint import install_strict_loader
from mmprompt.common.class_prior import read_class_prior

DATA, WEIGHTS = os.environ.get('MMPROMPT_DATA'), os.environ.get('MMPROMPT_WEIGHTS')
CHASE = '_base_/datasets/chase-db1_folder.py'
RESNET = 'resnet50_imagenet_caffe.safetensors'
camvid = pytest.mark.skipif(
    not (DATA and Path(DATA, 'camvid').is_dir()), reason='MMPROMPT_DATA names no CamVid'
)
chase = pytest.mark.skipif(
    not (DATA and Path(DATA, 'chase_db1').is_dir()), reason='MMPROMPT_DATA names no CHASE-DB1'
)
VAIHINGEN = Path(DATA or '.', 'mmseg_samples', 'pseudo_vaihingen_dataset')
vaihingen = pytest.mark.skipif(
    not VAIHINGEN.is_dir(), reason="MMPROMPT_DATA holds no sample of MMSegmentation's Vaihingen"
)
resnet = pytest.mark.skipif(
    not (WEIGHTS and Path(WEIGHTS, RESNET).is_file()), reason=f'MMPROMPT_WEIGHTS holds no {RESNET}'
)


def build(node):
    with DefaultScope.overwrite_default_scope('mmprompt'):
        return DATASETS.build(node)


@camvid
def test_camvid_day_has_its_frames_and_classes():
    cfg = find_config('configs/seem/seem-r50_camvid-day.py')
    train, val = build(cfg.train_dataloader.dataset), build(cfg.val_dataloader.dataset)
    assert (len(train), len(val)) == (305, 101)
    sample = val[0]['data_samples']
    assert sample.gt_sem_seg.data.shape == (1, 360, 480)
    assert set(np.unique(sample.gt_sem_seg.data)) <= {*range(11), 255}
    segments = train[0]['data_samples'].gt_segments
    assert segments.labels.max() < 11 and not segments.is_thing.any()


@camvid
def test_camvid_dusk_learns_chooses_and_measures_on_different_frames():
    cfg = find_config('configs/ssprompt/r50_camvid-dusk_4shot.py')
    few, val, test = (
        build(cfg[name].dataset)
        for name in ('train_dataloader', 'val_dataloader', 'test_dataloader')
    )
    names = [
        {Path(d.get_data_info(i)['img_path']).name for i in range(len(d))} for d in (few, val, test)
    ]
    assert (len(names[0]), len(names[1]), len(names[2])) == (4, 8, 31)
    assert max(names[0]) < min(names[1]) and max(names[1]) < min(names[2])


@camvid
def test_camvid_has_the_frequencies_that_its_config_names(tmp_path):
    cfg, out = find_config('_base_/datasets/camvid.py'), tmp_path / 'prior.json'
    assert count_classes(['_base_/datasets/camvid.py', '--out', str(out)]) == 0
    found = read_class_prior(out, 11, cfg.class_names)
    assert found == pytest.approx(cfg.class_frequencies, abs=1e-6)


@chase
def test_chase_has_its_images_and_the_frequencies_that_its_config_names(tmp_path):
    cfg = find_config(CHASE)
    parts = [build(cfg[name].dataset) for name in ('train_dataloader', 'test_dataloader')]
    assert [len(part) for part in parts] == [20, 8]
    whole, crop = parts[1][0], parts[0][0]
    assert whole['inputs'].shape == (3, 960, 999) and crop['inputs'].shape == (3, 192, 192)
    assert whole['data_samples'].gt_sem_seg.data.unique().tolist() == [0, 1]
    out = tmp_path / 'prior.json'
    assert count_classes([CHASE, '--out', str(out)]) == 0
    masks = [
        np.asarray(Image.open(part['seg_map_path']))
        for part in map(parts[0].get_data_info, range(20))
    ]
    vessels = sum(int((mask != 0).sum()) for mask in masks)
    assert json.loads(out.read_text())['pixels'] == [20 * 960 * 999 - vessels, vessels]
    assert read_class_prior(out, 2, cfg.class_names) == pytest.approx(
        cfg.class_frequencies, abs=1e-6
    )


@vaihingen
def test_vaihingen_is_read_with_its_boundaries_ignored():
    node = find_config('_base_/datasets/vaihingen.py').test_dataloader.dataset
    node.update(
        data_root=str(VAIHINGEN), data_prefix=dict(img_path='img_dir', seg_map_path='ann_dir')
    )
    dataset = build(dict(type='GuardedDataset', dataset=node))
    stored = [np.asarray(Image.open(path)) for path in sorted(VAIHINGEN.glob('ann_dir/*.png'))]
    assert len(dataset) == len(stored) > 0
    for sample, mask in zip(dataset, stored):
        label = sample['data_samples'].gt_sem_seg.data[0].numpy()
        np.testing.assert_array_equal(label, np.where(mask == 0, 255, mask.astype(int) - 1))


@resnet
def test_the_resnet_loads_strictly_and_keeps_images_apart():
    install_strict_loader()
    cfg = find_config('configs/seem/seem-r50_camvid-day.py')
    with DefaultScope.overwrite_default_scope('mmprompt'):
        backbone = MODELS.build(cfg.model.seem.backbone)
    backbone.eval()  # mmseg's returns None
    fresh = {k: v.clone() for k, v in backbone.state_dict().items()}
    backbone.init_weights()
    loaded = backbone.state_dict()
    unchanged = [k for k, v in loaded.items() if v.is_floating_point() and torch.equal(v, fresh[k])]
    assert not unchanged
    with torch.no_grad():
        one, two = (backbone(torch.full((1, 3, 64, 96), x))[-1] for x in (-80.0, 80.0))
    assert one.isfinite().all() and not torch.allclose(one, two)

"""The data sets of SPM: MMSegmentation's settings, read from its own configs, on miniatures."""

from pathlib import Path

import mmseg
import mmseg.datasets
import numpy as np
import pytest
from layouts import LAYOUTS, write
from mmengine.config import Config
from mmengine.registry import DATASETS, DefaultScope

CONFIGS = Path(__file__).resolve().parents[2] / 'configs/_base_'
#: Base config -> (its layout, MMSegmentation's dataset class, the paper's batch size).
BASES = {
    'ade20k_full': ('ade20k', mmseg.datasets.ADE20KDataset, 16),
    'vaihingen': ('vaihingen', mmseg.datasets.ISPRSDataset, 16),
    'chase-db1': ('chase-db1', mmseg.datasets.ChaseDB1Dataset, 4),
    'stare': ('stare', mmseg.datasets.STAREDataset, 4),
    'hrf': ('hrf', mmseg.datasets.HRFDataset, 4),
}
SIZES = [(96, 128), (108, 80)]  # (H, W): landscape and portrait
every_base = pytest.mark.parametrize('base', BASES)


@pytest.fixture
def data(tmp_path, monkeypatch):
    """The folder that configs read data sets from."""
    monkeypatch.setenv('MMPROMPT_DATA', str(tmp_path))
    return tmp_path


def read(name: str) -> Config:
    return Config.fromfile(str(CONFIGS / f'{name}.py'))


def theirs(name: str) -> Config:
    """A config that MMSegmentation brings; its wheels keep them in a folder `.mim`."""
    path = Path(mmseg.__file__).parent / '.mim/configs' / f'{name}.py'
    if not path.is_file():
        pytest.skip(f'this MMSegmentation brings no {path.name}')
    return Config.fromfile(str(path))


def build(cfg):
    with DefaultScope.overwrite_default_scope('mmprompt'):
        return DATASETS.build(dict(type='GuardedDataset', dataset=cfg))


def plain(pipeline) -> list[dict]:
    """Steps without what our configs write and theirs leave to the scope and to the dataset."""
    steps = []
    for step in pipeline:
        step = {k: v for k, v in step.items() if k not in ('resize_type', 'reduce_zero_label')}
        steps.append({**step, 'type': step['type'].removeprefix('mmseg.')})
    return steps


def leaf(dataset: dict) -> dict:
    return leaf(dataset['dataset']) if 'dataset' in dataset else dataset


@every_base
def test_pipelines_and_folders_are_those_of_mmseg(base):
    mine, own = (
        read(f'datasets/{base}'),
        theirs(f'_base_/datasets/{BASES[base][0].replace("-", "_")}'),
    )
    for loader in ('train_dataloader', 'val_dataloader', 'test_dataloader'):
        ours, other = leaf(mine[loader].dataset), leaf(own[loader].dataset)
        assert plain(ours.pipeline) == plain(other.pipeline)
        assert ours.data_prefix == other.data_prefix
        assert ours.type == f'mmseg.{other.type}'
        assert Path(ours.data_root).name == Path(other.data_root).name
    assert [s.resize_type for s in mine.train_pipeline if 'resize_type' in s] == ['mmseg.Resize']
    assert mine.crop_size == own.crop_size
    assert mine.train_dataloader.batch_size == BASES[base][2]


@pytest.mark.parametrize(
    ('base', 'config'),
    [
        ('chase-db1', 'unet/unet-s5-d16_fcn_4xb4-40k_chase-db1-128x128'),
        ('stare', 'unet/unet-s5-d16_fcn_4xb4-40k_stare-128x128'),
        ('hrf', 'unet/unet-s5-d16_fcn_4xb4-40k_hrf-256x256'),
        ('ade20k_full', 'setr/setr_vit-l_pup_8xb2-160k_ade20k-512x512'),
    ],
)
def test_windows_are_those_of_mmseg(base, config):
    assert read(f'datasets/{base}').slide == theirs(config).model.test_cfg


@every_base
def test_labels_are_mapped_pixel_by_pixel_and_keep_their_size(base, data):
    name, kind, _ = BASES[base]
    layout, cfg = LAYOUTS[name], read(f'datasets/{base}')
    labels = write(data, layout, SIZES)[layout.splits[1]]
    dataset = build(cfg.test_dataloader.dataset)
    assert type(dataset.dataset) is kind and len(dataset) == 2
    assert tuple(cfg.class_names) == kind.METAINFO['classes']
    seen = set()
    for sample, label, size in zip(dataset, labels, SIZES):
        truth = np.vectorize(layout.ids.get)(label)
        np.testing.assert_array_equal(sample['data_samples'].gt_sem_seg.data[0], truth)
        scale = min(max(cfg.scale) / max(size), min(cfg.scale) / min(size))
        assert sample['inputs'].shape[1:] == pytest.approx(np.multiply(size, scale), abs=1)
        seen |= set(np.unique(truth).tolist())
    assert seen == {*layout.ids.values()}, 'the miniature shows every class'


@every_base
def test_training_samples_are_crops(base, data):
    layout, cfg = LAYOUTS[BASES[base][0]], read(f'datasets/{base}')
    write(data, layout, SIZES)
    dataset = build(cfg.train_dataloader.dataset)
    assert len(dataset) == 2
    sample = dataset[0]
    found = sample['data_samples'].gt_sem_seg.data
    assert found.shape[1:] == sample['inputs'].shape[1:]
    assert all(side <= most for side, most in zip(found.shape[1:], cfg.crop_size))
    assert set(found.unique().tolist()) <= {*layout.ids.values(), 255}
    assert Path(cfg.class_prior).parent == data / layout.root


@pytest.mark.parametrize(('ours', 'steps'), [('spm_80k', 80_000), ('spm_40k', 40_000)])
def test_schedules_are_those_of_mmseg(ours, steps):
    mine, own = read(f'schedules/{ours}'), theirs(f'_base_/schedules/schedule_{steps // 1000}k')
    assert mine.train_cfg.max_iters == mine.param_scheduler[0].end == steps
    for key in ('train_cfg', 'val_cfg', 'test_cfg', 'param_scheduler'):
        assert mine[key] == own[key]
    assert mine.optim_wrapper == {k: v for k, v in own.optim_wrapper.items() if k != 'clip_grad'}
    assert own.optim_wrapper.clip_grad is None

import numpy as np
import pytest
import tiny
import torch
from mmengine.registry import DATASETS, init_default_scope
from PIL import Image
from torch.utils.data import DataLoader

from mmprompt.common.errors import UserError
from mmprompt.common.seeding import SampleIndex


@pytest.fixture
def cfg(tmp_path):
    init_default_scope('mmseg')
    return dict(
        type='mmprompt.GuardedDataset',
        dataset=dict(
            type='BaseSegDataset',
            data_root=str(tiny.make_data(tmp_path / 'data')),
            data_prefix=dict(img_path='img/train', seg_map_path='ann/train'),
            img_suffix='.png',
            metainfo=dict(classes=tiny.CLASSES),
            pipeline=[
                dict(type='LoadImageFromFile'),
                dict(type='LoadAnnotations'),
                dict(type='RandomFlip', prob=0.5),
                dict(type='PhotoMetricDistortion'),
                dict(type='PackSegInputs'),
            ],
        ),
    )


def test_it_is_the_dataset(cfg):
    dataset = DATASETS.build(cfg)
    assert len(dataset) == 6 and dataset.metainfo['classes'] == tiny.CLASSES
    assert dataset.ignore_index == 255 and dataset.get_data_info(2)['img_path'].endswith('2.png')
    with pytest.raises(AttributeError):
        dataset.nothing  # noqa: B018


def test_a_numbered_sample_is_the_same_anywhere(cfg):
    dataset = DATASETS.build(cfg)
    indices = [SampleIndex(i % 6, i, 3) for i in range(12)]
    here = [dataset[i]['inputs'] for i in indices]
    loader = DataLoader(dataset, 3, sampler=indices, num_workers=2, collate_fn=list)
    there = [sample['inputs'] for batch in loader for sample in batch]
    assert all(torch.equal(a, b) for a, b in zip(here, there))
    assert not torch.equal(here[0], here[6]), 'another view of the same image'
    again = DATASETS.build(cfg)[SampleIndex(5, 5, 3)]['inputs']
    assert torch.equal(again, here[5])


def test_drawing_in_the_main_process_leaves_its_randomness(cfg):
    dataset = DATASETS.build(cfg)
    torch.manual_seed(0)
    expected = torch.rand(2)
    torch.manual_seed(0)
    first = torch.rand(1)
    dataset[SampleIndex(0, 0, 0)]
    assert torch.equal(torch.cat([first, torch.rand(1)]), expected)


def test_nested_datasets_are_checked(cfg, tmp_path):
    inner = cfg['dataset']
    nested = dict(type='ConcatDataset', datasets=[inner, dict(inner, data_root='none')])
    with pytest.raises(UserError, match='none: expected the folder that data_root'):
        DATASETS.build(dict(cfg, dataset=nested))
    (tmp_path / 'data/ann/train/3.png').unlink()
    with pytest.raises(UserError, match=r'train/3\.png: expected its label'):
        DATASETS.build(dict(cfg, dataset=dict(type='RepeatDataset', dataset=inner, times=2)))
    with pytest.raises(UserError, match='list of images that ann_file'):
        DATASETS.build(dict(cfg, dataset=dict(inner, ann_file='split.txt')))


def test_labels_are_checked_as_they_come_out(cfg, tmp_path):
    path = tmp_path / 'data/ann/train/4.png'
    label = np.asarray(Image.open(path)).copy()
    label[3, 3] = 3
    Image.fromarray(label).save(path)
    dataset = DATASETS.build(cfg)
    with pytest.raises(UserError, match=r'ann/train/4\.png.*0 to 2.*found 3 \(1 pixels\)'):
        dataset[4]
    renamed = dict(cfg['dataset'], ignore_index=3)
    DATASETS.build(dict(cfg, dataset=renamed))
    label[label == 255] = 0
    Image.fromarray(label).save(path)
    assert DATASETS.build(dict(cfg, dataset=renamed))[4]


def test_a_bug_in_a_transform_stays_a_bug(cfg):
    dataset = DATASETS.build(cfg)

    def broken(results):
        raise RuntimeError('a bug')

    dataset.pipeline.transforms.append(broken)
    with pytest.raises(RuntimeError, match='a bug'):
        dataset[0]

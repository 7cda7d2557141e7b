"""CHASE-DB1 as its archive unpacks, in miniature."""

import shutil
import subprocess
import sys
from pathlib import Path

import mmseg
import numpy as np
import pytest
from layouts import CHASE_NAMES, write_chase
from mmengine.config import Config
from mmengine.registry import DATASETS, DefaultScope
from PIL import Image

from mmprompt.common.errors import UserError
from mmprompt.datasets import ChaseDB1FolderDataset

CONFIG = Path(__file__).resolve().parents[2] / 'configs/_base_/datasets/chase-db1_folder.py'
PIPELINE = [dict(type='mmseg.LoadAnnotations')]
SIZE = (6, 8)


def build(folder: Path, images: str = 'images', manual: str = 'manual', **kwargs):
    prefix = dict(img_path=images, seg_map_path=manual)
    with DefaultScope.overwrite_default_scope('mmprompt'):
        return ChaseDB1FolderDataset(
            data_root=str(folder), data_prefix=prefix, pipeline=PIPELINE, **kwargs
        )


def names(dataset) -> list[str]:
    return [Path(dataset.get_data_info(i)['img_path']).stem for i in range(len(dataset))]


def test_parts_are_those_of_the_paper_and_share_no_child(tmp_path):
    write_chase(tmp_path, SIZE)
    found = {part: names(build(tmp_path, part=part)) for part in ('train', 'test', 'fit')}
    found['held-out'] = names(build(tmp_path, part='held-out'))
    assert found['train'] == list(CHASE_NAMES[:20]) and found['test'] == list(CHASE_NAMES[20:])
    assert found['fit'] + found['held-out'] == found['train']
    assert (len(found['test']), len(found['held-out'])) == (8, 4)
    children = [{name[:-1] for name in found[part]} for part in ('fit', 'held-out', 'test')]
    assert not any(a & b for a in children for b in children if a is not b)


@pytest.mark.parametrize(('images', 'manual'), [('images', 'manual'), ('', '')])
def test_masks_of_every_kind_mean_the_same(tmp_path, images, manual):
    vessels = write_chase(tmp_path, SIZE, images, manual)
    dataset = build(tmp_path, images, manual)
    for n in range(3):
        np.testing.assert_array_equal(dataset[n]['gt_seg_map'], vessels)
    second = build(tmp_path, images, manual, observer='2ndHO')
    np.testing.assert_array_equal(second[0]['gt_seg_map'], ~vessels)


def test_a_subset_of_the_classes(tmp_path):
    vessels = write_chase(tmp_path, SIZE)
    dataset = build(tmp_path, metainfo=dict(classes=('vessel',)))
    for n in range(3):
        np.testing.assert_array_equal(dataset[n]['gt_seg_map'], np.where(vessels, 0, 255))


def test_the_converter_of_mmseg_divides_and_reads_them_alike(tmp_path, monkeypatch):
    converter = Path(mmseg.__file__).parent / '.mim/tools/dataset_converters/chase_db1.py'
    if not converter.is_file():
        pytest.skip('this MMSegmentation brings no converters')
    write_chase(tmp_path / 'files', SIZE, '', '')
    archive = shutil.make_archive(str(tmp_path / 'CHASEDB1'), 'zip', tmp_path / 'files')
    command = [sys.executable, str(converter), archive, '-o', str(tmp_path / 'CHASE_DB1')]
    subprocess.run(command, check=True, capture_output=True)
    monkeypatch.setenv('MMPROMPT_DATA', str(tmp_path))
    cfg = Config.fromfile(str(CONFIG.with_name('chase-db1.py')))
    for loader, part in (('train_dataloader', 'train'), ('test_dataloader', 'test')):
        with DefaultScope.overwrite_default_scope('mmprompt'):
            node = cfg[loader].dataset
            node.pipeline = PIPELINE
            converted = DATASETS.build(node)
        ours = build(tmp_path / 'files', '', '', part=part)
        assert names(converted) == names(ours)
        # It takes masks of 0 and 1 for empty; every third one here.
        places = [i for i, name in enumerate(names(ours)) if CHASE_NAMES.index(name) % 3 != 1]
        for i in places:
            np.testing.assert_array_equal(converted[i]['gt_seg_map'], ours[i]['gt_seg_map'])


def test_what_is_wrong_is_said(tmp_path):
    with pytest.raises(UserError, match="one of train, test, fit, held-out, found 'val'"):
        build(tmp_path, part='val')
    write_chase(tmp_path, SIZE)
    Image.fromarray(np.full(SIZE, 7, np.uint8)).save(tmp_path / 'manual/Image_01L_1stHO.png')
    with DefaultScope.overwrite_default_scope('mmprompt'):
        cfg = Config.fromfile(str(CONFIG)).test_dataloader.dataset
        cfg.update(data_root=str(tmp_path), part='train')
        with pytest.raises(UserError, match=r'Image_01L_1stHO\.png.*0 to 1.*found 7 \(48 pixels\)'):
            DATASETS.build(dict(type='GuardedDataset', dataset=cfg))[0]
    (tmp_path / 'images/Image_03R.jpg').unlink()
    with pytest.raises(UserError, match='expected the 28 images of CHASE-DB1.*found 27'):
        build(tmp_path)
    (tmp_path / 'manual/Image_02L_1stHO.png').unlink()
    with pytest.raises(UserError, match='Image_02L_1stHO.png'):
        build(tmp_path)

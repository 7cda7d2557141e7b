import json
from pathlib import Path

import numpy as np
import pytest
import tiny
from mmengine.registry import DATASETS, init_default_scope
from PIL import Image

from mmprompt.apis.prepare import few_shot as command
from mmprompt.common.errors import UserError
from mmprompt.datasets.few_shot import image_names, load_label, make_manifest, presence_matrix


@pytest.fixture
def inner(tmp_path):
    init_default_scope('mmseg')
    return dict(
        type='BaseSegDataset',
        data_root=str(tiny.make_data(tmp_path / 'data')),
        data_prefix=dict(img_path='img/train', seg_map_path='ann/train'),
        img_suffix='.png',
        metainfo=dict(classes=tiny.CLASSES),
        pipeline=[dict(type='LoadImageFromFile'), dict(type='LoadAnnotations')],
    )


def few_shot(inner, **kwargs):
    return DATASETS.build(dict(type='mmprompt.FewShotDataset', dataset=inner, **kwargs))


def test_presence_follows_the_pipeline(inner):
    dataset = DATASETS.build(inner)
    assert image_names(dataset) == [f'{i}.png' for i in range(6)]
    assert presence_matrix(dataset).tolist() == [[True, True, i < 2] for i in range(6)]
    assert load_label(dataset, 0).shape == (16, 24)


def test_a_manifest_restricts_the_dataset(inner, tmp_path):
    manifest = make_manifest(DATASETS.build(inner), 2)
    path = tmp_path / 'm.json'
    manifest.save(path)
    dataset = few_shot(inner, manifest=str(path))
    assert len(dataset) == len(manifest.images) == 2 and manifest.images == ['0.png', '1.png']
    for i, name in enumerate(manifest.images):
        assert dataset.get_data_info(i)['img_path'].endswith(f'img/train/{name}')
        assert dataset[i]['img_path'].endswith(name)
    assert dataset.metainfo['classes'] == tiny.CLASSES and dataset.ignore_index == 255
    drawn = few_shot(inner, k=2)
    assert drawn.manifest == manifest


def test_another_dataset_is_noticed(inner, tmp_path):
    path = tmp_path / 'm.json'
    manifest = make_manifest(DATASETS.build(inner), 2)
    manifest.save(path)
    root = Path(inner['data_root'])

    # Written again in another way, the pixels are the same: no matter.
    label = root / 'ann/train/0.png'
    Image.open(label).save(label, compress_level=0)
    few_shot(inner, manifest=str(path))

    pixels = np.asarray(Image.open(label)).copy()
    pixels[5, 5] = 1 - pixels[5, 5]
    Image.fromarray(pixels).save(label)
    fingerprint = manifest.dataset['fingerprint']
    with pytest.raises(UserError, match=rf'm\.json.*{fingerprint}.*found .*differ in: labels'):
        few_shot(inner, manifest=str(path))

    (root / 'img/train/5.png').unlink()
    with pytest.raises(UserError, match=r'6 images\), found .* \(5 images\).*num_images, names'):
        few_shot(inner, manifest=str(path))

    content = json.loads(path.read_text())
    content['images'].append('gone.png')
    path.write_text(json.dumps(content))
    with pytest.raises(UserError, match=r'found 1 missing, such as gone\.png'):
        few_shot(inner, manifest=str(path))
    content['counts'] = {'other': 1}
    path.write_text(json.dumps(content))
    with pytest.raises(UserError, match="expected a manifest for the classes.*'other'"):
        few_shot(inner, manifest=str(path))


def test_one_of_manifest_and_k(inner):
    for both in ({}, {'k': 2, 'manifest': 'x'}):
        with pytest.raises(UserError, match='either manifest or k'):
            few_shot(inner, **both)


def test_the_command(tmp_path, capsys):
    out = tmp_path / 'm.json'
    extra = f"""
train_dataloader.update(dataset=dict(
    type='mmprompt.FewShotDataset', manifest={str(out)!r}, dataset=train_dataloader['dataset']))
"""
    config = tiny.make_config(tmp_path, extra)
    assert command.main([str(config), '--k', '3']) == 0
    printed = capsys.readouterr().out
    assert 'warning: fewer than 3 images have sky (2)' in printed
    content = json.loads(out.read_text())
    assert content['k'] == 3 and content['counts']['sky'] == 2
    first = out.read_bytes()
    assert command.main([str(config), '--k', '3']) == 0 and out.read_bytes() == first
    other = tmp_path / 'other.json'
    options = ['--k', '1', '--sampling', 'independent', '--seed', '4', '--out', str(other)]
    assert command.main([str(config), *options]) == 0
    content = json.loads(other.read_text())
    assert content['sampling'] == 'independent' and content['seed'] == 4

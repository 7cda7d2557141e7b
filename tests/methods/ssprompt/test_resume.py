"""An interrupted few-shot training of SSPrompt goes on as if nothing had happened."""

import json
import shutil

import pytest
import torch
from mmengine.config import Config
from toy import toy_segmentor, write_base, write_streets

from mmprompt.apis.prepare import few_shot
from mmprompt.apis.train import train
from mmprompt.common.prompt_file import PromptFile


@pytest.fixture(scope='module')
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp('place')
    write_streets(folder / 'data')
    write_base(folder / 'base.safetensors')
    return folder


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv('MMPROMPT_CACHE', str(tmp_path / 'cache'))


def make_config(place, work_dir, **dataset) -> Config:
    """Few-shot, random flips and the feature cache; no validation."""
    pipeline = [
        dict(type='LoadImageFromFile'),
        dict(type='mmseg.LoadAnnotations'),
        dict(type='mmseg.RandomFlip', prob=0.5),
        dict(type='mmseg.PackSegInputs'),
    ]
    whole = dict(
        type='mmseg.CityscapesDataset',
        data_root=str(place / 'data'),
        data_prefix=dict(img_path='leftImg8bit/train', seg_map_path='gtFine/train'),
        pipeline=pipeline,
    )
    features = dict(root=str(work_dir / 'features'))
    config = dict(
        default_scope='mmprompt',
        model=toy_segmentor(place / 'base.safetensors', feature_cache=features).to_dict(),
        train_dataloader=dict(
            batch_size=2,
            num_workers=0,
            sampler=dict(type='ResumableSampler'),
            dataset=dict(type='FewShotDataset', dataset=whole, **(dataset or dict(k=2, seed=1))),
        ),
        train_cfg=dict(type='IterBasedTrainLoop', max_iters=6, val_interval=7),
        optim_wrapper=dict(optimizer=dict(type='AdamW', lr=0.1)),
        param_scheduler=[dict(type='PolyLR', power=0.9, end=6, by_epoch=False)],
        default_hooks=dict(
            logger=dict(type='LoggerHook', interval=1, log_metric_by_epoch=False),
            checkpoint=dict(type='CheckpointHook', by_epoch=False, interval=3),
        ),
        log_processor=dict(by_epoch=False),
        visualizer=dict(type='Visualizer', vis_backends=[dict(type='LocalVisBackend')]),
        randomness=dict(seed=3),
        work_dir=str(work_dir),
    )
    return Config(config, format_python_code=False)


def losses(work_dir):
    lines = [json.loads(s) for p in sorted(work_dir.rglob('scalars.json')) for s in open(p)]
    return {line['step']: line['loss'] for line in lines if 'loss' in line}


def test_resume_is_exact(place, tmp_path):
    one, two = tmp_path / 'one', tmp_path / 'two'
    whole = train(make_config(place, one)).model
    two.mkdir()
    shutil.copy(one / 'iter_3.pth', two)  # all that the interruption left; its cache is cold
    rest = train(make_config(place, two), 'auto').model
    first, second = losses(one), losses(two)
    assert set(first) == {1, 2, 3, 4, 5, 6} and set(second) == {4, 5, 6}
    assert all(first[i] == second[i] for i in second)
    assert len(set(first.values())) == 6
    for name, value in whole.named_parameters():
        assert torch.equal(value, rest.get_parameter(name)), name
    name = 'prompt.safetensors'
    assert (one / name).read_bytes() == (two / name).read_bytes()
    assert any((one / 'features').rglob('*.safetensors'))


def test_recipe_tells_the_few_shot_set_and_no_path(place, tmp_path):
    config, manifest = tmp_path / 'config.py', tmp_path / 'manifest.json'
    make_config(place, tmp_path / 'drawn').dump(config)
    arguments = [str(config), '--k', '2', '--seed', '1', '--out', str(manifest)]
    assert few_shot.main(arguments) == 0
    made = json.loads(manifest.read_text())
    for name, dataset in (('drawn', dict(k=2, seed=1)), ('read', dict(manifest=str(manifest)))):
        cfg = make_config(place, tmp_path / name, **dataset)
        cfg.train_cfg.max_iters = 1
        train(cfg)
        recipe = PromptFile.load(tmp_path / name / 'prompt.safetensors').recipe
        assert recipe['few_shot'] == dict(
            k=2,
            seed=1,
            sampling='rarest-first',
            num_images=len(made['images']),
            dataset=made['dataset']['fingerprint'],
        )
        assert str(tmp_path) not in json.dumps(recipe)

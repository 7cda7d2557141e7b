"""Training and testing by the command lines, and by a Runner that knows nothing of mmprompt."""

import copy
import shutil

import pytest
import torch
from drop_in import build, same, state_of, stir
from mmengine.config import Config
from mmengine.runner import Runner
from prompted import RESNET, prompted_segmentor
from toy import write_streets

from mmprompt.apis import test as test_api
from mmprompt.apis import train as train_api
from mmprompt.apis.running import prepare, running
from mmprompt.apis.train import train
from mmprompt.common.checkpoint import load_strict


@pytest.fixture(scope='module')
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp('place')
    write_streets(folder / 'data')
    return folder


def make_config(place, work_dir, tuning='spm', **model) -> Config:
    """Four steps with a checkpoint after each second one, random flips and averaged weights."""
    read = [dict(type='LoadImageFromFile'), dict(type='mmseg.LoadAnnotations')]
    flip = dict(type='mmseg.RandomFlip', prob=0.5)

    def loader(split, size, sampler, *extra):
        return dict(
            batch_size=size,
            num_workers=0,
            sampler=sampler,
            dataset=dict(
                type='mmseg.CityscapesDataset',
                data_root=str(place / 'data'),
                data_prefix=dict(img_path=f'leftImg8bit/{split}', seg_map_path=f'gtFine/{split}'),
                pipeline=[*read, *extra, dict(type='mmseg.PackSegInputs')],
            ),
        )

    test = loader('val', 1, dict(type='DefaultSampler', shuffle=False))
    config = dict(
        default_scope='mmprompt',
        model=prompted_segmentor(place, tuning, **model).to_dict(),
        train_dataloader=loader('train', 2, dict(type='ResumableSampler'), flip),
        val_dataloader=test,
        test_dataloader=copy.deepcopy(test),
        val_evaluator=dict(type='mmseg.IoUMetric'),
        test_evaluator=dict(type='mmseg.IoUMetric'),
        train_cfg=dict(type='IterBasedTrainLoop', max_iters=4, val_interval=3),
        val_cfg=dict(),
        test_cfg=dict(),
        optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.05, momentum=0.9, weight_decay=5e-4)),
        param_scheduler=[dict(type='PolyLR', power=0.9, end=4, by_epoch=False)],
        default_hooks=dict(
            logger=dict(type='LoggerHook', interval=1, log_metric_by_epoch=False),
            checkpoint=dict(type='CheckpointHook', by_epoch=False, interval=2),
        ),
        custom_hooks=[dict(type='EMAHook', momentum=0.1)],
        log_processor=dict(by_epoch=False),
        visualizer=dict(type='Visualizer', vis_backends=[]),
        randomness=dict(seed=3),
        work_dir=str(work_dir),
    )
    return Config(config, format_python_code=False)


def test_resume_is_exact_and_checkpoints_hold_no_backbone(place, tmp_path):
    one, two = tmp_path / 'one', tmp_path / 'two'
    whole = train(make_config(place, one)).model
    checkpoint = load_strict(one / 'iter_2.pth')
    for part, prefix in (('state_dict', ''), ('ema_state_dict', 'module.')):
        names = {k.removeprefix(prefix) for k in checkpoint[part]} - {'steps'}
        learned = set(whole.state_dict()) - set(backbone_names(whole))
        assert names == learned and 'backbone.class_prior' in names
    two.mkdir()
    shutil.copy(one / 'iter_2.pth', two)
    rest = train(make_config(place, two), 'auto').model
    assert same(state_of(rest), state_of(whole))
    for name in ('prompt.safetensors', 'head.safetensors'):
        assert (one / name).read_bytes() == (two / name).read_bytes()
    weights = torch.load(place / 'resnet.pth')
    assert all(torch.equal(whole.backbone.backbone.state_dict()[k], v) for k, v in weights.items())


def backbone_names(model) -> list[str]:
    return [name for name in model.state_dict() if name.startswith('backbone.backbone.')]


@pytest.mark.parametrize('tuning', ['spm', 'head', 'full', 'scratch'])
def test_the_command_lines(tuning, place, tmp_path, capfd):
    config, work_dir = tmp_path / 'config.py', tmp_path / 'work'
    made = make_config(place, work_dir)
    made.merge_from_dict({'train_cfg.max_iters': 2, 'custom_hooks': []})
    made.dump(config)
    switch = ['--cfg-options', f'model.backbone.tuning={tuning}']
    assert train_api.main([str(config), '--work-dir', str(work_dir), *switch]) == 0
    assert f'trained parameters of {tuning}:' in capfd.readouterr().out
    files = {path.name for path in work_dir.glob('*.safetensors')}
    expected = dict(spm={'prompt.safetensors', 'head.safetensors'}, head={'head.safetensors'})
    assert files == expected.get(tuning, set())
    results = []
    for name in ('iter_2.pth', *files):
        out = tmp_path / f'{name}.json'
        line = [str(config), str(work_dir / name), '--out', str(out), *switch]
        assert test_api.main([*line, '--work-dir', str(tmp_path / 'test')]) == 0
        results.append(out.read_text().split('"metrics"')[1].split('"seconds"')[0])
    assert len(set(results)) == 1 and 'mIoU' in results[0]


def stock(weights: dict) -> dict:
    """A segmentor's checkpoint from before there was a wrapper."""
    return {f'backbone.{name}': value for name, value in weights.items()}


def test_a_checkpoint_of_a_stock_segmentor_through_our_runner(place, tmp_path):
    weights = {k: v + 1 for k, v in stir(build(RESNET)).items()}
    torch.save(dict(state_dict=stock(weights), meta={}), tmp_path / 'stock.pth')
    config = prepare(make_config(place, tmp_path / 'work', tuning='head'))
    config.load_from, config.custom_hooks = str(tmp_path / 'stock.pth'), config.custom_hooks[1:]
    with running(config) as runner:
        runner.test()
        state = runner.model.backbone.backbone_state_dict()
    assert all(torch.equal(state[name], value) for name, value in weights.items())


@pytest.mark.parametrize('way', ['train', 'test'])
def test_a_runner_without_our_hooks_reads_the_pretrained_weights(way, place, tmp_path):
    config = make_config(place, tmp_path / 'work')
    config.merge_from_dict({'train_cfg.max_iters': 1, 'custom_hooks': []})
    runner = Runner.from_cfg(config)
    getattr(runner, way)()
    weights = torch.load(place / 'resnet.pth')
    state = runner.model.backbone.backbone_state_dict()
    assert all(torch.equal(state[name], value) for name, value in weights.items())
    prior = config.model.backbone.class_prior
    torch.testing.assert_close(runner.model.backbone.class_prior, torch.tensor(prior))

import logging

import pytest
import tiny
from mmengine.config import Config

from mmprompt.apis.cli import find_config
from mmprompt.apis.running import prepare, running
from mmprompt.apis.train import main
from mmprompt.common.errors import UserError


def test_prepare_adds_what_is_missing_and_nothing_twice():
    dataset = dict(type='mmseg.CityscapesDataset')
    cfg = Config(
        dict(
            default_hooks=dict(checkpoint=dict(type='CheckpointHook', interval=3)),
            custom_hooks=[dict(type='mmprompt.PromptFileHook'), dict(type='Mine')],
            train_dataloader=dict(dataset=dict(type='FewShotDataset', k=1, dataset=dataset)),
            val_dataloader=dict(dataset=dataset, num_workers=0, persistent_workers=True),
            test_dataloader=dict(dataset=dataset, num_workers=1, persistent_workers=True),
        )
    )
    before = cfg.pretty_text
    ready = prepare(cfg)
    assert cfg.pretty_text == before, 'the caller keeps the config as it was'
    assert ready.default_hooks.checkpoint.type == 'mmprompt.PromptCheckpointHook'
    assert ready.default_hooks.checkpoint.interval == 3
    names = [h.type.split('.')[-1] for h in ready.custom_hooks]
    assert sorted(names) == sorted(
        ['PromptFileHook', 'Mine', 'FrozenBaseHook', 'StepSeedHook', 'NonFiniteLossHook']
    )
    assert ready.train_dataloader.dataset.type == 'FewShotDataset'
    assert ready.val_dataloader.dataset.type == 'mmprompt.GuardedDataset'
    assert ready.val_dataloader.dataset.dataset.type == 'mmseg.CityscapesDataset'
    assert 'persistent_workers' not in ready.val_dataloader
    assert ready.test_dataloader.persistent_workers
    assert prepare(ready).pretty_text == ready.pretty_text


def test_the_screen_is_brief_and_the_log_file_whole(tmp_path, capfd):
    config = tiny.make_config(tmp_path)
    assert main([str(config), '--work-dir', str(tmp_path / 'w'), '--seed', '1']) == 0
    printed = ''.join(capfd.readouterr())
    log = next((tmp_path / 'w').rglob('*.log')).read_text()
    for text in ('System environment', 'Hooks will be executed', 'train_dataloader = dict('):
        assert text not in printed and text in log
    assert 'Iter(train) [1/6]' in printed and 'mIoU' in printed
    assert printed.count('\n') < 60


def test_two_runs_of_one_process_share_no_hub(tmp_path):
    cfg = find_config(tiny.make_config(tmp_path))
    hubs = []
    for name in 'ab':
        cfg.work_dir = str(tmp_path / name)
        with running(prepare(cfg)) as runner:
            hubs.append(runner.message_hub)
    assert hubs[0] is not hubs[1]


def test_debris_is_removed_unless_results_stand(tmp_path):
    cfg = find_config(tiny.make_config(tmp_path))
    cfg.work_dir = str(tmp_path / 'deep' / 'w')
    with pytest.raises(UserError), running(prepare(cfg)):
        raise UserError('x')
    assert not (tmp_path / 'deep').exists()
    with pytest.raises(UserError), running(prepare(cfg)) as runner:
        (tmp_path / 'deep' / 'w' / 'iter_1.pth').touch()
        raise UserError('x')
    assert (tmp_path / 'deep' / 'w' / 'tiny.py').exists(), 'a log belongs to its results'
    with pytest.raises(RuntimeError), running(prepare(cfg)) as runner:
        logging.getLogger().debug(runner.timestamp)
        raise RuntimeError('a bug keeps its log')

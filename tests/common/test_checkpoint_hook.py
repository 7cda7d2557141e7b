"""Checkpoints of real, tiny trainings: no frozen key, whole files, exact resume."""

import json
import logging
import shutil

import pytest
import tiny
import torch
from mmengine.logging import HistoryBuffer

from mmprompt.apis.cli import find_config
from mmprompt.apis.train import latest_checkpoint, train
from mmprompt.common.checkpoint import load_strict, load_tensors
from mmprompt.common.checkpoint_hook import AtomicLocalBackend


def run(path, work_dir, resume=None, **options):
    cfg = find_config(path)
    cfg.work_dir = str(work_dir)
    cfg.randomness = dict(seed=3)
    cfg.merge_from_dict(options)
    return train(cfg, resume)


def losses(work_dir):
    lines = [json.loads(s) for p in sorted(work_dir.rglob('scalars.json')) for s in open(p)]
    return {line['step']: line['loss'] for line in lines if 'loss' in line}


LOCAL = {'visualizer': dict(type='Visualizer', vis_backends=[dict(type='LocalVisBackend')])}
EMA = {'custom_hooks': [dict(type='EMAHook', momentum=0.3)]}


@pytest.mark.parametrize('ema', [False, True])
def test_no_frozen_key_and_plain_values(tmp_path, ema):
    path = tiny.make_config(tmp_path)
    runner = run(path, tmp_path / 'w', **(EMA if ema else {}))
    file = tmp_path / 'w' / 'iter_6.pth'
    raw = torch.load(file, weights_only=True)
    assert list(raw['state_dict']) == ['prompt']
    assert ('ema_state_dict' in raw) == ema
    if ema:
        assert set(raw['ema_state_dict']) == {'steps', 'module.prompt'}
    assert raw['mmprompt']['base_fingerprint'] == runner.model.base_fingerprint
    hub = load_strict(file)['message_hub']
    assert isinstance(hub['log_scalars']['train/loss'], HistoryBuffer)
    assert file.stat().st_size < 20_000
    base = load_tensors(tmp_path / 'base.safetensors')[0]
    now = runner.model.backbone.state_dict()
    assert all(torch.equal(now[k], v) for k, v in base.items()), 'the base is byte-identical'


@pytest.fixture(scope='module')
def whole(tmp_path_factory):
    """An uninterrupted training: its config, folder and model."""
    folder = tmp_path_factory.mktemp('whole')
    path = tiny.make_config(folder)
    return path, folder / 'w', run(path, folder / 'w', **LOCAL).model


@pytest.mark.parametrize('workers', [0, 2])
def test_resume_is_exact_with_random_flips_and_dropout(whole, tmp_path, workers, caplog):
    path, folder, model = whole
    # Interrupted: the same training, of which only the checkpoint of iteration 4 is left.
    # Validation has run there in the first and does not run again in the second.
    shutil.copy(folder / 'iter_4.pth', tmp_path)
    with caplog.at_level(logging.WARNING):
        options = {'train_dataloader.num_workers': workers, **LOCAL}
        part = run(path, tmp_path, resume='auto', **options)
    assert 'missing keys' not in caplog.text and 'metainfo' not in caplog.text
    first, second = losses(folder), losses(tmp_path)
    assert set(first) == {1, 2, 3, 4, 5, 6} and set(second) == {5, 6}
    assert all(first[i] == second[i] for i in second)
    assert torch.equal(model.prompt, part.model.prompt)
    name = 'prompt.safetensors'
    assert (folder / name).read_bytes() == (tmp_path / name).read_bytes()


def test_workers_change_nothing(whole, tmp_path):
    path, folder, _ = whole
    run(path, tmp_path, **{'train_dataloader.num_workers': 2, **LOCAL})
    assert losses(folder) == losses(tmp_path)


def test_resume_is_exact_with_averaged_weights(tmp_path):
    path = tiny.make_config(tmp_path)
    one = run(path, tmp_path / 'one', **LOCAL, **EMA)
    (tmp_path / 'two').mkdir()
    shutil.copy(tmp_path / 'one' / 'iter_4.pth', tmp_path / 'two')
    two = run(path, tmp_path / 'two', resume='auto', **LOCAL, **EMA)
    assert torch.equal(one.model.prompt, two.model.prompt)
    files = [load_strict(tmp_path / n / 'iter_6.pth')['state_dict'] for n in ('one', 'two')]
    assert torch.equal(files[0]['prompt'], files[1]['prompt'])
    assert not torch.equal(files[0]['prompt'], one.model.prompt), 'the file has the average'


def test_old_files_go_only_when_new_ones_stand(tmp_path, monkeypatch):
    path = tiny.make_config(tmp_path)
    options = {
        'default_hooks.checkpoint.max_keep_ckpts': 1,
        'default_hooks.checkpoint.save_best': 'mIoU',
        'train_cfg.val_interval': 2,
    }
    put = AtomicLocalBackend.put
    seen = []

    def spy(self, obj, filepath):
        seen.append(sorted(p.name for p in (tmp_path / 'w').glob('*.pth')))
        put(self, obj, filepath)

    monkeypatch.setattr(AtomicLocalBackend, 'put', spy)
    run(path, tmp_path / 'w', **options)
    assert not seen[0] and all(seen[1:]), 'while one is written, an older one is there'
    names = sorted(p.name for p in (tmp_path / 'w').glob('*.pth'))
    assert len(names) == 2 and names[0].startswith('best_mIoU') and names[1] == 'iter_6.pth'

    def broken(self, obj, filepath):
        raise OSError('disk full')

    monkeypatch.setattr(AtomicLocalBackend, 'put', broken)
    before = {p: p.read_bytes() for p in (tmp_path / 'w').glob('*.pth')}
    with pytest.raises(OSError):
        run(path, tmp_path / 'w', **options)
    assert before == {p: p.read_bytes() for p in (tmp_path / 'w').glob('*.pth')}


def test_latest_checkpoint(tmp_path):
    assert latest_checkpoint(tmp_path) is None
    for number in (9, 10):
        (tmp_path / f'iter_{number}.pth').touch()
    assert latest_checkpoint(tmp_path).name == 'iter_10.pth'
    (tmp_path / 'last_checkpoint').write_text('/moved/away/iter_9.pth')
    assert latest_checkpoint(tmp_path).name == 'iter_9.pth'
    (tmp_path / 'last_checkpoint').write_text('')
    assert latest_checkpoint(tmp_path).name == 'iter_10.pth'

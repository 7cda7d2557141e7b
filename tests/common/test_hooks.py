import json
from types import SimpleNamespace

import pytest
import tiny
import torch
from mmengine.config import Config
from mmseg.models import ResNet

from mmprompt.apis.cli import find_config
from mmprompt.apis.test import test as run_test
from mmprompt.apis.train import train
from mmprompt.common.errors import UserError
from mmprompt.common.freeze import freeze
from mmprompt.common.hooks import FrozenBaseHook, NonFiniteLossHook, recipe_of
from mmprompt.common.patch_store import PatchStoreWriter
from mmprompt.common.prompt_file import PromptFile
from mmprompt.datasets.patches import LoadPatches


class Runner:
    """As much of a Runner as a hook asks for."""

    def __init__(self, model, **attributes):
        self.model = model
        self._train_loop = None
        self.__dict__.update(attributes)


def test_base_is_loaded_and_checkpoints_are_completed(tmp_path):
    base = tiny.make_base(tmp_path / 'base.safetensors')
    model = tiny.TinySegmentor(str(base))
    hook, runner = FrozenBaseHook(), Runner(model)
    hook.before_run(runner)
    assert model.base_fingerprint
    prompt = torch.ones(3, 8)
    checkpoint = {'state_dict': {'prompt': prompt}, 'ema_state_dict': {'module.prompt': prompt}}
    hook.after_load_checkpoint(runner, checkpoint)
    assert set(checkpoint['state_dict']) == set(model.state_dict())
    assert set(checkpoint['ema_state_dict']) == {f'module.{k}' for k in model.state_dict()}
    assert checkpoint['state_dict']['prompt'] is prompt
    record = {'base_fingerprint': 'b' * 64}
    with pytest.raises(UserError, match=f'{"b" * 64}.*found {model.base_fingerprint}'):
        hook.after_load_checkpoint(runner, {'state_dict': {}, 'mmprompt': record})


def test_any_model_passes():
    class Loader:
        dataset = []

    hook, runner = FrozenBaseHook(), Runner(torch.nn.Identity(), test_dataloader=Loader)
    hook.before_run(runner)
    hook.before_test(runner)
    checkpoint = {'state_dict': {}}
    hook.after_load_checkpoint(runner, checkpoint)
    assert checkpoint['state_dict'] == {}


def test_init_weights_of_a_runner_spares_a_frozen_resnet():
    backbone = freeze(ResNet(18))  # brings an init_cfg of its own
    before = {k: v.clone() for k, v in backbone.state_dict().items()}
    backbone.init_weights()
    assert all(torch.equal(v, before[k]) for k, v in backbone.state_dict().items())


def test_non_finite_loss_names_iteration_loss_and_images():
    class Sample:
        img_path = 'a/b.png'

    hook = NonFiniteLossHook()
    batch = {'data_samples': [Sample()]}
    hook.after_train_iter(Runner(None, iter=3), 3, batch, {'loss': torch.tensor(1.0)})
    with pytest.raises(UserError, match=r'iteration 4: .*loss_x = nan.*a/b\.png'):
        hook.after_train_iter(Runner(None, iter=3), 3, batch, {'loss': 1.0, 'loss_x': torch.nan})


def test_prompt_file_holds_recipe_and_reloads(tmp_path):
    path = tiny.make_config(tmp_path)
    cfg = find_config(path)
    cfg.work_dir = str(tmp_path / 'w')
    cfg.randomness = dict(seed=5)
    model = train(cfg).model
    file = tmp_path / 'w' / 'prompt.safetensors'
    prompt = PromptFile.load(file)
    assert torch.equal(prompt.tensors['prompt'], model.prompt.detach())
    assert prompt.recipe['config'] == 'tiny' and prompt.recipe['seed'] == 5
    assert prompt.recipe['iterations'] == 6 and prompt.recipe['optimizer']['lr'] == 0.5

    results = {}
    for name, weights in (
        ('zero', None),
        ('prompt', file),
        ('checkpoint', tmp_path / 'w' / 'iter_6.pth'),
    ):
        out = tmp_path / f'{name}.json'
        results[name] = run_test(_test_config(path, tmp_path), weights, out=out)
        record = json.loads(out.read_text())
        assert record['metrics'] == results[name]
        assert record['weights'] == (None if weights is None else str(weights))
    assert results['prompt'] == results['checkpoint'] != results['zero']


def _test_config(path, tmp_path) -> Config:
    cfg = find_config(path)
    cfg.work_dir = str(tmp_path / 'test')
    return cfg


@pytest.mark.parametrize('several', [False, True])
def test_the_recipe_tells_how_the_patches_of_the_training_were_made(tmp_path, several):
    store = tmp_path / 'x.db'
    settings = dict(scales=[20.0, 90.0], min_size=6)
    with PatchStoreWriter(store, dict(generator='felzenszwalb', settings=settings)) as writer:
        writer.finish()
    steps = [SimpleNamespace(store=None), LoadPatches(str(store))]
    dataset = SimpleNamespace(pipeline=SimpleNamespace(transforms=steps))
    wrapper = dict(datasets=[dataset, dataset]) if several else dict(dataset=dataset)
    wrapped = SimpleNamespace(dataset=SimpleNamespace(**wrapper))
    runner = Runner(None, _train_loop=SimpleNamespace(dataloader=wrapped))
    runner.__dict__.update(cfg=Config(), iter=3, seed=1)
    assert recipe_of(runner)['patches'] == dict(generator='felzenszwalb', settings=settings)
    steps.pop()
    assert 'patches' not in recipe_of(runner)

"""What docs/samcp.md tells the reader to type can be used as it stands."""

import argparse
import functools
import re
import shlex
from pathlib import Path

import pytest
import torch
from drop_in import build
from mmengine.config import Config
from mmengine.registry import DefaultScope, init_default_scope
from samcp_cases import batch_of
from toy import shrink
from toy_samcp import toy_sample

from mmprompt.apis.cli import OptionsAction, apply_options
from mmprompt.registry import DATASETS, MODELS

ROOT = Path(__file__).resolve().parents[3]
DOCUMENT = (ROOT / 'docs/samcp.md').read_text()
LEAF = ROOT / 'configs/samcp/samcp_r50_coco-panoptic_12e.py'


def snippets(word: str) -> list[str]:
    found = re.findall(r'```python\n(.*?)```', DOCUMENT, re.DOTALL)
    return [text for text in found if word in text]


def ablations() -> list[tuple[str, str]]:
    """Row and options of the tables of the paper."""
    table = DOCUMENT.split('<!-- begin ablations -->')[1].split('<!-- end')[0]
    cells = [line.split(' | ') for line in table.splitlines() if line.startswith('| ')]
    return [(f'{row[0][2:]} {row[1]}', row[-1].strip(' |`')) for row in cells if '=' in row[-1]]


def read(options: str) -> Config:
    parser = argparse.ArgumentParser()
    parser.add_argument('--cfg-options', nargs='+', action=OptionsAction)
    cfg = Config.fromfile(LEAF)
    apply_options(cfg, parser.parse_args(['--cfg-options', *shlex.split(options)]).cfg_options)
    return cfg


def losses(cfg: Config) -> dict[str, torch.Tensor]:
    """Of a toy batch, with affinities that differ, as after some training, and of a random one."""
    init_default_scope('mmprompt')
    torch.manual_seed(0)
    model = MODELS.build(cfg.model).train()
    generator = torch.Generator().manual_seed(0)
    for layer in model.head.decoder.layers:
        for weight in (layer.affinity.mlp[-1].weight, layer.affinity.patch_bias):
            weight.data.normal_(std=3, generator=generator)
    dataset = DATASETS.build(cfg.val_dataloader.dataset)  # without augmentation
    samples = [dataset[i] for i in range(len(dataset))]
    batch = {key: [sample[key] for sample in samples] for key in ('inputs', 'data_samples')}
    torch.manual_seed(1)
    data = model.data_preprocessor(batch, True)
    found = model(**data, mode='loss')
    total = sum(found.values())
    total.backward()
    assert total.isfinite()
    assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())
    # Random overlaps have parts of every quality, which the toy images do not.
    random = model.head.criterion(*batch_of(0, [(10, 40), (8, 30)], denoising=6))
    found |= {f'random {k}': v for k, v in random.items()}
    return {name: value.detach() for name, value in found.items()}


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp('ablations')


@pytest.fixture(scope='module')
def plain(folder):
    return losses(shrink(Config.fromfile(LEAF), folder))


def test_all_rows_of_the_four_tables_are_there():
    numbers = [int(name.split()[0]) for name, _ in ablations()]
    assert {n: numbers.count(n) for n in (3, 4, 5, 12)} == {3: 5, 4: 5, 5: 2, 12: 6}
    assert len({options for _, options in ablations()}) == len(numbers)


@pytest.mark.parametrize(('name', 'options'), ablations(), ids=lambda text: text.split(' ')[0])
def test_a_row_of_the_tables_trains_and_is_another_experiment(name, options, folder, plain):
    cfg = read(options)
    with torch.device('meta'), DefaultScope.overwrite_default_scope('mmprompt'):
        MODELS.build(cfg.model)
    found = losses(shrink(cfg, folder))
    assert found.keys() != plain.keys() or any(found[name] != plain[name] for name in found)


@pytest.mark.parametrize('scope', ['mmprompt', 'mmseg'])
def test_the_detector_of_another_backbone_builds(scope, monkeypatch):
    # MMSegmentation's Transformers read rates of stochastic depth from a tensor.
    monkeypatch.setattr(torch, 'linspace', functools.partial(torch.linspace, device='cpu'))
    names: dict = {}
    (snippet,) = snippets("type='SAMCPDetector'")
    exec(snippet, names)
    with torch.device('meta'):
        model = build(names['model'], scope)
    assert model.head.num_classes == 2


def test_all_places_draw_the_same_scenes():
    leaf = (ROOT / 'configs/samcp/samcp_nano_streets.py').read_text()
    readme = (ROOT / 'README.md').read_text().split("## Compose SAM's patches")[1]
    scenes = [re.findall(r'make_streets.py (.*)', text)[:3] for text in (DOCUMENT, readme, leaf)]
    assert len(scenes[0]) == 3 and scenes[0] == scenes[1] == scenes[2]


def test_the_checkpoint_that_is_tested_is_the_last_one_of_its_training():
    (name, number) = re.search(r'(configs/samcp/\S+) work_dirs/\S+/iter_(\d+)', DOCUMENT).groups()
    assert Config.fromfile(ROOT / name).max_iters == int(number)


def test_the_head_alone_learns():
    (snippet,) = snippets('SAMCPHead(')
    samples = [toy_sample(5, size, seed) for seed, size in enumerate(((256, 512), (240, 500)))]
    for sample in samples:
        sample.gt_units.labels = sample.gt_units.labels.clamp(max=1)
    names = dict(data_samples=samples)
    exec(snippet, names)
    assert sum(names['losses'].values()).isfinite()

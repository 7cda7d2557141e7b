"""Every leaf: builds at its published size with the audited parameters, and runs at toy size."""

import functools
import re
from pathlib import Path

import pytest
import torch
from leaf_audit import AUDIT, RESNET, spm
from mmengine.config import Config
from mmengine.registry import MODELS, DefaultScope, Registry, root
from toy import shrink

import mmprompt  # noqa: F401
from mmprompt.apis.test import test as run_test
from mmprompt.apis.train import train as run_training
from mmprompt.common.audit import trained_parameters
from mmprompt.common.errors import UserError

CONFIGS = Path(__file__).resolve().parent.parent / 'configs'
every_leaf = pytest.mark.parametrize('leaf', AUDIT)


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv('MMPROMPT_CACHE', str(tmp_path / 'cache'))


def read(leaf: str) -> Config:
    return Config.fromfile(str(CONFIGS / f'{leaf}.py'))


def test_every_leaf_is_audited():
    found = {p.relative_to(CONFIGS).with_suffix('').as_posix() for p in CONFIGS.rglob('*.py')}
    assert {name for name in found if not name.startswith('_base_')} == set(AUDIT)


def test_the_counts_of_the_paper():
    cityscapes = 'ssprompt/focal-t_cityscapes_16shot'
    assert AUDIT[cityscapes] == 61_047
    assert AUDIT[f'{cityscapes}_coop'] == 8_192
    assert AUDIT[f'{cityscapes}_locn'] == 9_728
    assert AUDIT[f'{cityscapes}_semprompt'] == 9_747
    assert AUDIT[f'{cityscapes}_spaprompt'] == 51_300


@every_leaf
def test_names_its_command(leaf):
    text = (CONFIGS / f'{leaf}.py').read_text()
    assert re.search(rf'\.py configs/{re.escape(leaf)}\.py[ \n]', text.split('_base_ =')[0])


def build_on_meta(cfg: Config) -> torch.nn.Module:
    with torch.device('meta'), DefaultScope.overwrite_default_scope(cfg.default_scope):
        return MODELS.build(cfg.model)


@pytest.fixture
def numbers_of_mmseg(monkeypatch):
    """MMSegmentation's Transformers read rates of stochastic depth from a tensor."""
    monkeypatch.setattr(torch, 'linspace', functools.partial(torch.linspace, device='cpu'))


@every_leaf
def test_builds_at_published_size_on_meta(leaf, numbers_of_mmseg):
    model = build_on_meta(read(leaf))
    assert sum(trained_parameters(model).values()) == AUDIT[leaf]
    assert all(p.device.type == 'meta' for p in model.parameters())


#: Trained parameters of the backbone in full tuning, and in M without BatchNorm.
BACKBONES = {
    'spm/spm_r101_psp_ade20k': (42_519_392, 42.41),
    'spm/spm_r50_psp_ade20k': (23_527_264, 23.47),
    'spm/spm_vit-l_pup_ade20k': (304_147_456, 304.15),
}
#: Trained parameters of adapters on ViT-L, as methods/spm/adapters.py derives them.
ADAPTERS = dict(vpt=1_228_800, adaptformer=3_171_840, lora=786_432)


@pytest.mark.parametrize('leaf', [leaf for leaf in AUDIT if leaf.startswith('spm/')])
def test_every_way_of_tuning_has_the_expected_parameters(leaf, numbers_of_mmseg):
    """Another number than the config expects would raise here."""
    cfg = read(leaf)
    ways = {'spm', 'head', 'full', 'scratch', *(ADAPTERS if 'vit' in leaf else ())}
    assert set(cfg.model.expected_parameters) == ways
    for tuning in ways - {'spm'} if leaf in BACKBONES else {'head'}:
        cfg.model.backbone.tuning = tuning
        groups = build_on_meta(cfg).parameter_groups()
        assert groups == cfg.model.expected_parameters[tuning]
        assert groups['prompt'] == ADAPTERS.get(tuning, 0)


@pytest.mark.parametrize('leaf', BACKBONES)
def test_the_paper_counts_no_batch_norm(leaf, numbers_of_mmseg):
    exact, paper = BACKBONES[leaf]
    cfg = read(leaf)
    cfg.model.backbone.tuning = 'full'
    model = build_on_meta(cfg)
    norms = [m for m in model.modules() if isinstance(m, torch.nn.modules.batchnorm._BatchNorm)]
    without = {id(p) for norm in norms for p in norm.parameters()}
    wrapped = model.backbone.backbone
    assert sum(p.numel() for p in wrapped.parameters()) == exact
    counted = sum(p.numel() for p in wrapped.parameters() if id(p) not in without)
    assert round(counted / 1e6, 2) == paper == cfg.model.paper_parameters.full.backbone
    head = sum(p.numel() for n, p in model.named_parameters() if not n.startswith('backbone.'))
    assert round(head / 1e6, 2) == cfg.model.paper_parameters.full.head


@pytest.mark.parametrize(
    ('places', 'context', 'count'),
    [
        (['layer1'], 'pdc', spm(150, RESNET[:1])),
        (['layer1', 'layer2'], 'pdc', spm(150, RESNET[:2])),
        (['layer1', 'layer2', 'layer3', 'layer4'], 'pdc', spm(150, RESNET[:4])),
        (
            ['layer1', 'layer2', 'layer3', 'layer3.12', 'layer4', 'out'],
            'pdc',
            spm(150, (*RESNET, 1024)),
        ),
        (
            ['layer1', 'layer2', 'layer3', 'layer3.7', 'layer3.14', 'layer4', 'out'],
            'pdc',
            spm(150, (*RESNET, 1024, 1024)),
        ),
        (
            ['layer1', 'layer2', 'layer3', 'layer4', 'out'],
            'conv3x3',
            spm(150, RESNET, context='conv3x3'),
        ),
    ],
)
def test_the_rows_of_tables_6_and_7_build(places, context, count):
    cfg = read('spm/spm_r101_psp_ade20k')
    cfg.model.backbone.prompt_at = places
    cfg.model.backbone.prompter.context = context
    cfg.model.expected_parameters.spm.prompt = count
    assert build_on_meta(cfg).parameter_groups()['prompt'] == count
    assert f'| {count:,} |' in (CONFIGS.parent / 'docs' / 'spm.md').read_text()


@every_leaf
def test_trains_and_predicts_at_toy_size(leaf, tmp_path):
    cfg = shrink(read(leaf), tmp_path)
    if cfg.get('train_cfg'):
        runner = run_training(cfg)
        assert runner.iter == 1
        scores = runner.message_hub.log_scalars
        assert torch.tensor(scores['train/loss'].current()).isfinite()
    else:
        scores = run_test(cfg)
    assert any('mIoU' in name or 'Dice' in name for name in scores)


@pytest.fixture(scope='module')
def trained(tmp_path_factory):
    """What a leaf's toy training of one step leaves, made once."""

    @functools.cache
    def train(leaf: str) -> Path:
        folder = tmp_path_factory.mktemp('trained')
        run_training(shrink(read(leaf), folder))
        head = folder / 'work/head.safetensors'
        return head if head.is_file() else folder / 'work/iter_1.pth'

    return train


CLIP_COCO = 'clip-convnext-l_coco-panoptic_12e'


@pytest.mark.parametrize(
    ('there', 'here'),
    [
        ('r50_coco-panoptic_12e', 'r50_cityscapes'),
        (CLIP_COCO, 'clip-convnext-l_coco-to-ade20k'),
        (CLIP_COCO, 'clip-convnext-l_coco-to-cityscapes'),
        (CLIP_COCO, 'clip-convnext-l_cod10k'),
        ('clip-convnext-l_ade20k_160k', 'clip-convnext-l_ade20k-to-coco'),
    ],
)
def test_what_was_trained_is_measured_on_other_data(there, here, trained, tmp_path):
    """Other classes, of another number: all that is learned about classes is how texts are read."""
    weights = trained(f'samcp/samcp_{there}')
    scores = run_test(shrink(read(f'samcp/samcp_{here}'), tmp_path), weights)
    wanted = {'PQ', 'PQ_th', 'PQ_st', 'SQ', 'RQ', 'AP', 'mIoU'}
    assert wanted <= {name.split('/')[-1] for name in scores}


@pytest.mark.parametrize(
    ('leaf', 'file'),
    [
        ('ssprompt/focal-t_cityscapes_16shot', 'seem_focalt_v0'),
        ('seem/focal-t_ade20k_zero-shot', 'seem_focalt_v0'),
        ('seem/focal-l_ade20k_zero-shot', 'seem_focall_v0'),
    ],
)
def test_a_missing_checkpoint_names_the_address(leaf, file, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    cfg = read(leaf)
    with torch.device('meta'):
        model = MODELS.build(cfg.model)
    address = rf'https://huggingface\.co/xdecoder/SEEM/resolve/main/{file}\.pt'
    with pytest.raises(UserError, match=rf'weights/{file}\.pt.*{address}'):
        model.load_base()


@pytest.mark.parametrize('leaf', [leaf for leaf in AUDIT if leaf.startswith('seem/focal')])
def test_zero_shot_leaves_are_what_they_are_called(leaf):
    model, data, _ = leaf.removeprefix('seem/').split('_')
    cfg = read(leaf)
    base, parts = read(f'_base_/datasets/{data}'), read(f'_base_/models/{model}').seem
    assert Path(cfg.model.base).name == f'seem_{model.replace("-", "")}_v0.pt'
    assert cfg.model.backbone == parts.backbone
    assert cfg.test_dataloader == cfg.val_dataloader == base.test_dataloader
    assert cfg.model.classes == base.class_names
    assert cfg.model.get('texts') == base.get('class_texts')
    assert cfg.test_evaluator == dict(type='mmseg.IoUMetric', iou_metrics=['mIoU'])
    with torch.device('meta'):
        head = MODELS.build(cfg.model).decode_head
    kinds = {type(head.spatial_prompt).__name__, type(head.semantic_prompt).__name__}
    assert kinds == {'DefaultPrompt'}


@pytest.mark.parametrize(
    'leaf', [leaf for leaf in AUDIT if not leaf.startswith('seem/') or 'zero-shot' in leaf]
)
def test_foreign_types_are_prefixed(leaf):
    """Names that are neither ours nor mmengine's or mmcv's own say where they come from."""

    def types(node):
        if isinstance(node, dict):
            if isinstance(node.get('type'), str):
                yield node['type']
            for value in node.values():
                yield from types(value)
        elif isinstance(node, (list, tuple)):
            for value in node:
                yield from types(value)

    known = set()
    for registry in vars(root).values():
        known |= set(registry.module_dict) if isinstance(registry, Registry) else set()
    cfg = read(leaf)
    cfg._cfg_dict.pop('seem', None)
    bare = {t for t in types(cfg.to_dict()) if '.' not in t} - {'sigmoid', 'clamp', 'fixed'}
    assert bare <= known

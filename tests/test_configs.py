"""Every leaf: builds at its published size with the audited parameters, and runs at toy size."""

import functools
import re
from collections.abc import Iterable
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS, DefaultScope, Registry, root
from toy import shrink

import mmprompt  # noqa: F401
from mmprompt.apis.test import test as run_test
from mmprompt.apis.train import train as run_training
from mmprompt.common.audit import trained_parameters
from mmprompt.common.errors import UserError

CONFIGS = Path(__file__).resolve().parent.parent / 'configs'
NANO, R50 = 81, 129  # one row of a prompt: an embedding and its weight
RESNET = (64, 256, 512, 1024, 2048)  # channels before each stage of a bottleneck ResNet and behind


def spm(classes: int, channels: Iterable[int], width: int = 256, context: str = 'pdc') -> int:
    """Parameters of matchers: weights, biases of the last layers, two of BatchNorm a channel."""
    inner = {'pdc': 9 * width**2 // 4 + width**2, 'conv3x3': 9 * width**2}[context]
    norms = 2 * 2 * width * {'pdc': 3, 'conv3x3': 2}[context]
    return sum(3 * width * (c + classes) + (c + classes) + 2 * inner + norms for c in channels)


def psp(classes: int) -> int:
    """Pyramid pooling of four scales on 2,048 channels, a 3x3 convolution, BatchNorm, classes."""
    pools = 4 * (2048 * 512 + 2 * 512)
    return pools + 9 * (2048 + 4 * 512) * 512 + 2 * 512 + 513 * classes


def pup(classes: int, channels: int, convs: int) -> int:
    """LayerNorm, 3x3 convolutions of width 256 with BatchNorm, classes."""
    weights = 9 * (channels * 256 + (convs - 1) * 256 * 256)
    return 2 * channels + weights + convs * 2 * 256 + 257 * classes


SETR_PUP = pup(150, 1024, 4) + 3 * pup(150, 1024, 2)


def samcp(
    things: int,
    dim=256,
    channels=256,
    text=512,
    hidden=1024,
    ffn=2048,
    layers=(6, 6),
    affinity_ffn=0,
) -> int:
    """Parameters of a `SAMCPHead` over maps of so many channels, by its boxes in Figure 2."""

    def mlp(*sizes: int) -> int:
        return sum(a * b + b for a, b in zip(sizes, sizes[1:]))

    attention, norm, feed = 4 * mlp(dim, dim), 2 * dim, mlp(dim, ffn, dim)
    position = mlp(2 * dim, dim, dim)
    encoder = mlp(49 * channels, hidden, dim) + norm + position
    encoder += layers[0] * (attention + feed + 2 * norm)
    queries = mlp(text, dim) + norm + mlp(text, 4) + things * dim
    heads = 2 * mlp(8, 8) + mlp(8, 1)  # over the 8 similarities of a pair
    projections = mlp(dim, affinity_ffn, dim) if affinity_ffn else mlp(dim, dim)
    affinity = 2 * projections + heads + 1 + dim + 1
    decoder = layers[1] * (2 * attention + feed + 3 * norm + affinity) + position + norm
    classifier = mlp(dim, dim) + mlp(text, dim) + 2 + text
    return encoder + queries + decoder + classifier


def fpn(channels: Iterable[int], width: int = 256) -> int:
    """1x1 and 3x3 convolutions of each level, with GroupNorm."""
    return sum(c * width + 9 * width * width + 4 * width for c in channels)


R50_FPN = 23_454_912 + fpn(RESNET[1:])  # without the BatchNorm, which stays as it is
SWIN_L_FPN = 195_201_204 + fpn((192, 384, 768, 1536))
SMALL = dict(dim=128, hidden=256, ffn=512, layers=(2, 3))
#: Trained parameters of each leaf: prompts by the rows they have, pre-training by counting.
AUDIT = {
    'seem/focal-l_acdc-fog_zero-shot': 0,
    'seem/focal-l_acdc-night_zero-shot': 0,
    'seem/focal-l_acdc-rain_zero-shot': 0,
    'seem/focal-l_acdc-snow_zero-shot': 0,
    'seem/focal-l_ade20k_zero-shot': 0,
    'seem/focal-l_bdd100k_zero-shot': 0,
    'seem/focal-l_cityscapes_zero-shot': 0,
    'seem/focal-l_mapillary_zero-shot': 0,
    'seem/focal-l_pascal-context_zero-shot': 0,
    'seem/focal-t_acdc-fog_zero-shot': 0,
    'seem/focal-t_acdc-night_zero-shot': 0,
    'seem/focal-t_acdc-rain_zero-shot': 0,
    'seem/focal-t_acdc-snow_zero-shot': 0,
    'seem/focal-t_ade20k_zero-shot': 0,
    'seem/focal-t_bdd100k_zero-shot': 0,
    'seem/focal-t_cityscapes_zero-shot': 0,
    'seem/focal-t_mapillary_zero-shot': 0,
    'seem/focal-t_pascal-context_zero-shot': 0,
    'samcp/samcp_nano_streets': fpn((24, 48, 96, 192), 64)
    + samcp(8, channels=64, text=80, **SMALL),
    'samcp/samcp_r50_ade20k_160k': R50_FPN + samcp(100),
    'samcp/samcp_r50_cityscapes': R50_FPN + samcp(0),
    'samcp/samcp_r50_coco-panoptic_12e': R50_FPN + samcp(80),
    'samcp/samcp_r50_coco-panoptic_12e_released': R50_FPN + samcp(80, affinity_ffn=2048),
    'samcp/samcp_r50_coco-panoptic_36e': R50_FPN + samcp(80),
    'samcp/samcp_r50_coco-panoptic_36e_mask-dino': R50_FPN + samcp(80),
    'samcp/samcp_r50_coco128': fpn(RESNET[1:], 128) + samcp(80, channels=128, **SMALL),
    'samcp/samcp_swin-l_ade20k_160k': SWIN_L_FPN + samcp(100),
    'samcp/samcp_swin-l_coco-panoptic_12e': SWIN_L_FPN + samcp(80),
    'samcp/samcp_swin-l_coco-panoptic_36e': SWIN_L_FPN + samcp(80),
    'seem/seem-nano_streets-clear': 1_850_073,
    'seem/seem-nano_streets-clear_full': 1_850_073,
    'seem/seem-nano_camvid-day': 1_850_073,
    'seem/seem-r50_camvid-day': 2_220_609,
    'spm/spm_r101-coco-stuff_psp_ade20k': spm(150, RESNET[:3]) + psp(150),
    'spm/spm_r101_psp_ade20k': spm(150, RESNET) + psp(150),
    'spm/spm_r101_psp_vaihingen': spm(6, RESNET) + psp(6),
    'spm/spm_r101_pup_chase-db1': spm(2, RESNET) + pup(2, 2048, 3),
    'spm/spm_r101_pup_hrf': spm(2, RESNET) + pup(2, 2048, 3),
    'spm/spm_r101_pup_stare': spm(2, RESNET) + pup(2, 2048, 3),
    'spm/spm_r50_psp_ade20k': spm(150, RESNET) + psp(150),
    'spm/spm_r50_psp_camvid': spm(11, RESNET) + psp(11),
    'spm/spm_r50_pup_chase-db1': spm(2, RESNET) + pup(2, 2048, 3),
    'spm/spm_swin-t_uper_ade20k': spm(150, (96, 192, 384, 768, 768)) + 31_497_366,
    'spm/spm_vit-l_pup_ade20k': spm(150, [1024] * 3) + SETR_PUP,
    'spm/spm_vit-l_pup_ade20k_1-stage': spm(150, [1024]) + SETR_PUP,
    'spm/spm_vit-l_pup_ade20k_2-stages': spm(150, [1024] * 2) + SETR_PUP,
    'ssprompt/focal-t_cityscapes_16shot': (100 + 19) * 513,
    'ssprompt/focal-t_cityscapes-instance_16shot': (100 + 19) * 513,
    'ssprompt/focal-t_cityscapes-instance_zero-shot': 0,
    'ssprompt/focal-t_cityscapes-panoptic_16shot': (100 + 19) * 513,
    'ssprompt/focal-t_cityscapes-panoptic_zero-shot': 0,
    'ssprompt/focal-t_bdd100k_16shot': (100 + 19) * 513,
    'ssprompt/focal-t_mapillary_16shot': (100 + 19) * 513,
    'ssprompt/focal-t_ade20k_16shot': (100 + 150) * 513,
    'ssprompt/focal-t_pascal-context_16shot': (100 + 59) * 513,
    'ssprompt/focal-t_acdc-fog_16shot': (100 + 19) * 513,
    'ssprompt/focal-t_acdc-night_16shot': (100 + 19) * 513,
    'ssprompt/focal-t_acdc-rain_16shot': (100 + 19) * 513,
    'ssprompt/focal-t_acdc-snow_16shot': (100 + 19) * 513,
    'ssprompt/focal-l_cityscapes_16shot': (100 + 19) * 513,
    'ssprompt/focal-l_bdd100k_16shot': (100 + 19) * 513,
    'ssprompt/focal-l_mapillary_16shot': (100 + 19) * 513,
    'ssprompt/focal-l_ade20k_16shot': (100 + 150) * 513,
    'ssprompt/focal-l_pascal-context_16shot': (100 + 59) * 513,
    'ssprompt/focal-l_acdc-fog_16shot': (100 + 19) * 513,
    'ssprompt/focal-l_acdc-night_16shot': (100 + 19) * 513,
    'ssprompt/focal-l_acdc-rain_16shot': (100 + 19) * 513,
    'ssprompt/focal-l_acdc-snow_16shot': (100 + 19) * 513,
    'ssprompt/davit-l_cityscapes_16shot': (100 + 19) * 513,
    'ssprompt/davit-l_bdd100k_16shot': (100 + 19) * 513,
    'ssprompt/davit-l_mapillary_16shot': (100 + 19) * 513,
    'ssprompt/davit-l_ade20k_16shot': (100 + 150) * 513,
    'ssprompt/davit-l_pascal-context_16shot': (100 + 59) * 513,
    'ssprompt/davit-l_acdc-fog_16shot': (100 + 19) * 513,
    'ssprompt/davit-l_acdc-night_16shot': (100 + 19) * 513,
    'ssprompt/davit-l_acdc-rain_16shot': (100 + 19) * 513,
    'ssprompt/davit-l_acdc-snow_16shot': (100 + 19) * 513,
    'ssprompt/focal-t_cityscapes_4shot': (100 + 19) * 513,
    'ssprompt/focal-t_cityscapes_8shot': (100 + 19) * 513,
    'ssprompt/focal-t_cityscapes_12shot': (100 + 19) * 513,
    'ssprompt/nano_streets-fog_4shot': (100 + 19) * NANO,
    'ssprompt/nano_streets-fog_8shot': (100 + 19) * NANO,
    'ssprompt/nano_streets-fog_12shot': (100 + 19) * NANO,
    'ssprompt/nano_streets-clear_16shot': (100 + 19) * NANO,
    'ssprompt/nano_camvid-dusk_4shot': (100 + 11) * NANO,
    'ssprompt/nano_camvid-dusk_8shot': (100 + 11) * NANO,
    'ssprompt/nano_camvid-dusk_12shot': (100 + 11) * NANO,
    'ssprompt/nano_camvid-dusk_16shot': (100 + 11) * NANO,
    'ssprompt/nano_camvid-day_16shot': (100 + 11) * NANO,
    'ssprompt/nano_streets-fog-instance_16shot': (100 + 19) * NANO,
    'ssprompt/nano_streets-fog-instance_zero-shot': 0,
    'ssprompt/nano_streets-fog-panoptic_16shot': (100 + 19) * NANO,
    'ssprompt/nano_streets-fog-panoptic_zero-shot': 0,
    'ssprompt/focal-t_cityscapes_16shot_coop': 16 * 512,
    'ssprompt/focal-t_cityscapes_16shot_full': 100_370_929,
    'ssprompt/focal-t_cityscapes_16shot_head': 512 * 512 + 3 * 513 * 512 + 2 * 512,
    'ssprompt/focal-t_cityscapes_16shot_locn': 19 * 512,
    'ssprompt/focal-t_cityscapes_16shot_semprompt': 19 * 513,
    'ssprompt/focal-t_cityscapes_16shot_spaprompt': 100 * 513,
    'ssprompt/focal-t_cityscapes_16shot_vspl': 2 * 100,
    'ssprompt/nano_streets-fog_16shot': (100 + 19) * NANO,
    'ssprompt/nano_streets-fog_16shot_coop': 16 * 64,
    'ssprompt/nano_streets-fog_16shot_coop-csc': 19 * 16 * 64,
    'ssprompt/nano_streets-fog_16shot_coop-m4': 4 * 64,
    'ssprompt/nano_streets-fog_16shot_coop_native': 16 * 64,
    'ssprompt/nano_streets-fog_16shot_full': 1_715_449,
    'ssprompt/nano_streets-fog_16shot_head': 80 * 80 + 3 * 81 * 80 + 2 * 80,
    'ssprompt/nano_streets-fog_16shot_locn': 19 * 64,
    'ssprompt/nano_streets-fog_16shot_vspl': 2 * 100,
    'ssprompt/nano_streets-fog_16shot_grid': (100 + 19) * NANO,
    'ssprompt/nano_streets-fog_16shot_published': (100 + 19) * NANO,
    'ssprompt/nano_streets-fog_16shot_semprompt': 19 * NANO,
    'ssprompt/nano_streets-fog_16shot_semprompt_embedding-only': 19 * (NANO - 1),
    'ssprompt/nano_streets-fog_16shot_spaprompt': 100 * NANO,
    'ssprompt/nano_streets-fog_16shot_spaprompt_embedding-only': 100 * (NANO - 1),
    'ssprompt/nano_streets-fog_zero-shot': 0,
    'ssprompt/nano_streets-fog_zero-shot_bare': 0,
    'ssprompt/nano_streets-fog_zero-shot_grid': 0,
    'ssprompt/nano_streets-night_16shot': (100 + 19) * NANO,
    'ssprompt/nano_streets-rain_16shot': (100 + 19) * NANO,
    'ssprompt/nano_streets-snow_16shot': (100 + 19) * NANO,
    'ssprompt/mobile-sam_camvid-dusk_16shot': 100 * 257 + 11 * NANO,
    'ssprompt/mobile-sam_camvid-dusk_16shot_coop': 16 * 64,
    'ssprompt/mobile-sam_camvid-dusk_16shot_locn': 11 * 64,
    'ssprompt/mobile-sam_camvid-dusk_zero-shot': 0,
    'ssprompt/r50_camvid-dusk_16shot': (100 + 11) * R50,
    'ssprompt/r50_camvid-dusk_16shot_semprompt': 11 * R50,
    'ssprompt/r50_camvid-dusk_16shot_spaprompt': 100 * R50,
    'ssprompt/r50_camvid-dusk_4shot': (100 + 11) * R50,
    'ssprompt/r50_camvid-dusk_8shot': (100 + 11) * R50,
    'ssprompt/r50_camvid-dusk_zero-shot': 0,
}
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


def test_weights_of_coco_are_measured_on_cityscapes(tmp_path):
    """Other classes, of another number: all that is learned about classes is how texts are read."""
    run_training(shrink(read('samcp/samcp_r50_coco-panoptic_12e'), tmp_path / 'coco'))
    trained = tmp_path / 'coco/work/iter_1.pth'
    cfg = shrink(read('samcp/samcp_r50_cityscapes'), tmp_path / 'streets')
    scores = run_test(cfg, trained)
    assert {'PQ', 'AP', 'mIoU'} <= {name.split('/')[-1] for name in scores}
    model = build_on_meta(cfg)
    learned = {k: v.shape for k, v in torch.load(trained, weights_only=False)['state_dict'].items()}
    assert {k: v.shape for k, v in model.state_dict().items() if learned[k] != v.shape} == {}


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

"""The battery that every method joins with one row of `METHODS`."""

import copy
import operator
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from mmengine.optim import OptimWrapper
from mmengine.registry import MODELS, DefaultScope
from mmseg.structures import SegDataSample
from prompt_files import save_files
from prompted import (
    head_parameters,
    matcher_parameters,
    prompted_segmentor,
)
from safetensors.torch import save_file
from torch import nn
from toy import CLASSES, HEIGHT, PROMPTS, WIDTH, toy_batch, toy_seem, toy_segmentor, write_base
from toy_sam import toy_sam_segmentor
from toy_samcp import toy_detector, toy_samcp_batch, write_text

import mmprompt  # noqa: F401
from mmprompt.common.errors import UserError
from mmprompt.common.freeze import frozen_roots, under_roots

try:
    import mmcv._ext  # noqa: F401

    SCOPES = ('mmseg', 'mmprompt', 'mmdet')
except ImportError:  # mmdet's registry imports what needs the compiled ops
    SCOPES = ('mmseg', 'mmprompt')


@dataclass(frozen=True)
class Method:
    """One row: a model at toy size and what must be true of it.

    Attributes:
        name: for the test ids.
        config: folder -> model config; may write files (a base) there.
        frozen: its frozen roots.
        trained: its trained parameters by name.
        batch: what its data loader gives.
        sample: the class of its predictions.
        base: config -> the file of its frozen base.
        scores: the numbers of a prediction that follow every learned value.
    """

    name: str
    config: Callable[[Path], dict]
    frozen: tuple[str, ...]
    trained: dict[str, int]
    batch: Callable[[], dict] = toy_batch
    sample: type = SegDataSample
    base: Callable[[dict], str] = lambda config: config['base']
    scores: Callable = lambda result: result.seg_logits.data


SEEM_ROOTS = ('backbone', 'decode_head.pixel_decoder', 'decode_head.decoder')
SPATIAL = {
    'decode_head.spatial_prompt.offset': PROMPTS * 16,
    'decode_head.spatial_prompt.weight.theta': PROMPTS,
}
SEMANTIC = {
    'decode_head.semantic_prompt.offset': len(CLASSES) * 16,
    'decode_head.semantic_prompt.weight.theta': len(CLASSES),
}


def ssprompt(**head) -> Callable[[Path], dict]:
    return lambda folder: toy_segmentor(write_base(folder / 'base.safetensors'), decode_head=head)


def baseline(method: str) -> Callable[[Path], dict]:
    return lambda folder: toy_segmentor(write_base(folder / 'base.safetensors'), method=method)


def sam(method: str) -> Callable[[Path], dict]:
    return lambda folder: toy_sam_segmentor(folder, method=method)


def spm(tuning: str, trained: dict[str, int]) -> Method:
    return Method(
        f'SPM, {tuning}',
        lambda folder: prompted_segmentor(folder, tuning),
        ('backbone.backbone',),
        trained,
        base=lambda config: config['backbone']['backbone']['init_cfg']['checkpoint'],
    )


def build(config: dict) -> nn.Module:
    return MODELS.build(copy.deepcopy(config))


def frozen_samcp(folder: Path) -> dict:
    # Every level of the pyramid is read, though the pictures are small.
    head = dict(patch_encoder=dict(finest_scale=4))
    config = toy_detector(write_text(folder / 'text.npy'), head, frozen_backbone=True)
    path = folder / 'backbone.safetensors'
    if not path.exists():
        save_file(dict(MODELS.build(config.backbone).state_dict()), path)
    config.backbone.init_cfg = dict(type='Pretrained', checkpoint=str(path))
    return config


def samcp_parameters() -> dict[str, int]:
    """Every parameter of the toy's neck and head."""
    config = toy_detector('')
    parts = dict(neck=config.neck, head=config.head)
    return {
        f'{part}.{name}': p.numel()
        for part, part_config in parts.items()
        for name, p in build(part_config).named_parameters()
    }


WORDS = 'decode_head.semantic_prompt.words'
TEXT_ROOTS = (*SEEM_ROOTS, 'decode_head.semantic_prompt.text_encoder')
DECODER = 'decode_head.decoder.'
STROKES = ('pn_indicator', 'memory_content', 'memory_position', 'mask_spatial_embed')
QUERIES = ('query_feat', 'query_embed', 'level_embed', 'logit_scale')
HEADS = {'class_embed': 256, 'decoder_norm.weight': 16, 'decoder_norm.bias': 16} | {
    f'mask_embed.{i}.{kind}': count
    for i in range(3)
    for kind, count in (('weight', 256), ('bias', 16))
}


def tuned(names: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(DECODER + name for name in names)


def everything_but(strokes: tuple[str, ...]) -> dict[str, int]:
    """Every parameter of the three parts of a toy base, but for the named ones of the decoder."""
    out = {}
    for part, place in (
        ('backbone', 'backbone.'),
        ('pixel_decoder', 'decode_head.pixel_decoder.'),
        ('decoder', DECODER),
    ):
        for name, p in MODELS.build(toy_seem()[part]).named_parameters():
            if part != 'decoder' or not name.startswith(strokes):
                out[place + name] = p.numel()
    return out


NO_PROMPT = dict(type='DefaultPrompt', num_prompts=PROMPTS)
METHODS = [
    Method('SSPrompt', ssprompt(), SEEM_ROOTS, SPATIAL | SEMANTIC),
    Method('SpaPrompt', ssprompt(semantic_prompt=dict(type='DefaultPrompt')), SEEM_ROOTS, SPATIAL),
    Method('SemPrompt', ssprompt(spatial_prompt=NO_PROMPT), SEEM_ROOTS, SEMANTIC),
    Method('CoOp', baseline('coop'), TEXT_ROOTS, {WORDS: 16 * 16}),
    Method('CoOp-M4', baseline('coop-m4'), TEXT_ROOTS, {WORDS: 4 * 16}),
    Method('CoOp-CSC', baseline('coop-csc'), TEXT_ROOTS, {WORDS: len(CLASSES) * 16 * 16}),
    Method('LOCN', baseline('locn'), TEXT_ROOTS, {WORDS: len(CLASSES) * 16}),
    Method(
        'VSPL', baseline('vspl'), SEEM_ROOTS, {'decode_head.spatial_prompt.offset': PROMPTS * 2}
    ),
    Method(
        'head tuning',
        baseline('head'),
        (*SEEM_ROOTS[:2], *tuned((*QUERIES, *STROKES[:3], 'layers', STROKES[3]))),
        {DECODER + name: count for name, count in HEADS.items()},
    ),
    Method('full tuning', baseline('full'), tuned(STROKES), everything_but(STROKES)),
    Method('SSPrompt on SAM', sam('ssprompt'), SEEM_ROOTS, SPATIAL | SEMANTIC),
    Method('CoOp on SAM', sam('coop'), TEXT_ROOTS, {WORDS: 16 * 16}),
    Method('LOCN on SAM', sam('locn'), TEXT_ROOTS, {WORDS: len(CLASSES) * 16}),
    spm('spm', matcher_parameters(len(CLASSES)) | head_parameters(len(CLASSES))),
    spm('head', head_parameters(len(CLASSES))),
    Method(
        'SAM-CP on a frozen backbone',
        frozen_samcp,
        ('backbone',),
        samcp_parameters(),
        batch=lambda: toy_samcp_batch(size=(HEIGHT, WIDTH)),
        base=lambda config: config['backbone']['init_cfg']['checkpoint'],
        scores=lambda result: result.pred_instances.scores,
    ),
]

every_method = pytest.mark.parametrize('method', METHODS, ids=lambda method: method.name)


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv('MMPROMPT_CACHE', str(tmp_path / 'cache'))
    torch.manual_seed(0)


def spelled(config, prefixed: bool):
    """Every component of mmprompt with its plain or its prefixed name."""
    if isinstance(config, dict):
        out = {k: spelled(v, prefixed) for k, v in config.items()}
        name = str(out.get('type', '')).removeprefix('mmprompt.')
        if name in mmprompt.registry.MODELS.module_dict:
            out['type'] = f'mmprompt.{name}' if prefixed else name
        return out
    return [spelled(v, prefixed) for v in config] if isinstance(config, list) else config


def train(model: nn.Module, batch: dict, steps: int) -> list[dict[str, bool]]:
    """Train on one batch; for each step, which parameters had a nonzero gradient."""
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-2, weight_decay=1e-2)
    wrapper = OptimWrapper(optimiser)
    moved = []

    def zero_grad() -> None:  # the wrapper calls it after the step
        moved.append(
            {k: p.grad is not None and bool(p.grad.any()) for k, p in model.named_parameters()}
        )
        optimiser.zero_grad()

    wrapper.zero_grad = zero_grad
    model.train()
    for _ in range(steps):
        losses = model.train_step(copy.deepcopy(batch), wrapper)
        assert all(value.isfinite() for value in losses.values())
    frozen = [p for k, p in model.named_parameters() if not p.requires_grad]
    assert not any(p in optimiser.state for p in frozen)
    return moved


def frozen_bytes(model: nn.Module) -> dict[str, bytes]:
    """Parameters and buffers under the frozen roots, not only those that a state dict holds."""
    roots = frozen_roots(model)
    everything = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    return {
        name: tensor.detach().numpy().tobytes()
        for name, tensor in everything.items()
        if under_roots(name, roots)
    }


def predict(model: nn.Module, batch: dict) -> list:
    model.eval()
    with torch.no_grad():
        return model.test_step(copy.deepcopy(batch))


@every_method
@pytest.mark.parametrize('scope', SCOPES)
@pytest.mark.parametrize('prefixed', [False, True], ids=['plain', 'prefixed'])
def test_builds_under_its_names_and_scopes(method, scope, prefixed, tmp_path):
    config = spelled(method.config(tmp_path), prefixed)
    with DefaultScope.overwrite_default_scope(scope):
        assert type(build(config)).__module__.startswith('mmprompt.methods')


@every_method
def test_trains_exactly_what_is_audited(method, tmp_path):
    model = build(method.config(tmp_path))
    assert tuple(frozen_roots(model)) == method.frozen
    trained = {k: p.numel() for k, p in model.named_parameters() if p.requires_grad}
    assert trained == method.trained


@every_method
def test_building_reads_no_file(method, tmp_path):
    config = method.config(tmp_path)
    base = Path(method.base(config))
    base.unlink()
    model = build(config)
    with pytest.raises(UserError, match=base.name):
        predict(model, method.batch())


@every_method
def test_frozen_part_stays_byte_identical(method, tmp_path):
    model = build(method.config(tmp_path))
    batch = method.batch()
    predict(model, batch)  # whatever is loaded late is loaded now
    before = frozen_bytes(model)
    train(model, batch, steps=10)
    assert before and frozen_bytes(model) == before
    assert all(p.grad is None for p in model.parameters() if not p.requires_grad)


@every_method
def test_every_trained_parameter_is_reached(method, tmp_path):
    model = build(method.config(tmp_path))
    moved = train(model, method.batch(), steps=3)
    reached = {name for step in moved for name, nonzero in step.items() if nonzero}
    assert reached == set(method.trained)


@every_method
def test_save_load_predict(method, tmp_path):
    config, batch = method.config(tmp_path), method.batch()
    model = build(config)
    untrained = predict(model, batch)
    train(model, batch, steps=10)
    expected = predict(model, batch)
    assert not torch.equal(method.scores(expected[0]), method.scores(untrained[0]))

    roots = frozen_roots(model)
    state = {k: v for k, v in model.state_dict().items() if not under_roots(k, roots)}
    from_state, from_file = build(config), build(config)
    from_state.load_state_dict(state, strict=False)
    from_file.load_prompt(save_files(model, tmp_path / 'learned'))
    for other in (from_state, from_file):
        for mine, theirs in zip(expected, predict(other, batch)):
            assert torch.equal(method.scores(mine), method.scores(theirs))


@every_method
def test_predicts_data_samples(method, tmp_path):
    model = build(method.config(tmp_path))
    batch = method.batch()
    results = predict(model, batch)
    assert len(results) == len(batch['inputs'])
    for result in results:
        assert type(result) is method.sample
        label = result.pred_sem_seg.data
        assert label.shape == (1, HEIGHT, WIDTH) and label.dtype == torch.int64
        assert 0 <= label.min() and label.max() < len(CLASSES)
        assert method.scores(result).isfinite().all()


@every_method
def test_switching_modes_leaves_the_frozen_part_in_eval(method, tmp_path):
    model = build(method.config(tmp_path))
    for mode in (True, False, True):
        model.train(mode)
        assert model.training is mode
        for root in method.frozen:
            part = operator.attrgetter(root)(model)
            if not isinstance(part, nn.Parameter):
                assert not any(m.training for m in part.modules())

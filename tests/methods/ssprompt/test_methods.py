"""One name per method: what each learns, where it starts, that it learns, and how many numbers."""

import copy
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.optim import OptimWrapper
from mmengine.registry import MODELS, DefaultScope
from prompt_files import prompt_of
from toy import CLASSES, PROMPTS, toy_batch, toy_segmentor, write_base

from mmprompt.common.audit import trained_parameters
from mmprompt.common.checkpoint import load_tensors
from mmprompt.common.errors import UserError
from mmprompt.common.prompt_file import PromptFile
from mmprompt.methods.ssprompt.methods import METHODS, choose
from mmprompt.methods.ssprompt.tuning import HEAD_PARTS, STROKE_PARTS

ROOT = Path(__file__).resolve().parents[3]
CONFIGS = ROOT / 'configs' / 'ssprompt'
FROZEN = [name for name in METHODS if name.startswith('zero-shot')]
LEARNED = [name for name in METHODS if name not in FROZEN]


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv('MMPROMPT_CACHE', str(tmp_path / 'cache'))
    torch.manual_seed(0)


@pytest.fixture
def base(tmp_path):
    return write_base(tmp_path / 'base.safetensors')


def build(base, method=None, **model):
    return MODELS.build(toy_segmentor(base, method=method, **model))


def train(model, steps, lr=1e-2) -> list[float]:
    """AdamW on one batch; the loss before each step."""
    optimiser = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=lr)
    losses = []
    for _ in range(steps):
        model.train()
        data = model.data_preprocessor(toy_batch(), training=True)
        loss = model(**data, mode='loss')['decode.loss_sem']
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    return losses


def scores(model) -> torch.Tensor:
    with torch.no_grad():
        results = model.eval().test_step(toy_batch())
    return torch.stack([result.seg_logits.data for result in results])


@pytest.mark.parametrize('method', LEARNED)
def test_a_few_steps_lower_the_loss(base, method):
    model = build(base, method)
    losses = train(model, 15, lr=1e-3 if method in ('head', 'full') else 1e-2)
    assert losses[-1] < losses[0] - 1e-3


@pytest.mark.parametrize(
    'method, start',
    [
        ('ssprompt', 'zero-shot'),
        ('spaprompt', 'zero-shot'),
        ('semprompt', 'zero-shot'),
        ('ssprompt-embedding-only', 'zero-shot'),
        ('head', 'zero-shot'),
        ('full', 'zero-shot'),
        ('vspl', 'zero-shot-grid'),
    ],
)
def test_step_zero_is_the_zero_shot_model_bit_for_bit(base, method, start):
    assert torch.equal(scores(build(base, method)), scores(build(base, start)))


@pytest.mark.parametrize('method', ['coop-m4', 'locn'])
def test_step_zero_of_learned_words_is_the_zero_shot_model_of_their_sentence(base, method):
    """For LOCN the names of one token; two mean vectors of others are no text."""
    names = [name for name in CLASSES if ' ' not in name and name != 'motorcycle']
    keys = dict(texts=[*names, *['sky'] * (19 - len(names))], templates=('a photo of a {}.',))
    found, expected = (scores(build(base, name, **keys)) for name in (method, 'zero-shot'))
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
    assert not torch.allclose(found, scores(build(base, 'zero-shot')), atol=1e-3)


def test_bare_names(base):
    expected = scores(build(base, 'zero-shot', templates=('{}',)))
    assert torch.equal(scores(build(base, 'zero-shot-bare', templates=None)), expected)


@pytest.mark.parametrize('method', METHODS)
def test_the_row_of_no_object_is_the_frozen_default(base, method):
    model = build(base, method)
    model.load_base()
    plain = build(base, 'zero-shot')
    plain.load_base()
    if method in LEARNED:
        train(model, 2)
    assert torch.equal(model.decode_head.no_object, plain.decode_head.no_object)
    data = model.data_preprocessor(toy_batch())
    queries = model.decode_head.decode(model.extract_feat(data['inputs']))
    last = model.decode_head.decoder.class_logits(queries.queries, plain.decode_head.no_object)
    torch.testing.assert_close(queries.pred_logits[..., -1:], last)


@pytest.mark.parametrize('method', ['coop', 'locn', 'vspl', 'head', 'full'])
def test_prompt_files_are_told_apart(base, tmp_path, method):
    model = build(base, method)
    train(model, 2)
    path = prompt_of(model).save(tmp_path / 'prompt.safetensors')
    prompt = PromptFile.load(path)
    count = sum(trained_parameters(model).values())
    assert sum(t.numel() for t in prompt.tensors.values()) == count
    assert path.stat().st_size < 4 * count + 32 * 1024
    twin = build(base, method)
    twin.load_prompt(path)
    assert torch.equal(scores(twin), scores(model))
    for other in {'coop', 'locn', 'vspl', 'head', 'full', 'ssprompt'} - {method}:
        with pytest.raises(UserError, match='expected a prompt of method'):
            build(base, other).load_prompt(path)


def test_prompt_file_of_another_sentence_or_kind_of_context(base):
    shared, own = (build(base, name) for name in ('coop', 'coop-csc'))
    with pytest.raises(UserError, match=r'semantic_prompt\.words \(19, 16, 16\)'):
        own.load_prompt(prompt_of(shared))
    config = dict(semantic_prompt=dict(type='LOCN', template='a {}.'))
    locn = build(base, 'locn', decode_head=config)
    with pytest.raises(UserError, match=r"semantic_prompt\.template 'a photo of a \{\}\.'"):
        build(base, 'locn').load_prompt(prompt_of(locn))


@pytest.mark.parametrize('method', ['head', 'full'])
def test_tuned_weights_outlive_the_base(base, method):
    """Whichever comes first, the base or the checkpoint of a run on it."""
    tuned = build(base, method)
    train(tuned, 3)
    learned = {k: v.clone() for k, v in tuned.state_dict().items()}
    expected = scores(tuned)
    early, late = build(base, method), build(base, method)
    early.load_base()
    for model in (early, late):
        model.load_state_dict(learned)
        assert torch.equal(scores(model), expected)
        assert all(torch.equal(v, learned[k]) for k, v in model.state_dict().items())


def test_head_tuning_builds_no_graph_below_the_heads(base):
    model = build(base, 'head')
    model.load_base()
    data = model.data_preprocessor(toy_batch())
    layers = model.decode_head.decoder.layers
    seen = []
    layers[-1].register_forward_hook(lambda module, args, out: seen.append(out.requires_grad))
    model.train()(**model.data_preprocessor(toy_batch(), training=True), mode='loss')
    assert seen == [False]
    assert not model.extract_feat(data['inputs']).mask_features.requires_grad
    trained = {name.split('.')[2] for name in trained_parameters(model)}
    assert trained == set(HEAD_PARTS)


def test_full_tuning_has_no_cache(base, tmp_path):
    cache = dict(root=str(tmp_path / 'features'))
    train(build(base, 'full', feature_cache=cache), 1)
    assert not (tmp_path / 'features').exists()
    with pytest.raises(ValueError, match="feature_cache must be None with decode_head.tune='full'"):
        build(base, feature_cache=cache, decode_head=dict(tune='full'))
    with pytest.raises(ValueError, match="tune must be one of .*found 'neck'"):
        build(base, decode_head=dict(tune='neck'))


def test_words_need_the_config_of_the_text_encoder(base):
    config = toy_segmentor(base, method='coop')
    del config.decode_head.text_encoder
    with pytest.raises(ValueError, match=r'CoOp reads words: give SEEMPromptHead\.text_encoder'):
        MODELS.build(config)
    config = toy_segmentor(base, method='coop')
    config.decode_head.text_encoder.num_heads = 4
    with pytest.raises(UserError, match=r'Correct decode_head\.text_encoder\.num_heads'):
        MODELS.build(config).load_base()


def test_training_nothing(base):
    model = build(base, 'zero-shot')
    optimiser = OptimWrapper(torch.optim.SGD(model.parameters(), lr=1.0))
    with pytest.raises(UserError, match='the method is zero-shot. Measure it with tools/test'):
        model.train().train_step(toy_batch(), optimiser)


def test_unknown_method(base):
    with pytest.raises(UserError, match="expected one of zero-shot, .*, full, found 'cocoop'"):
        build(base, 'cocoop')


def test_choosing_keeps_what_the_config_says():
    spatial = dict(type='mmprompt.SpaPrompt', num_prompts=4, source='query_pos', init='zero')
    semantic = dict(type='SemPrompt', renormalise=True)
    head = dict(spatial_prompt=spatial, semantic_prompt=semantic, decoder=dict(dim=8))
    model = dict(decode_head=head, templates=None, feature_cache=dict(root='auto'))
    before = copy.deepcopy(model)

    def prompts(method):
        changed = choose(method, model)['decode_head']
        return changed['spatial_prompt'], changed['semantic_prompt']

    frozen = dict(type='DefaultPrompt', num_prompts=4, source='query_pos')
    assert prompts('ssprompt') == (spatial | dict(type='SpaPrompt'), semantic)
    assert prompts('semprompt-embedding-only') == (frozen, semantic | dict(weight='fixed'))
    assert prompts('coop') == (frozen, dict(type='CoOp'))
    assert prompts('vspl') == (dict(type='VSPL', num_prompts=4), dict(type='DefaultPrompt'))
    assert choose('vspl', model)['decode_head']['decoder'] == dict(dim=8, object_tokens=True)
    assert prompts('full')[0] == dict(type='DefaultPrompt', num_prompts=0, source='query')
    assert choose('full', model)['feature_cache'] is None
    assert 'feature_cache' not in choose('head', model)
    assert model == before
    assert prompts('spaprompt')[0] == spatial | dict(type='SpaPrompt')
    bare = dict(decode_head=dict(decoder={}))
    assert choose('ssprompt', bare)['decode_head']['spatial_prompt'] == dict(type='SpaPrompt')


#: The paper's counts, and those of the other methods by hand, on Cityscapes with Focal-T.
PAPER = dict(ssprompt=61_047, coop=8_192, locn=9_728, semprompt=9_747, spaprompt=51_300) | {
    'zero-shot': 0,
    'zero-shot-bare': 0,
    'zero-shot-grid': 0,
    'ssprompt-embedding-only': 119 * 512,
    'spaprompt-embedding-only': 100 * 512,
    'semprompt-embedding-only': 19 * 512,
    'coop-m4': 2_048,
    'coop-csc': 155_648,
    'vspl': 200,
    'head': 4 * 512 * 512 + 3 * 512 + 2 * 512,
}


@pytest.mark.parametrize('method', PAPER)
def test_counts_on_cityscapes_at_published_size(method):
    """What ``--cfg-options model.method=…`` does to the config that people will type."""
    cfg = Config.fromfile(str(CONFIGS / 'focal-t_cityscapes_16shot.py'))
    cfg.merge_from_dict({'model.method': method})
    with torch.device('meta'), DefaultScope.overwrite_default_scope('mmprompt'):
        model = MODELS.build(cfg.model)
    assert sum(trained_parameters(model).values()) == PAPER[method]


def documented() -> dict[str, list[str]]:
    """The table of docs/methods.md: its cells by method."""
    lines = (ROOT / 'docs' / 'methods.md').read_text().splitlines()
    rows = [[cell.strip() for cell in line.split('|')[1:-1]] for line in lines if line[:3] == '| `']
    return {row[0].strip('`'): row[1:] for row in rows if 'model.' not in row[0]}


def test_every_method_is_documented_with_its_counts():
    found = documented()
    assert list(found) == list(METHODS)
    assert {name: int(row[1].replace(',', '')) for name, row in found.items()} == PAPER | {
        'full': 100_370_929
    }


@pytest.mark.parametrize('method', METHODS)
def test_counts_of_nano(method):
    cfg = Config.fromfile(str(CONFIGS / 'nano_streets-fog_16shot.py'))
    cfg.merge_from_dict({'model.method': method})
    with torch.device('meta'), DefaultScope.overwrite_default_scope('mmprompt'):
        model = MODELS.build(cfg.model)
    found = sum(trained_parameters(model).values())
    assert found == int(documented()[method][2].replace(',', ''))


def test_full_tuning_is_the_base_without_text_and_strokes():
    tensors, _ = load_tensors('mmprompt://seem-nano_streets')
    left_out = ('text_encoder.', *(f'decoder.{part}' for part in STROKE_PARTS))
    count = sum(v.numel() for k, v in tensors.items() if not k.startswith(left_out))
    assert count == int(documented()['full'][2].replace(',', ''))


def test_expected_numbers_by_method(base):
    numbers = dict(coop=16 * 16, locn=5)
    build(base, 'coop', expected_parameters=numbers)
    build(base, 'vspl', expected_parameters=numbers)
    with pytest.raises(ValueError, match='expected_parameters is 5, but 304 would be trained'):
        build(base, 'locn', expected_parameters=numbers)
    right = (PROMPTS + len(CLASSES)) * 17
    build(base, expected_parameters=dict(ssprompt=right))
    with pytest.raises(ValueError, match=f'expected_parameters is 1, but {right} would be trained'):
        build(base, expected_parameters=dict(ssprompt=1))


def test_a_method_is_held_to_its_closed_form(base, monkeypatch):
    monkeypatch.setattr('mmprompt.methods.ssprompt.segmentor.closed_form', lambda *args: 7)
    with pytest.raises(ValueError, match="method='coop' is 7, but 256 would be trained"):
        build(base, 'coop')

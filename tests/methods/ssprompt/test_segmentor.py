"""The segmentor: base loading, text encoder, cache, prompt file and class order."""

import gc
import json

import pytest
import torch
from mmengine.registry import MODELS
from prompt_files import prompt_of
from toy import CLASSES, PROMPTS, toy_batch, toy_seem, toy_segmentor, write_base

from mmprompt.common.checkpoint import fingerprint, load_tensors, save_tensors
from mmprompt.common.errors import UserError
from mmprompt.common.prompt_file import PromptFile
from mmprompt.foundation.seem import SEEM
from mmprompt.foundation.seem.text_encoder import SEEMTextEncoder
from mmprompt.methods.ssprompt.segmentor import SSPromptSegmentor

FROZEN = dict(type='DefaultPrompt', num_prompts=PROMPTS)


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv('MMPROMPT_CACHE', str(tmp_path / 'cache'))


@pytest.fixture
def base(tmp_path):
    return write_base(tmp_path / 'base.safetensors')


def build(base, **model) -> SSPromptSegmentor:
    return MODELS.build(toy_segmentor(base, **model))


def trained(base, batch=2, **model) -> SSPromptSegmentor:
    """Two large steps away from the default prompts."""
    model = build(base, **model)
    optimiser = torch.optim.AdamW(model.parameters(), lr=0.3)
    for _ in range(2):
        data = model.data_preprocessor(toy_batch(batch), training=True)
        optimiser.zero_grad()
        sum(v for k, v in model(**data, mode='loss').items() if 'loss' in k).backward()
        optimiser.step()
    return model


def scores(model, batch=2) -> torch.Tensor:
    with torch.no_grad():
        results = model.eval().test_step(toy_batch(batch))
    return torch.stack([result.seg_logits.data for result in results])


def test_base_is_copied_whole_and_in_place(base):
    model = build(base)
    before = dict(model.named_parameters())
    model.load_base()
    assert all(value is before[name] for name, value in model.named_parameters())
    tensors, metadata = load_tensors(base)
    state = model.state_dict()
    for name, tensor in tensors.items():
        place = name if name.startswith('backbone.') else f'decode_head.{name}'
        assert name.startswith('text_encoder.') or torch.equal(state[place], tensor)
    assert model.base_fingerprint == metadata['fingerprint'] == fingerprint(tensors)


def test_step_zero_is_seem_itself(base):
    """Through the segmentor: the whole SEEM with the names' embeddings, bit for bit.

    With one image, since the segmentor encodes each image of a batch on its own.
    """
    model = build(base)
    seem = SEEM.from_checkpoint(base)
    data = model.data_preprocessor(toy_batch(1))
    with torch.no_grad():
        plain = seem(data['inputs'], seem.text_encoder.class_embeddings(CLASSES, ('{}',)))
        prompted = model.decode_head.decode(model.extract_feat(data['inputs']))
    assert torch.equal(prompted.pred_logits, plain.pred_logits)
    assert torch.equal(prompted.pred_masks, plain.pred_masks)


def test_loading_late_does_not_undo_learning(base):
    """A state dict may come before the base: the prompt keeps it, in both parametrisations."""
    for decay_to in ('default', 'zero'):
        prompt = dict(type='SemPrompt', decay_to=decay_to)
        model = trained(base, decode_head=dict(semantic_prompt=prompt))
        other = build(base, decode_head=dict(semantic_prompt=prompt))
        other.load_state_dict(model.state_dict())
        other.init_weights()  # the Runner calls it after before_run
        assert torch.equal(scores(other), scores(model))


def test_text_encoder_is_never_kept(base, tmp_path, monkeypatch):
    alive = lambda: [x for x in gc.get_objects() if isinstance(x, SEEMTextEncoder)]  # noqa: E731
    built = []
    original = SEEMTextEncoder.__init__
    monkeypatch.setattr(
        SEEMTextEncoder,
        '__init__',
        lambda self, *a, **k: (built.append(1), original(self, *a, **k))[1],
    )
    gc.collect()
    start = len(alive())
    first = trained(base)
    gc.collect()
    assert len(built) == 1 and len(alive()) == start
    assert not any('text' in name for name in first.state_dict())
    second = trained(base)  # from the bank on disk
    assert len(built) == 1
    assert torch.equal(scores(first), scores(second))


def test_texts_and_templates_steer_the_default(base):
    plain, same, other = (
        build(base),
        build(base, texts=list(CLASSES)),
        build(base, texts=['sky', *CLASSES[1:-1], ['bicycle', 'road']]),
    )
    assert torch.equal(scores(plain), scores(same))
    assert not torch.allclose(scores(plain), scores(other))
    assert other.classes == CLASSES


def test_unknown_word_is_named(base):
    with pytest.raises(UserError, match='zeppelin'):
        build(base, texts=['zeppelin', *CLASSES[1:]]).load_base()


@pytest.mark.parametrize(
    'dtype, batch, tolerance',
    # The cache encodes each image on its own; a batch of one is therefore equal to the last bit.
    [('fp32', 1, 0.0), ('fp32', 2, 1e-5), ('bf16', 2, 0.2)],
)
def test_cache_in_training_and_testing(base, tmp_path, dtype, batch, tolerance):
    cache = dict(root=str(tmp_path / 'features'), dtype=dtype)
    plain, cached = trained(base, batch), trained(base, batch, feature_cache=cache)
    torch.testing.assert_close(
        scores(cached, batch), scores(plain, batch), atol=tolerance, rtol=tolerance
    )

    calls = []
    cached.backbone.register_forward_hook(lambda *args: calls.append(1))
    scores(cached, batch)
    assert not calls and list((tmp_path / 'features').rglob('*.safetensors'))


def test_image_side_builds_no_graph(base):
    model = build(base)
    features = model.extract_feat(torch.randn(1, 3, 32, 64))
    maps = [*features.multi_scale, features.mask_features]
    assert not any(m.requires_grad for m in maps)


def test_sizes_that_are_no_multiple_of_32(base):
    model = build(base).eval()
    with torch.no_grad():
        by_samples = model.test_step(toy_batch(size=(40, 72)))[0]
        bare = model.predict(torch.randn(1, 3, 41, 70))[0]
        raw = model(torch.randn(1, 3, 32, 64))
    assert by_samples.pred_sem_seg.data.shape == (1, 40, 72)
    assert bare.pred_sem_seg.data.shape == (1, 41, 70)
    assert raw.shape == (1, len(CLASSES), 8, 16)


@pytest.mark.parametrize(
    'name, spatial, semantic, count',
    [
        ('SSPrompt', 'SpaPrompt', 'SemPrompt', (PROMPTS + len(CLASSES)) * 17),
        ('SpaPrompt', 'SpaPrompt', 'DefaultPrompt', PROMPTS * 17),
        ('SemPrompt', 'DefaultPrompt', 'SemPrompt', len(CLASSES) * 17),
    ],
)
def test_prompt_file(base, tmp_path, name, spatial, semantic, count):
    head = dict(
        spatial_prompt=dict(type=spatial, num_prompts=PROMPTS), semantic_prompt=dict(type=semantic)
    )
    model = trained(base, decode_head=head)
    path = prompt_of(model).save(tmp_path / 'prompt.safetensors')
    prompt = PromptFile.load(path)
    assert sum(t.numel() for t in prompt.tensors.values()) == count
    assert path.stat().st_size <= 4 * count + 16 * 1024
    assert (prompt.method, prompt.classes) == (name, CLASSES)
    assert prompt.recipe['spatial_prompt'] == head['spatial_prompt']
    other = build(base, decode_head=head)
    other.load_prompt(path)
    assert torch.equal(scores(other), scores(model))


def refuses(model, prompt, words):
    before = scores(model)
    with pytest.raises(UserError, match=words):
        model.load_prompt(prompt)
    assert torch.equal(scores(model), before)


def test_prompt_file_of_another_model_is_refused(base, tmp_path):
    def spatial(**keys):
        prompt = dict(type='SpaPrompt', num_prompts=PROMPTS, **keys)
        return build(base, decode_head=dict(spatial_prompt=prompt))

    def semantic(**keys):
        return build(base, decode_head=dict(semantic_prompt=dict(type='SemPrompt', **keys)))

    path = prompt_of(trained(base)).save(tmp_path / 'prompt.safetensors')
    other_base = write_base(tmp_path / 'other.safetensors', seed=1)
    swapped = (CLASSES[1], CLASSES[0], *CLASSES[2:])
    refused = [
        (build(other_base), 'fingerprint'),
        (build(base, classes=swapped), 'another order'),
        (build(base, decode_head=dict(spatial_prompt=FROZEN)), 'SemPrompt.*SSPrompt'),
        (build(base, templates=['{}', 'sky {}']), r'sky \{\}'),
        (
            build(base, decode_head=dict(semantic_prompt=dict(type='SemPrompt', decay_to='zero'))),
            'semantic_prompt.learned',
        ),
        (
            build(base, decode_head=dict(spatial_prompt=dict(type='SpaPrompt', num_prompts=4))),
            r'\(4, 16\).*\(9, 16\)',
        ),
        (spatial(source='query_pos'), "spatial_prompt.source 'query_pos'.*found 'query'"),
        (semantic(renormalise=True), 'semantic_prompt.renormalise True.*found False'),
    ]
    for model, words in refused:
        refuses(model, path, words)
    fixed = spatial(weight=dict(type='fixed', value=0.5))
    path = prompt_of(fixed).save(tmp_path / 'fixed.safetensors')
    other = dict(type='fixed', value=0.25)
    refuses(spatial(weight=other), path, 'spatial_prompt.weight.value 0.25.*found 0.5')
    spatial(weight='fixed').load_prompt(path)  # 0.5 is the default


def test_reading_of_a_recipe_without_it(base):
    """The configs in the recipe say the same."""
    prompt = prompt_of(build(base))
    del prompt.recipe['reading']
    build(base).load_prompt(prompt)
    head = dict(semantic_prompt=dict(type='SemPrompt', renormalise=True))
    refuses(build(base, decode_head=head), prompt, 'renormalise')


def test_nothing_learned_nothing_exported(base):
    head = dict(spatial_prompt=FROZEN, semantic_prompt=dict(type='DefaultPrompt'))
    model = build(base, decode_head=head)
    assert model.method == 'zero-shot'
    assert model.export_files() == {}


def test_class_order_against_the_dataset(base):
    model = build(base)
    model.check_dataset(dict(classes=CLASSES))
    model.check_dataset({})
    with pytest.raises(UserError, match="class 1 is 'sidewalk' in the model and 'sky'"):
        model.check_dataset(dict(classes=(CLASSES[0], 'sky', *CLASSES[2:])))
    with pytest.raises(UserError, match='class 5 is .pole. in the model and missing'):
        model.check_dataset(dict(classes=CLASSES[:5]))


def test_missing_base_names_its_address(tmp_path):
    model = build(tmp_path / 'seem.pt', base_address='https://example.org/seem.pt')
    with pytest.raises(UserError, match=r'seem\.pt.*https://example\.org'):
        model.load_base()


@pytest.mark.parametrize(
    'part, key, value',
    [
        ('decoder', 'num_heads', 4),
        ('decoder', 'num_layers', 2),
        ('pixel_decoder', 'num_groups', 8),
        ('pixel_decoder', 'num_heads', 4),
        ('backbone', 'block', 'postnorm'),
        ('backbone', 'stem_padding', 2),
    ],
)
def test_base_of_another_architecture_is_refused(base, part, key, value):
    seem = toy_seem()
    seem[part][key] = value
    with pytest.raises(UserError, match=rf'{part}\.{key} .*found {value!r}.*Correct .*{part}'):
        MODELS.build(toy_segmentor(base, seem)).load_base()


def test_base_that_lacks_a_part_is_refused(base, tmp_path):
    tensors, metadata = load_tensors(base)
    cases = (('text_encoder.', 'no text encoder'), ('decoder.pn', 'missing 1: decode_'))
    for prefix, words in cases:
        kept = {k: v for k, v in tensors.items() if not k.startswith(prefix)}
        metadata['fingerprint'] = fingerprint(kept)
        with pytest.raises(UserError, match=words):
            build(save_tensors(tmp_path / 'part.safetensors', kept, metadata)).load_base()


def test_defaults_and_values_of_training_alone_are_no_difference(base):
    seem = toy_seem(object_tokens=True)
    seem['backbone'].update(drop_path_rate=0.0, layer_scale=1.0, type='FocalNet', depths=[1] * 4)
    seem['backbone'].pop('block')
    seem['decoder'].update(logit_scale=3.0)
    MODELS.build(toy_segmentor(base, seem)).load_base()


def test_cache_of_another_architecture_is_not_used(base, tmp_path):
    """Even where the base says nothing about its config."""
    tensors, metadata = load_tensors(base)
    config = json.loads(metadata['config'])
    metadata['config'] = json.dumps(dict(text_encoder=config['text_encoder']))
    mute = save_tensors(tmp_path / 'mute.safetensors', tensors, metadata)
    seem = toy_seem()
    seem['pixel_decoder']['num_groups'] = 8
    cache = dict(root=str(tmp_path / 'features'))
    image = torch.randn(1, 3, 32, 64)
    wrong = MODELS.build(toy_segmentor(mute, seem, feature_cache=cache)).extract_feat(image)
    right = build(mute, feature_cache=cache).extract_feat(image)
    plain = build(mute).extract_feat(image)
    assert torch.equal(right.mask_features, plain.mask_features)
    assert not torch.equal(right.mask_features, wrong.mask_features)


def test_expected_number_of_parameters(base):
    right = (PROMPTS + len(CLASSES)) * 17
    build(base, expected_parameters=right)
    with pytest.raises(ValueError, match=f'expected_parameters is 61,047, but {right} '):
        build(base, expected_parameters=61_047)
    with pytest.raises(ValueError, match='19 classes, but decode_head.num_classes is 18'):
        build(base, decode_head=dict(num_classes=18))

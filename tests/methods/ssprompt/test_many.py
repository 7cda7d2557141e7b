"""Many prompt files on one frozen model, against the segmentor that each belongs to."""

import math

import numpy as np
import pytest
import torch
from prompt_files import prompt_of
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from toy import CLASSES, PROMPTS, stir, toy_seem, toy_segmentor

from mmprompt.common.errors import UserError
from mmprompt.common.prompt_file import PromptFile
from mmprompt.foundation.seem import SEEM
from mmprompt.foundation.seem.checkpoint import save_base
from mmprompt.foundation.seem.templates import BARE_TEMPLATES
from mmprompt.methods.ssprompt.many import ManyPrompts
from mmprompt.methods.ssprompt.prompt_sets import read_prompts
from mmprompt.registry import MODELS

ADE = ('road', ('car', 'truck'), 'sky', 'building', 'person')
DEFAULT, SEM = dict(type='DefaultPrompt'), dict(type='SemPrompt')
QUERIES = dict(type='DefaultPrompt', num_prompts=PROMPTS)
KINDS = dict(
    both=dict(semantic_prompt=SEM),
    content_and_position=dict(
        spatial_prompt=dict(type='SpaPrompt', num_prompts=PROMPTS, source='both', weight='clamp')
    ),
    positions=dict(
        spatial_prompt=dict(type='SpaPrompt', num_prompts=PROMPTS, source='query_pos'),
        semantic_prompt=DEFAULT,
    ),
    grid=dict(spatial_prompt=dict(type='SpaPrompt', num_prompts=PROMPTS, source='grid')),
    classes_alone=dict(
        spatial_prompt=QUERIES, semantic_prompt=dict(type='SemPrompt', renormalise=True)
    ),
    other_classes=dict(spatial_prompt=QUERIES, semantic_prompt=SEM),
    classes_on_a_grid=dict(
        spatial_prompt=dict(type='DefaultPrompt', num_prompts=PROMPTS, source='grid')
    ),
    vspl=dict(spatial_prompt=dict(type='VSPL', num_prompts=PROMPTS), semantic_prompt=DEFAULT),
    coop=dict(spatial_prompt=QUERIES, semantic_prompt=dict(type='CoOp', num_tokens=4)),
    locn=dict(spatial_prompt=QUERIES, semantic_prompt=dict(type='LOCN', template='a {}.')),
)


def toy_base(path, seed=0):
    config = toy_seem()
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = SEEM(**config)
    stir(model.decoder)
    return save_base(path, model, config)


def segmentor(base, kind):
    seem = toy_seem(object_tokens='grid' in kind or kind == 'vspl')
    texts = ADE if kind == 'other_classes' else None
    classes = [t if isinstance(t, str) else t[0] for t in ADE] if texts else list(CLASSES)
    config = toy_segmentor(base, seem, classes=classes, texts=texts, decode_head={})
    config.decode_head.decoder = seem['decoder']
    config.decode_head.text_encoder = seem['text_encoder']
    for part, given in KINDS[kind].items():  # one by one: merging would keep arguments
        config.decode_head[part] = given
    model = MODELS.build(config).eval()
    model.load_base()
    generator = torch.Generator().manual_seed(len(kind))
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                step = 0.1 if parameter.shape[-1] == 2 else 1.0
                parameter += step * torch.randn(parameter.shape, generator=generator)
                if parameter.shape[-1] == 2:
                    parameter.clamp_(-1 / 6, 1 / 6)
    return model


@pytest.fixture(scope='module')
def base(tmp_path_factory):
    return toy_base(tmp_path_factory.mktemp('base') / 'base.safetensors')


@pytest.fixture(scope='module')
def models(base):
    return {kind: segmentor(base, kind) for kind in KINDS}


@pytest.fixture(scope='module')
def files(models, tmp_path_factory):
    folder = tmp_path_factory.mktemp('prompts')
    return {
        kind: prompt_of(model).save(folder / f'{kind}.safetensors')
        for kind, model in models.items()
    }


def pictures():
    random = np.random.default_rng(0)
    return [random.integers(256, size=(*size, 3), dtype=np.uint8) for size in ((48, 80), (64, 96))]


def decoded(many, images):
    """(logits, masks) by set."""
    features = many.seem.encode_image(images)
    return {
        name: (
            many.seem.decoder.class_logits(output.queries, many.sets[name].semantic),
            output.pred_masks,
        )
        for variant, output in many._decoded(features)
        for name in many._variants[variant][1]
    }


def test_every_kind_of_prompt_gives_what_its_own_segmentor_gives(base, files, models):
    texts = {'zero-shot': CLASSES}
    many = ManyPrompts(base, files, texts, BARE_TEMPLATES, dtype=torch.float64)
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2, 3, 64, 96, dtype=torch.float64, generator=generator)
    found = decoded(many, x)
    assert set(found) == {*KINDS, 'zero-shot'}
    zero = found.pop('zero-shot')
    for kind, (logits, masks) in found.items():
        model = models[kind].double()
        with torch.no_grad():
            output = model.decode_head.decode(model.extract_feat(x))
        scale = float(output.pred_masks.abs().max())
        # The segmentor took its grid in float32; all else is double on both sides.
        bound = 1e-7 if 'grid' in kind or kind == 'vspl' else 1e-12
        assert (logits - output.pred_logits).abs().max() < 10 * bound
        assert (masks - output.pred_masks).abs().max() < bound * scale
        changed = kind == 'other_classes' or not torch.allclose(logits, zero[0], atol=1e-3)
        assert changed or not torch.allclose(masks, zero[1], atol=1e-3 * scale), kind
        assert many.sets[kind].classes == models[kind].classes
        model.float()


@pytest.mark.parametrize('dtype', [torch.float64, torch.float32], ids=str)
def test_all_at_once_is_one_by_one(base, files, dtype):
    bound = 1e-12 if dtype == torch.float64 else 1e-4
    together = ManyPrompts(base, files, dtype=dtype)
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2, 3, 64, 96, dtype=dtype, generator=generator)
    found = decoded(together, x)
    for kind, file in files.items():
        alone = decoded(ManyPrompts(base, {kind: file}, dtype=dtype), x)[kind]
        for one, other in zip(found[kind], alone):
            assert (one - other).abs().max() <= bound * max(1.0, float(other.abs().max()))


@pytest.mark.parametrize('task', ['semantic', 'panoptic', 'instance'])
def test_answers_of_unequal_images_are_those_of_single_ones(base, files, task):
    chosen = {kind: files[kind] for kind in ('both', 'other_classes', 'grid')}
    many = ManyPrompts(base, chosen, dtype=torch.float64)
    options = dict(score_threshold=0.01, overlap_threshold=0.0) if task == 'panoptic' else {}
    options = dict(top_k=5) if task == 'instance' else options
    things = dict(both=[11, 13], grid=[13], other_classes=[1])
    images = pictures()
    found = many.segment(images, task, things, 40, **options)
    for image, answers in zip(images, found):
        assert list(answers) == list(chosen)
        for kind, file in chosen.items():
            alone = ManyPrompts(base, {kind: file}, dtype=torch.float64)
            (single,) = alone.segment([image], task, {kind: things[kind]}, 40, **options)
            for one, other in zip(answers[kind], single[kind]):
                if one.is_floating_point():
                    torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-9)
                else:
                    assert torch.equal(one, other)
            assert answers[kind][0].shape[-2:] == image.shape[:2]


def test_class_lists_alone_share_one_run_of_the_decoder(base, files, monkeypatch):
    from mmprompt.methods.ssprompt import many as module

    runs, encodings = [], []
    real = module.decode_many
    monkeypatch.setattr(
        module, 'decode_many', lambda *args: runs.append(len(args[2])) or real(*args)
    )
    alike = {kind: files[kind] for kind in ('classes_alone', 'other_classes', 'coop', 'locn')}
    many = ManyPrompts(base, alike, {'words': ADE})
    encode = many.seem.encode_image
    monkeypatch.setattr(many.seem, 'encode_image', lambda x: encodings.append(len(x)) or encode(x))
    many.segment(pictures()[:1])
    assert (runs, encodings) == ([1], [1])
    many = ManyPrompts(base, {**alike, 'both': files['both'], 'positions': files['positions']})
    runs.clear()
    many.segment(pictures()[:1])
    assert runs == [3]
    monkeypatch.setattr(module, 'ATTENTION_VALUES', 1)
    runs.clear()
    few = many.segment(pictures()[:1])
    assert runs == [1, 1, 1] and set(few[0]) == set(many.sets)


def test_a_prompt_of_another_base_is_refused_by_name(files, tmp_path):
    other = toy_base(tmp_path / 'other.safetensors', seed=1)
    with pytest.raises(UserError, match=r'both\.safetensors: expected a prompt for the base'):
        ManyPrompts(other, files)


def rewritten(path, out, change):
    """A prompt file with other metadata or tensors."""
    with safe_open(path, 'pt') as file:
        metadata = file.metadata()
    tensors = load_file(path)
    change(metadata, tensors)
    save_file(tensors, out, metadata)
    return out


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        (lambda m, t: m.update(format='9'), 'format 1, found format 9'),
        (lambda m, t: m.update(recipe='{}'), 'expected a recipe with spatial_prompt and semantic'),
        (lambda m, t: m.update(recipe=m['recipe'].replace('SemPrompt', 'NoPrompt')), 'NoPrompt'),
        (lambda m, t: t.update({'decoder.class_embed': torch.zeros(2)}), 'parts of the model'),
        (lambda m, t: t.pop('semantic_prompt.offset'), r'semantic_prompt\.offset \(19, 16\)'),
        (lambda m, t: m.update(recipe=m['recipe'].replace('"road"', '"zyzzyva"')), 'zyzzyva'),
    ],
    ids=['newer', 'no recipe', 'unknown type', 'tuned head', 'missing tensor', 'unknown word'],
)
def test_a_file_that_cannot_be_used_is_named(base, files, tmp_path, change, message):
    path = rewritten(files['both'], tmp_path / 'strange.safetensors', change)
    with pytest.raises(UserError, match=message) as caught:
        ManyPrompts(base, [path])
    assert 'strange.safetensors' in str(caught.value)


def test_a_cut_file_is_named(base, files, tmp_path):
    path = tmp_path / 'cut.safetensors'
    path.write_bytes(files['both'].read_bytes()[:-9])
    with pytest.raises(UserError, match=r'cut\.safetensors'):
        ManyPrompts(base, [path])


def test_names_come_from_files_or_their_folders(files, tmp_path):
    def put(folder, name='prompt.safetensors'):
        path = tmp_path / folder / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(files['both'].read_bytes())
        return path

    paths = [put('fog'), put('night'), put('night', 'ade.safetensors')]
    assert list(read_prompts(paths)) == ['fog', 'night', 'ade']
    assert list(read_prompts({'a': paths[0]})) == ['a']
    assert list(read_prompts(paths[2])) == ['ade']
    assert isinstance(read_prompts(paths)['fog'], PromptFile)
    with pytest.raises(UserError, match="two named 'fog'"):
        read_prompts([paths[0], put('fog', 'fog.safetensors')])


def test_what_cannot_be_predicted_is_said(base, files):
    with pytest.raises(UserError, match='neither prompt files nor class names'):
        ManyPrompts(base)
    with pytest.raises(UserError, match="two named 'a'"):
        ManyPrompts(base, {'a': files['both']}, {'a': ['road']})
    with pytest.raises(UserError, match="prompt set 'mine': .*zyzzyva"):
        ManyPrompts(base, texts={'mine': ['road', 'zyzzyva']})
    many = ManyPrompts(base, [files['both']])
    with pytest.raises(UserError, match="expected one of semantic, panoptic, instance, found 'x'"):
        many.segment(pictures(), 'x')
    assert math.isfinite(float(many.segment(pictures()[:1])[0]['both'][1].sum()))

"""Public names and our base files."""

import json
import math
from pathlib import Path

import pytest
import torch
from foundation import rule
from foundation.test_seem import toy_config
from mmengine import Config

from mmprompt.common.checkpoint import save_tensors
from mmprompt.common.errors import UserError
from mmprompt.foundation.seem import SEEM
from mmprompt.foundation.seem.architecture import check_architecture
from mmprompt.foundation.seem.checkpoint import from_reference, read_base, save_base
from mmprompt.foundation.seem.public_files import PUBLIC_FILES, variant_of
from mmprompt.foundation.seem.reference_keys import IGNORED, to_ours, to_reference

MODELS_DIR = rule.DATA.parents[2] / 'configs/_base_/models'
LEFT_OUT = {'dilation_kernel', 'criterion.empty_weight'}


def shapes_of(variant: str) -> dict[str, tuple[int, ...]]:
    text = (rule.DATA / f'keys_{variant}.json').read_text()
    return {key: tuple(shape) for key, shape in json.loads(text).items()}


def on_meta(shapes) -> dict[str, torch.Tensor]:
    return {key: torch.empty(shape, device='meta') for key, shape in shapes.items()}


@pytest.mark.parametrize('variant, config', [('focalt', 'focal-t'), ('focall', 'focal-l')])
def test_public_keys_and_shapes(variant, config):
    public = shapes_of(variant)
    assert {key for key in public if key.startswith(IGNORED)} == LEFT_OUT
    expected = {key: shape for key, shape in public.items() if key not in LEFT_OUT}
    parts = Config.fromfile(MODELS_DIR / f'{config}.py').seem
    with torch.device('meta'):
        configured = SEEM(**parts)
    recognised = SEEM.from_checkpoint(on_meta(public))
    for model in (configured, recognised):
        state = model.state_dict()
        assert {to_reference(key): tuple(v.shape) for key, v in state.items()} == expected
        assert all(to_ours(to_reference(key)) == key for key in state)
    assert str(configured) == str(recognised).replace('rate=0.0', 'rate=0.3')
    # What a pre-trainer or a prompt's config asks of its base.
    _, found = from_reference(on_meta(public), variant)
    check_architecture(parts, dict(configured.named_children()), found, variant)


HEAD = 'sem_seg_head.predictor.'


def test_everything_that_does_not_fit_is_listed_with_counts():
    public = shapes_of('focalt')
    del public[HEAD + 'pn_indicator.weight']
    public[HEAD + 'query_embed.weight'] = (100, 512)
    public.update({f'sem_seg_head.surprise.{i}': (1,) for i in range(7)})
    with pytest.raises(UserError) as caught:
        SEEM.from_checkpoint(on_meta(public))
    text = str(caught.value)
    assert f'missing 1: {HEAD}pn_indicator.weight;' in text
    shown = ', '.join(f'sem_seg_head.surprise.{i}' for i in range(5))
    assert f'extra 7: {shown} and 2 more;' in text
    assert (
        f'other shape 1: {HEAD}query_embed.weight (expected (101, 512), found (100, 512))' in text
    )


@pytest.mark.parametrize('source', [None, 3, ['weights.pt']])
def test_what_is_neither_path_nor_dict_is_refused(source):
    with pytest.raises(UserError, match=type(source).__name__):
        SEEM.from_checkpoint(source)


def test_a_number_of_another_kind_is_refused():
    public = on_meta(shapes_of('focalt'))
    public[HEAD + 'class_embed'] = public[HEAD + 'class_embed'].to(torch.int8)
    with pytest.raises(UserError, match=r'class_embed \(expected torch.float32, found torch.int8'):
        SEEM.from_checkpoint(public)


def test_a_dict_of_ours_needs_its_file():
    with pytest.raises(UserError, match='sem_seg_head'):
        SEEM.from_checkpoint({'decoder.query_feat': torch.zeros(1)})


@pytest.fixture
def base(tmp_path):
    torch.manual_seed(0)
    config = toy_config()
    model = SEEM(**config).eval()
    path = save_base(tmp_path / 'base.safetensors', model, config, dict(iterations=3))
    return path, model


def test_base_file_round_trip(base):
    path, model = base
    loaded = SEEM.from_checkpoint(path)
    assert not loaded.training
    for (name, a), (other, b) in zip(model.state_dict().items(), loaded.state_dict().items()):
        assert name == other and torch.equal(a, b)
    names = ['road', 'car']
    rows = model.text_encoder.class_embeddings(names, ('{}.',))
    torch.testing.assert_close(loaded.text_encoder.class_embeddings(names, ('{}.',)), rows)
    x = torch.randn(1, 3, 32, 32)
    torch.testing.assert_close(loaded(x, rows).pred_masks, model(x, rows).pred_masks)
    assert read_base(path)[1]['record'] == dict(iterations=3)
    assert SEEM.from_checkpoint(path, text_encoder=False).text_encoder is None


def tiny_public(seed: int = 0) -> dict[str, torch.Tensor]:
    """A SEEM in the layout of the public files, whole but for its sizes; 1 M numbers."""
    config = tiny_config()
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = SEEM(**config)
    state = {to_reference(key): value for key, value in model.state_dict().items()}
    leftovers = {'criterion.empty_weight': torch.ones(3), 'dilation_kernel': torch.ones(1, 1, 3, 3)}
    return {**state, **leftovers}


def tiny_config() -> dict:
    """Eight heads everywhere and CLIP's whole vocabulary, as in the public files."""
    config = toy_config()
    config['backbone'].update(focal_windows=(3,) * 4, mlp_ratio=1.0, block='dw')
    config['pixel_decoder'].update(dim=32, mask_dim=32, num_heads=8, num_groups=32)
    config['decoder'].update(
        dim=32, mask_dim=32, proj_dim=32, num_heads=8, num_queries=10, num_layers=3
    )
    config['text_encoder'] = dict(
        type='mmprompt.SEEMTextEncoder', width=16, num_layers=1, context_length=20, dim=32
    )
    return config


@pytest.fixture(scope='module')
def public():
    return tiny_public()


def same(model, public) -> bool:
    state = model.state_dict()
    assert {to_reference(key) for key in state} == set(public) - LEFT_OUT
    return all(torch.equal(value, public[to_reference(key)]) for key, value in state.items())


def test_a_public_file_is_recognised_by_its_keys(public, tmp_path):
    """Whatever its name says: files of one name have differed."""
    torch.save(public, tmp_path / 'seem_focall_v1.pt')
    model = SEEM.from_checkpoint(tmp_path / 'seem_focall_v1.pt')
    assert same(model, public) and not model.training
    tensors, metadata = read_base(tmp_path / 'seem_focall_v1.pt')
    assert set(tensors) == set(model.state_dict())
    for part, values in tiny_config().items():
        for name, value in metadata['config'][part].items():
            expected = values.get(name, value)
            assert (list(expected) if isinstance(expected, tuple) else expected) == value
    assert variant_of(metadata['config']) == 'custom'


def test_a_dict_is_copied(public):
    given = {key: value.clone() for key, value in public.items()}
    model = SEEM.from_checkpoint(given)
    for value in given.values():
        value.zero_()
    assert same(model, public)


@pytest.mark.parametrize(
    'stored, computed',
    [
        ((torch.float16,), torch.float32),
        ((torch.bfloat16, torch.float32), torch.float32),
        ((torch.float64,), torch.float64),
    ],
)
def test_precision(public, stored, computed, tmp_path):
    halved = {k: v.to(stored[i % len(stored)]) for i, (k, v) in enumerate(public.items())}
    torch.save(halved, tmp_path / 'seem.pt')
    for source in (halved, tmp_path / 'seem.pt'):
        model = SEEM.from_checkpoint(source, text_encoder=False)
        assert {v.dtype for v in model.state_dict().values()} == {computed}
        for key, value in model.state_dict().items():
            assert torch.equal(value, halved[to_reference(key)].to(computed))
    out = model(torch.rand(1, 3, 32, 64, dtype=computed), torch.rand(3, 32, dtype=computed))
    assert out.pred_masks.isfinite().all()


def x_decoder(public):
    left = {k: v for k, v in public.items() if 'mask_sptial_embed' not in k}
    return {**left, HEAD + 'caping_embed': torch.ones(2, 2)}


def sam_vit(public):
    left = {k: v for k, v in public.items() if not k.startswith('backbone.')}
    names = ('backbone.patch_embed.proj.weight', 'backbone.blocks.0.attn.rel_pos_h')
    return {**left, **{name: torch.ones(2, 2) for name in names}}


MISHAPS = {
    'model': (lambda p: dict(model=p, epoch=3), "wrapped in 'model'.*\\['model'\\]"),
    'state_dict': (lambda p: dict(state_dict=p), "wrapped in 'state_dict'.*\\['state_dict'\\]"),
    'training': (
        lambda p: dict(meta={}, state_dict={'seem.decoder.query_feat': torch.ones(1)}),
        'SEEMPretrainer.*ExportBaseHook',
    ),
    'module.': (
        lambda p: {f'module.{k}': v for k, v in p.items()},
        r"prefix 'module\.'.*removeprefix\('module\.'\)",
    ),
    'model.': (lambda p: {f'model.{k}': v for k, v in p.items()}, r"prefix 'model\.'"),
    'values': (lambda p: {**p, 'epoch': 3}, r'1 other values: epoch \(int\)'),
    'x-decoder': (x_decoder, 'found an X-Decoder.*caping_embed.*Focal-L.*seem_focall_v0'),
    'sam vit': (sam_vit, 'SAM ViT.*rel_pos_h.*Focal-T.*seem_focalt_v0'),
    'numbers': (lambda p: {0: torch.ones(1)}, 'the key 0'),
    'other model': (lambda p: {'layer1.0.weight': torch.ones(1)}, 'layer1.0.weight'),
}


@pytest.mark.parametrize('mishap', MISHAPS)
def test_mishaps_are_told_apart(public, mishap, tmp_path):
    spoil, message = MISHAPS[mishap]
    torch.save(spoil(public), tmp_path / 'mine.pt')
    with pytest.raises(UserError, match=message):
        SEEM.from_checkpoint(spoil(public))
    with pytest.raises(UserError, match=f'mine.pt.*{message}'):
        SEEM.from_checkpoint(tmp_path / 'mine.pt')


POINTER = b'version https://git-lfs.github.com/spec/v1\noid sha256:871a\nsize 658792514\n'
DOWNLOADS = {
    'pointer': (lambda whole: POINTER, 'Git LFS pointer'),
    'page': (lambda whole: b'\n<!DOCTYPE html>\n<html><body>Not found</body></html>', 'a web page'),
    'message': (lambda whole: b'\xef\xbb\xbf<?xml version="1.0"?><Error>', 'a web page'),
    'empty': (lambda whole: b'', 'an empty file'),
    'cut': (lambda whole: whole[: len(whole) // 2], 'cut.*658,792,514 bytes, this file [0-9,]+'),
    'noise': (lambda whole: bytes(5000), '658,792,514 bytes, this file 5,000'),
}


@pytest.mark.parametrize('download', DOWNLOADS)
def test_failed_downloads_are_told_apart(public, download, tmp_path):
    path = tmp_path / 'seem_focalt_v0.pt'
    torch.save({k: v for k, v in public.items() if 'lang_encoder' not in k}, path)
    spoil, message = DOWNLOADS[download]
    path.write_bytes(spoil(path.read_bytes()))
    with pytest.raises(UserError, match=f'seem_focalt_v0.pt.*{message}.*https://huggingface.co/xd'):
        SEEM.from_checkpoint(path)


def test_a_missing_public_file_names_its_address(tmp_path):
    with pytest.raises(UserError, match=r'Download.*main/seem_focall_v0\.pt.*1,365,136,278'):
        SEEM.from_checkpoint(tmp_path / 'seem_focall_v0.pt')
    with pytest.raises(UserError, match=r'convert_seem\.py seem_focall_v0\.pt'):
        SEEM.from_checkpoint(tmp_path / 'seem_focall_v0.safetensors')


def test_safetensors_under_another_name(base, tmp_path):
    renamed = base[0].rename(tmp_path / 'base.pt')
    with pytest.raises(UserError, match='Rename it'):
        SEEM.from_checkpoint(renamed)


class Malicious:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


@pytest.mark.parametrize('zipped', [True, False])
def test_nothing_in_a_pickle_is_executed(public, zipped, tmp_path):
    content = {**public, 'criterion.empty_weight': Malicious(tmp_path / 'executed')}
    torch.save(content, tmp_path / 'seem.pt', _use_new_zipfile_serialization=zipped)
    with pytest.raises(UserError, match='Nothing in it was executed'):
        SEEM.from_checkpoint(tmp_path / 'seem.pt')
    assert not (tmp_path / 'executed').exists()
    torch.load(tmp_path / 'seem.pt', weights_only=False)
    assert (tmp_path / 'executed').exists()  # so the file would have done it


@pytest.mark.parametrize('name, variant', [('focalt', 'Focal-T'), ('focall', 'Focal-L')])
def test_the_table_of_public_files(name, variant):
    """The sizes are those of float32 tensors and a little around them."""
    shapes = shapes_of(name)
    expected = 4 * sum(math.prod(shape) for shape in shapes.values())
    files = [f for f in PUBLIC_FILES if f.variant == variant]
    assert [f.name for f in files] == [f'seem_{name}_v0.pt', f'seem_{name}_v1.pt']
    assert all(expected < f.size < expected + 700 * len(shapes) for f in files)


def test_every_public_file_is_told_apart():
    assert all(len(bytes.fromhex(f.sha256)) == 32 for f in PUBLIC_FILES)
    assert len({f.sha256 for f in PUBLIC_FILES}) == len(PUBLIC_FILES)
    assert {f.variant for f in PUBLIC_FILES if not f.supported} == {'SAM-ViT-B', 'SAM-ViT-L'}


@pytest.mark.parametrize(
    'name, variant',
    [
        ('focalt', 'Focal-T'),
        ('focall', 'Focal-L'),
        ('davitd3', 'DaViT-d3'),
        ('davitd5', 'DaViT-d5'),
    ],
)
def test_the_variant_is_read_off_the_keys(name, variant):
    _, config = from_reference(on_meta(shapes_of(name)), name)
    assert variant_of(config) == variant


@pytest.mark.parametrize('damage', ['weights', 'kind', 'format'])
def test_a_wrong_base_file_is_refused(base, damage, tmp_path):
    path, _ = base
    from mmprompt.common.checkpoint import load_tensors

    tensors, metadata = load_tensors(path)
    if damage == 'weights':
        tensors['decoder.query_feat'] += 1
    else:
        metadata[damage] = '2'
    other = save_tensors(tmp_path / 'other.safetensors', tensors, metadata)
    with pytest.raises(UserError, match='other.safetensors'):
        SEEM.from_checkpoint(other)

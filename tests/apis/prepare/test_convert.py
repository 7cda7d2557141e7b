"""Public checkpoints become base files, and configs name the files they want."""

import hashlib

import pytest
import torch
import toy
from foundation.test_seem_checkpoint import MODELS_DIR, tiny_config, tiny_public
from mmengine.config import Config
from prompt_files import prompt_of

from mmprompt.apis.prepare.convert import convert_seem, main
from mmprompt.common.checkpoint import load_tensors, read_metadata, save_tensors
from mmprompt.common.errors import UserError
from mmprompt.common.prompt_file import PromptFile
from mmprompt.foundation.seem import SEEM
from mmprompt.foundation.seem.checkpoint import read_base
from mmprompt.foundation.seem.public_files import find_public
from mmprompt.foundation.seem.reference_keys import to_reference
from mmprompt.registry import MODELS


@pytest.fixture(scope='module')
def source(tmp_path_factory):
    path = tmp_path_factory.mktemp('weights') / 'tiny.pt'
    torch.save(tiny_public(), path)
    return path


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv('MMPROMPT_CACHE', str(tmp_path / 'cache'))


def segmentor(base):
    return MODELS.build(toy.toy_segmentor(base, tiny_config()))


def test_a_prompt_learned_on_the_source_loads_on_the_conversion(source, tmp_path, capsys):
    out = tmp_path / 'new' / 'tiny.safetensors'
    assert main([str(source), '--out', str(out)]) == 0
    printed = capsys.readouterr().out
    before, after = read_base(source), read_base(out)
    assert after[1]['fingerprint'] == before[1]['fingerprint']
    assert after[1]['fingerprint'] in printed and 'custom' in printed
    data = source.read_bytes()
    sha256 = hashlib.sha256(data).hexdigest()
    origin = dict(name='tiny.pt', size=len(data), sha256=sha256, public=None)
    assert after[1]['record'] == dict(source=origin, dtype='float32', text_encoder=True)

    learned = segmentor(source)
    learned.load_base()
    with torch.no_grad():
        learned.decode_head.spatial_prompt.embedding.add_(1.0)
    prompt = tmp_path / 'prompt.safetensors'
    prompt_of(learned).save(prompt)
    other = segmentor(out)
    other.load_prompt(prompt)
    image = torch.rand(1, 3, 32, 64)
    torch.testing.assert_close(other(image), learned(image))
    assert PromptFile.load(prompt).base_fingerprint == other.base_fingerprint


def test_equal_sources_give_equal_files(source, tmp_path):
    for name in ('a', 'b'):
        convert_seem(source, tmp_path / f'{name}.safetensors')
    files = [(tmp_path / f'{name}.safetensors').read_bytes() for name in ('a', 'b')]
    assert files[0] == files[1]


@pytest.mark.parametrize('dtype', ['fp16', 'bf16'])
def test_half_precision_is_another_base(source, dtype, tmp_path):
    half, whole = tmp_path / 'half.safetensors', tmp_path / 'whole.safetensors'
    done = convert_seem(source, half, dtype)
    assert done.dtype in ('float16', 'bfloat16')
    assert half.stat().st_size < 0.55 * source.stat().st_size
    kind = getattr(torch, done.dtype)
    public = tiny_public()
    for name, value in SEEM.from_checkpoint(half).state_dict().items():
        assert torch.equal(value, public[to_reference(name)].to(kind).float())
    # The fingerprint is of the float32 values: widening again changes nothing, rounding did.
    again = convert_seem(half, whole, 'fp32')
    assert again.fingerprint == done.fingerprint != read_base(source)[1]['fingerprint']
    assert read_base(whole)[1]['record']['source']['record']['source']['name'] == 'tiny.pt'
    learned = prompt_of(segmentor(source))
    with pytest.raises(UserError, match='expected a prompt for the base model'):
        segmentor(half).load_prompt(learned)


def test_without_text(source, tmp_path):
    out = tmp_path / 'mute.safetensors'
    done = convert_seem(source, out, text=False)
    assert 'text_encoder' not in done.parameters
    assert set(done.parameters) == {'backbone', 'pixel_decoder', 'decoder'}
    assert not any(name.startswith('text_encoder.') for name in load_tensors(out)[0])
    assert SEEM.from_checkpoint(out).text_encoder is None
    assert (
        sum(done.parameters.values())
        == sum(v.numel() for k, v in tiny_public().items() if 'lang_encoder.l' not in k) - 3 - 9 + 1
    )  # the leftovers of training go, the temperature stays


def test_an_existing_file_needs_force(source, tmp_path, capsys):
    out = tmp_path / 'tiny.safetensors'
    out.write_bytes(b'an earlier result')
    assert main([str(source), '--out', str(out)]) == 2
    assert '--force' in capsys.readouterr().err
    assert out.read_bytes() == b'an earlier result'
    assert main([str(source), '--out', str(out), '--force']) == 0
    assert read_metadata(out)['kind'] == 'seem'


def test_a_failed_conversion_leaves_nothing(tmp_path, capsys):
    state = tiny_public()
    state['sem_seg_head.predictor.class_embed'][0, 0] = 1e6
    torch.save(state, tmp_path / 'large.pt')
    arguments = [str(tmp_path / 'large.pt'), '--out', str(tmp_path / 'out.safetensors')]
    assert main([*arguments, '--dtype', 'fp16']) == 2
    assert 'decoder.class_embed' in (said := capsys.readouterr().err) and 'bf16' in said
    assert [p.name for p in tmp_path.iterdir()] == ['large.pt']
    del state['sem_seg_head.predictor.pn_indicator.weight']
    torch.save(state, tmp_path / 'large.pt')
    assert main(arguments) == 2
    assert 'missing 1: sem_seg_head.predictor.pn_indicator' in capsys.readouterr().err
    assert [p.name for p in tmp_path.iterdir()] == ['large.pt']


@pytest.mark.parametrize('name, words', [('tiny.pt', '.safetensors'), ('', 'safetensors')])
def test_a_target_of_another_kind_is_refused(source, name, words, tmp_path):
    with pytest.raises(UserError, match=words):
        convert_seem(source, tmp_path / name)


def test_the_source_is_never_overwritten(tmp_path):
    base = toy.write_base(tmp_path / 'base.safetensors')
    with pytest.raises(UserError, match='another file than the source'):
        convert_seem(base, base, 'fp16', force=True)


def test_a_published_file_is_recognised_by_its_sum(source, tmp_path, monkeypatch):
    public = find_public('seem_focalt_v0.pt')
    monkeypatch.setattr('mmprompt.apis.prepare.convert.sha256_of', lambda path: public.sha256)
    done = convert_seem(source, tmp_path / 'tiny.safetensors')
    assert 'the published seem_focalt_v0.pt' in done.describe()
    assert read_base(done.out)[1]['record']['source']['public'] == 'seem_focalt_v0.pt'


def test_tensors_of_no_model_are_refused(tmp_path):
    other = save_tensors(tmp_path / 'other.safetensors', {'x': torch.zeros(1)})
    with pytest.raises(UserError, match='other.safetensors'):
        convert_seem(other, tmp_path / 'out.safetensors')


@pytest.mark.parametrize('variant', ['focal-t', 'focal-l'])
def test_a_base_config_names_its_file_and_where_it_comes_from(variant, tmp_path, monkeypatch):
    monkeypatch.setenv('MMPROMPT_WEIGHTS', str(tmp_path))
    config = Config.fromfile(MODELS_DIR / f'ssprompt_{variant}.py', format_python_code=False)
    public = find_public(config.model.base)
    assert public.supported and public.variant.lower() == variant
    assert config.model.base_address == public.address
    with torch.device('meta'):
        model = MODELS.build(dict(config.model, classes=('road', 'car')))
    with pytest.raises(UserError, match=f'{public.name}.*{public.address}'):
        model.load_base()

import pytest
import torch
from safetensors.torch import save_file

from mmprompt.common.checkpoint import save_tensors
from mmprompt.common.errors import UserError
from mmprompt.common.prompt_file import PromptFile

SHAPES = {'spatial': (100, 8), 'semantic': (3, 8), 'theta': ()}
CLASSES = ('road', 'sky', 'car')


@pytest.fixture
def path(tmp_path):
    torch.manual_seed(0)
    tensors = {k: torch.randn(s, requires_grad=True) for k, s in SHAPES.items()}
    prompt = PromptFile(tensors, 'SSPrompt', CLASSES, 'a' * 64, {'iterations': 10, 'lr': 0.001})
    return prompt.save(tmp_path / 'prompt.safetensors')


def check(prompt, **changes):
    model = {'base_fingerprint': 'a' * 64, 'classes': CLASSES, 'shapes': SHAPES}
    prompt.check(**(model | {'method': 'SSPrompt'} | changes))


def test_round_trip_and_size(path):
    prompt = PromptFile.load(path)
    check(prompt)
    assert prompt.classes == CLASSES and prompt.method == 'SSPrompt'
    assert prompt.recipe == {'iterations': 10, 'lr': 0.001}
    torch.manual_seed(0)
    for name, shape in SHAPES.items():
        assert torch.equal(prompt.tensors[name], torch.randn(shape))
    parameters = sum(v.numel() for v in prompt.tensors.values())
    assert 4 * parameters < path.stat().st_size <= 4 * parameters + 16 * 1024


@pytest.mark.parametrize(
    'changes, named',
    [
        ({'base_fingerprint': 'b' * 64}, ['a' * 64, 'b' * 64]),
        ({'method': 'CoOp'}, ["'CoOp'", "'SSPrompt'"]),
        ({'classes': ('sky', 'road', 'car')}, ['order', "'sky'", "'road'"]),
        ({'classes': ('road', 'sky', 'tram')}, ['tram', 'car']),
        ({'classes': ('road', 'sky')}, ['2 classes', 'found one for 3', 'car']),
        ({'shapes': SHAPES | {'spatial': (50, 8)}}, ['(50, 8)', '(100, 8)']),
        ({'shapes': SHAPES | {'extra': (1,)}}, ['extra (1,)', 'extra missing']),
    ],
)
def test_a_wrong_model_is_refused_with_both_sides_named(path, changes, named):
    with pytest.raises(UserError) as error:
        check(PromptFile.load(path), **changes)
    assert all(n in str(error.value) for n in [str(path), *named])


def test_other_files_are_refused(path, tmp_path):
    data = path.read_bytes()
    cut = tmp_path / 'cut.safetensors'
    cut.write_bytes(data[: len(data) // 2])
    newer = save_tensors(tmp_path / 'new.safetensors', {}, {'kind': 'prompt', 'format': '2'})
    base = save_tensors(tmp_path / 'base.safetensors', {}, {'kind': 'seem', 'format': '1'})
    bare = tmp_path / 'bare.safetensors'
    save_file({'a': torch.ones(1)}, str(bare))
    poor = save_tensors(tmp_path / 'poor.safetensors', {}, {'kind': 'prompt', 'format': '1'})
    pickled = tmp_path / 'x.pth'
    torch.save({}, pickled)
    for file, words in [
        (cut, 'cut'),
        (newer, 'format 1, found format 2'),
        (base, "kind 'seem'"),
        (bare, 'other weights'),
        (poor, 'method, classes'),
        (pickled, 'expected a safetensors file'),
        (tmp_path / 'none', 'found nothing'),
    ]:
        with pytest.raises(UserError) as error:
            PromptFile.load(file)
        assert words in str(error.value) and str(file) in str(error.value)

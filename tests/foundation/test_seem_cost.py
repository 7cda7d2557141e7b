"""What SEEM costs: half precision, memory layout, compilation, and what is never built or moved."""

import shutil
from collections import Counter
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from mmengine.config import Config
from mmengine.utils import digit_version
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten

from mmprompt.datasets.streets import sample
from mmprompt.foundation.seem import SEEM, SEEMDecoder, Strokes, layers

ROOT = Path(__file__).resolve().parents[2]
SIZE = (256, 512)
CONDITIONS = ('clear', 'fog', 'night', 'rain', 'snow')
TORCH = digit_version(torch.__version__)


@pytest.fixture(autouse=True)
def no_gradient():
    with torch.no_grad():
        yield


def nano() -> SEEM:
    return SEEM.from_checkpoint('mmprompt://seem-nano_streets', text_encoder=False).eval()


@pytest.fixture(scope='module')
def semantic():
    """Nineteen class names as the text encoder of the same weights gives them, and no-object."""
    names = Config.fromfile(str(ROOT / 'configs/_base_/models/seem-nano.py')).class_synonyms
    with torch.no_grad():
        return SEEM.from_checkpoint('mmprompt://seem-nano_streets').embed_classes(names)


@pytest.fixture(scope='module')
def scenes():
    """Five normalised scenes (5, 3, H, W) that the weights were not trained on."""
    bgr = [sample(11, 'val', i, condition, SIZE)[0] for i, condition in enumerate(CONDITIONS)]
    rgb = torch.stack([torch.from_numpy(image[..., ::-1].copy()) for image in bgr])
    return nano().normalise(rgb.permute(0, 3, 1, 2))


def label_maps(out) -> torch.Tensor:
    """(B, H, W) best class of each pixel, in float32 from whatever precision `out` has."""
    probs = out.pred_logits.float().softmax(-1)[..., :-1]
    masks = F.interpolate(out.pred_masks.float(), SIZE, mode='bilinear', align_corners=False)
    return torch.einsum('bqc,bqhw->bchw', probs, masks.sigmoid()).argmax(1)


@pytest.fixture(scope='module')
def expected(scenes, semantic):
    with torch.no_grad():
        labels = label_maps(nano()(scenes, semantic))
    assert len(labels.unique()) > 5  # trained weights: not one class everywhere
    return labels


def shares(found: torch.Tensor, expected: torch.Tensor) -> torch.Tensor:
    """Share of equal pixels of each image."""
    return (found == expected).float().mean((1, 2))


def test_channels_last_keeps_the_labels(scenes, semantic, expected):
    model = nano().to(memory_format=torch.channels_last)
    features = model.encode_image(scenes.to(memory_format=torch.channels_last))
    assert features.mask_features.is_contiguous(memory_format=torch.channels_last)
    assert shares(label_maps(model.decode(features, semantic)), expected).min() >= 0.999


def test_bfloat16_keeps_the_labels(scenes, semantic, expected):
    with torch.autocast('cpu', torch.bfloat16):
        out = nano()(scenes, semantic)
    assert out.mask_features.dtype == torch.bfloat16
    kept = shares(label_maps(out), expected)
    # The weights know clear scenes alone; elsewhere masks of equal rank swap more easily.
    assert kept.mean() >= 0.99 and kept[CONDITIONS.index('clear')] >= 0.998


dataclasses = pytest.mark.skipif(
    TORCH < digit_version('2.5'), reason='dynamo of PyTorch 2.1 reads no dataclass'
)


@dataclasses
def test_one_graph_keeps_the_labels(scenes, semantic, expected):
    """`fullgraph` raises at the first graph break."""
    model = nano()
    encode = torch.compile(model.encode_image, fullgraph=True, backend='aot_eager')
    decode = torch.compile(model.decode, fullgraph=True, backend='aot_eager')
    out = decode(encode(scenes), semantic)
    assert shares(label_maps(out), expected).min() >= 0.999


@dataclasses
@pytest.mark.skipif(not shutil.which('g++'), reason='inductor needs a C++ compiler')
def test_generated_code_keeps_the_labels(scenes, semantic, expected):
    """One stage stands for all four, whose kernels would take minutes to compile."""
    model = nano()
    for part in (model.backbone.layers[0], model.pixel_decoder, model.decoder):
        part.forward = torch.compile(part.forward, fullgraph=True)
    assert shares(label_maps(model(scenes, semantic)), expected).min() >= 0.999


class Attentions(TorchFunctionMode):
    """Records the mask of every attention."""

    def __init__(self):
        super().__init__()
        self.masks = []

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if func is F.scaled_dot_product_attention:
            self.masks.append(kwargs.get('attn_mask', args[3] if len(args) > 3 else None))
        return func(*args, **kwargs)


def test_masks_are_boolean_and_the_same_for_all_heads(scenes, semantic):
    model = nano()
    features = model.encode_image(scenes[:2])
    with Attentions() as seen:
        model.decode(features, semantic)
    cross, own = seen.masks[::2], seen.masks[1::2]
    assert len(cross) == len(own) == 6
    assert own == [None] * 6  # without tokens nothing is hidden from anyone
    for i, mask in enumerate(cross):
        pixels = features.multi_scale[i % 3][0, 0].numel()
        assert mask.dtype == torch.bool and mask.shape == (2, 1, 101, pixels)


class Operations(TorchDispatchMode):
    """Records names, devices and the largest result of everything that runs."""

    def __init__(self):
        super().__init__()
        self.counts, self.devices, self.largest = Counter(), set(), 0

    @property
    def names(self) -> set[str]:
        return set(self.counts)

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        self.counts[func.overloadpacket.__name__] += 1
        tensors = [t for t in tree_flatten((args, kwargs, out))[0] if isinstance(t, torch.Tensor)]
        self.devices.update(tensor.device.type for tensor in tensors)
        results = [t for t in tree_flatten(out)[0] if isinstance(t, torch.Tensor)]
        self.largest = max([self.largest, *(tensor.numel() for tensor in results)])
        return out


@pytest.mark.skipif(
    TORCH < digit_version('2.5'), reason='on the CPU, PyTorch 2.1 has no fused attention with masks'
)
def test_nothing_of_heads_by_queries_by_pixels_exists(scenes, semantic):
    model = nano()
    features = model.encode_image(scenes[:1])
    pixels = features.multi_scale[2][0, 0].numel()
    with Operations() as seen:
        model.decode(features, semantic)
    assert pixels == 32 * 64
    # The largest that is needed: 101 masks at stride 4. Scores of one attention would be more.
    assert seen.largest == 101 * 64 * 128 < 5 * 101 * pixels


#: They wait for the device, or copy from one to another.
WAITING = {'_local_scalar_dense', 'nonzero', 'masked_select', 'equal', 'is_nonzero', 'unique_dim'}


def decoded(model: SEEM, spatial, tokens: bool, device: str, strokes=None) -> Operations:
    model.decoder.object_tokens = tokens
    x = torch.zeros(2, 3, 70, 101, device=device)  # padded on the way
    semantic = torch.zeros(20, 80, device=device)
    with Operations() as seen:
        model(x, semantic, spatial=spatial, strokes=strokes, aux=True)
    return seen


@pytest.mark.parametrize('device', ['cpu', 'meta'])
@pytest.mark.parametrize('tokens', [False, True])
def test_nothing_moves_and_nothing_waits(device, tokens):
    """On the meta device one tensor made on the CPU would show; so would any wait for a value."""
    model = nano().to(device)
    spatial = {
        'content': torch.zeros(100, 80, device=device),
        'position': torch.zeros(100, 80, device=device),
    }
    if tokens:
        spatial['tokens'] = torch.zeros(3, 7, 80, device=device)
    seen = decoded(model, spatial, tokens, device)
    assert seen.devices == {device}
    assert not seen.names & WAITING
    assert 'convolution' in seen.names  # the recorder looked on


class Copies(TorchFunctionMode):
    """Records tensors that are made from Python values, which on a GPU are copied to it."""

    def __init__(self):
        super().__init__()
        self.made = []

    def __torch_function__(self, func, types, args=(), kwargs=None):
        if getattr(func, '__name__', '') in ('tensor', 'as_tensor', 'from_numpy', 'new_tensor'):
            if not isinstance(args[-1], torch.Tensor):
                self.made.append(args[-1])
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize('tokens', [False, True])
@pytest.mark.parametrize('again', [False, True])
def test_strokes_wait_for_their_points_alone(tokens, again):
    """How many pixels a mask holds only its device knows: the one wait, once per image and sign."""
    mask = torch.zeros(2, 96, 128, dtype=torch.bool)
    mask[:, 8:12, 10:40] = True
    previous = torch.ones(2, 1, 24, 32) if again else None
    strokes, model = Strokes(mask, mask.flip(1), previous), nano()
    with Copies() as copies:
        seen = decoded(model, None, tokens, 'cpu', strokes)
    assert seen.names & WAITING == {'nonzero'} and seen.counts['nonzero'] == 4
    assert not copies.made


def test_the_recorder_would_notice(monkeypatch):
    """A tensor made on the CPU, or a value that is read, inside the decoder."""
    queries = SEEMDecoder._queries

    def careless(self, spatial, batch):
        torch.zeros(3).sum().item()
        return queries(self, spatial, batch)

    monkeypatch.setattr(SEEMDecoder, '_queries', careless)
    seen = decoded(nano().to('meta'), None, False, 'meta')
    assert seen.devices == {'cpu', 'meta'} and seen.names & WAITING


@pytest.mark.parametrize('shape', [(2, 16, 64, 48), (1, 1040, 64), (3, 683, 64), (4, 48)])
def test_linear_is_linear(shape):
    """Both ways of the product, forward and backward; 683 rows cannot be split in sixteen."""
    torch.manual_seed(0)
    with torch.enable_grad():
        given = [torch.randn(s, requires_grad=True) for s in (shape, (24, shape[-1]), (24,))]
        found, wanted = layers.linear(*given), F.linear(*given)
        weight = torch.randn_like(wanted)
        gradients = [torch.autograd.grad((y * weight).sum(), given) for y in (found, wanted)]
    torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-5)
    for one, other in zip(*gradients):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-4)
    assert found.is_contiguous()


def test_linear_goes_to_onednn_without_a_copy():
    x, weight = torch.randn(1, 64, 128, 32), torch.randn(48, 32)
    with Operations() as seen:
        layers.linear(x, weight)
    assert 'convolution' in seen.names
    assert not seen.names & {'clone', 'copy_', '_to_copy', 'mm', 'addmm'}
    with Operations() as seen:
        layers.linear(x.double(), weight.double())
    assert 'convolution' not in seen.names

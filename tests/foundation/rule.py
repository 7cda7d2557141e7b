"""Parameters and inputs of the golden numbers, from a name and a shape alone.

The public SEEM code was run on these values; the files in `tests/data/seem` hold what it answered.
Names are those of the public state dict.
"""

import math
import zlib
from pathlib import Path

import numpy as np
import torch

DATA = Path(__file__).resolve().parent.parent / 'data' / 'seem'

TABLES = {
    'query_feat', 'query_embed', 'spatial_embed', 'spatial_featured', 'pn_indicator',
    'pos_embed_caping',
}  # fmt: skip
# Outputs of residual branches are damped, which keeps queries apart.
WEAK = {'out_proj', 'linear2', 'level_embed', 'dw'}


def noise(name: str, shape) -> np.ndarray:
    """Float64 in [-1, 1), seeded by the name."""
    stream = np.random.RandomState(zlib.crc32(name.encode()))
    return 2.0 * stream.random_sample(tuple(shape)) - 1.0


def _centre_and_reach(name: str, shape) -> tuple[float, float]:
    owner, leaf = ('.' + name).rsplit('.', 1)
    owner = owner.rsplit('.', 1)[-1]
    if leaf == 'logit_scale':
        return math.log(100.0), 0.0
    if leaf in ('gamma_1', 'gamma_2'):
        return 0.5, 0.25
    if len(shape) == 1:
        return (1.0, 0.2) if leaf == 'weight' else (0.0, 0.1)
    if owner in TABLES:
        return 0.0, math.sqrt(3.0)
    fan_in = math.prod(shape[1:])
    return 0.0, (0.3 if owner in WEAK else 1.0) * math.sqrt(3.0 / fan_in)


def parameter(name: str, shape) -> np.ndarray:
    """Float32 value of the parameter with this public name."""
    centre, reach = _centre_and_reach(name, shape)
    if reach == 0.0:
        return np.full(tuple(shape), centre, np.float32)
    return (centre + reach * noise(name, shape)).astype(np.float32)


def feature(name: str, shape) -> np.ndarray:
    """Float32 input of unit variance."""
    return (math.sqrt(3.0) * noise(f'golden.{name}', shape)).astype(np.float32)


def image(name: str, batch: int, height: int, width: int) -> np.ndarray:
    """Normalised image (B, 3, H, W): cells of 16 pixels plus noise, float32."""
    coarse = noise(f'golden.{name}.lo', (batch, 3, -(-height // 16), -(-width // 16)))
    coarse = coarse.repeat(16, 2).repeat(16, 3)[:, :, :height, :width]
    fine = noise(f'golden.{name}.hi', (batch, 3, height, width))
    return (1.5 * coarse + 0.5 * fine).astype(np.float32)


def rgb(index: int, height: int, width: int) -> np.ndarray:
    """Image (3, H, W) of cells of 10 pixels, values 0-255."""
    cells = noise(f'golden.rgb{index}.lo', (3, -(-height // 10), -(-width // 10)))
    values = np.floor((cells + 1.0) * 128.0)
    return values.repeat(10, 1).repeat(10, 2)[:, :height, :width]


def text(rows: int, dim: int = 512) -> np.ndarray:
    """Unit rows (rows, dim), float32."""
    values = noise('golden.text', (rows, dim))
    return (values / np.linalg.norm(values, axis=1, keepdims=True)).astype(np.float32)


def strokes(index: int, seed: int, height: int = 128, width: int = 192) -> np.ndarray:
    """Boolean stroke mask of image `index`; seed 0 is the positive one, 1 the negative one."""
    mask = np.zeros((height, width), bool)
    y = (17 + 31 * seed + 29 * index) % (height - 8)
    x = (11 + 47 * seed + 37 * index) % (width - 24)
    mask[y : y + 3, x : x + 20] = True
    mask[y : y + 7, x + 5 : x + 8] = True
    return mask


def tensor(array: np.ndarray, dtype: torch.dtype) -> torch.Tensor:
    """Tensor of an array in the given precision."""
    return torch.from_numpy(np.array(array)).to(dtype)


def double(array: np.ndarray) -> torch.Tensor:
    """Float64 tensor of an array."""
    return tensor(array, torch.float64)


def fill(module: torch.nn.Module, public_name, dtype=torch.float64) -> torch.nn.Module:
    """Give every tensor of `module` its rule value.

    Args:
        module: built anywhere, the meta device included.
        public_name: function from a key of the module to the public name.
        dtype: precision of the values.
    """
    values = {
        key: tensor(parameter(public_name(key), own.shape), dtype)
        for key, own in module.state_dict().items()
    }
    module.load_state_dict(values, assign=True)
    return module.eval()

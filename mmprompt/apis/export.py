"""``tools/export.py``: a trained segmentor as ONNX or as a program of torch.export."""

import argparse
import os
import tempfile
import warnings
from collections.abc import Sequence
from pathlib import Path

import torch
from mmengine.registry import init_default_scope
from mmseg.models.utils import Upsample
from torch import Tensor, nn
from torch.nn import functional as F

from mmprompt.apis.cli import OptionsAction, apply_options, find_config, run_command_line
from mmprompt.common.checkpoint import load_strict
from mmprompt.common.errors import UserError
from mmprompt.common.freeze import frozen_roots, under_roots
from mmprompt.common.hooks import check_base
from mmprompt.common.prompt_file import HEAD_FILE, PROMPT_FILE, PromptFile
from mmprompt.registry import MODELS

INPUT, OUTPUT = 'images', 'logits'
AXES = {0: 'batch', 2: 'height', 3: 'width'}
ENDINGS = ('.onnx', '.pt2')
#: Sizes of free pictures are multiples of it, so that no map of the network is cut.
STEP = 32
#: Largest difference between the file's logits and the model's.
ALLOWED = 1e-4
EPILOG = """\
In the file: images (B, 3, H, W), RGB, float32, 0 to 255 -> logits (B, C, H, W). The mean and the
standard deviation of the config are in it; resizing pictures and taking the largest logit are not.
"""


class Deployed(nn.Module):
    """RGB pictures (B, 3, H, W) of 0 to 255 -> logits (B, C, H, W) of a segmentor.

    Args:
        segmentor: of MMSegmentation's kind, with its data preprocessor.
    """

    def __init__(self, segmentor: nn.Module) -> None:
        super().__init__()
        self.segmentor = segmentor
        preprocessor = segmentor.data_preprocessor
        # It is given what OpenCV reads, BGR, and turns it round or not.
        # The two families name it differently.
        names = ('_channel_conversion', 'channel_conversion')
        self.turned = not any(getattr(preprocessor, name, False) for name in names)
        _free_upsampling(segmentor)
        normalised = preprocessor._enable_normalize
        for name, nothing in (('mean', 0.0), ('std', 1.0)):
            given = getattr(preprocessor, name) if normalised else torch.full((3, 1, 1), nothing)
            self.register_buffer(name, given.detach().clone().float())

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B, C, H, W)."""
        if self.turned:
            images = images.flip(1)
        logits = self.segmentor((images - self.mean) / self.std, mode='tensor')
        return F.interpolate(
            logits,
            size=images.shape[-2:],
            mode='bilinear',
            align_corners=self.segmentor.align_corners,
        )


def _free_upsampling(module: nn.Module) -> None:
    """Let enlarging layers follow the size of their input; MMSegmentation's fix it in an export."""
    for name, part in module.named_children():
        if isinstance(part, Upsample) and not part.size:
            options = dict(mode=part.mode, align_corners=part.align_corners)
            setattr(module, name, nn.Upsample(scale_factor=part.scale_factor, **options))
        else:
            _free_upsampling(part)


def load_segmentor(config: str, weights: str | None, options: dict | None = None) -> nn.Module:
    """Build the model of a config and put what was learned on it, in eval mode.

    Args:
        config: file or name.
        weights: a prompt file (.safetensors), a training checkpoint (.pth), or None.
        options: changes of the config.

    Raises:
        UserError: something cannot be used.
    """
    cfg = find_config(config)
    apply_options(cfg, options)
    init_default_scope(cfg.get('default_scope', 'mmprompt'))
    model = MODELS.build(cfg.model)
    for part in ('load_base', 'load_prompt', 'align_corners'):
        if not hasattr(model, part):
            raise UserError(
                f'{cfg.filename}: expected a segmentor that takes prompts, such as SPMSegmentor, '
                f'found {type(model).__name__}. Use the config that trained it.'
            )
    model.load_base()
    if weights is not None and Path(weights).suffix == '.safetensors':
        model.load_prompt(PromptFile.load(weights, kinds=('prompt', 'head')))
    elif weights is not None:
        _load_checkpoint(model, weights)
    return model.eval().requires_grad_(False)


def _load_checkpoint(model: nn.Module, path: str) -> None:
    """All that was trained comes from the file, and nothing of the file is left over."""
    checkpoint = load_strict(path)
    check_base(model, checkpoint.get('mmprompt') or {})
    try:
        found = model.load_state_dict(checkpoint.get('state_dict', checkpoint), strict=False)
    except RuntimeError as error:  # shapes
        raise UserError(
            f'{path}: expected the tensors of the config, found others: {error}. Use the config '
            f'and the options that trained it.'
        ) from error
    roots = frozen_roots(model)
    missing = [key for key in found.missing_keys if not under_roots(key, roots)]
    if missing or found.unexpected_keys:
        parts = [('without', missing), ('with', found.unexpected_keys)]
        text = ', '.join(f'{w} {len(k)} such as {k[0]}' for w, k in parts if k)
        raise UserError(
            f'{path}: expected all that the config trains and nothing else, found a checkpoint '
            f'{text}. Use the config and the options that trained it, such as '
            f'model.backbone.tuning.'
        )


def export(
    model: nn.Module,
    out: str | os.PathLike,
    size: Sequence[int] = (512, 512),
    dynamic: bool = False,
) -> Path:
    """Write a model that maps pictures to logits, by the ending of the file.

    Args:
        model: such as `Deployed`, in eval mode.
        out: ``.onnx``, or ``.pt2`` for `torch.export.save`.
        size: height and width of the example, and of all pictures if they are fixed.
        dynamic: number, height and width of pictures are free; the sizes are multiples of `STEP`.

    Raises:
        UserError: another ending, a package that is missing, or a model that cannot be exported.
    """
    out = Path(out)
    if out.suffix not in ENDINGS:
        raise UserError(f'--out {out}: expected a name that ends in .onnx or .pt2.')
    if dynamic and any(side % STEP for side in size):
        raise UserError(f'--size: expected multiples of {STEP} with --dynamic, found {size}.')
    # Two images: a batch of one would be taken for a constant.
    example = torch.rand(2 if dynamic else 1, 3, *size) * 255
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=f'.{out.name}.') as folder:
        part = Path(folder) / out.name
        try:
            with torch.no_grad(), warnings.catch_warnings():
                warnings.simplefilter('ignore')
                write = _write_onnx if out.suffix == '.onnx' else _write_program
                write(model, example, part, dynamic)
        except ImportError as error:
            raise UserError(
                f'{out}: expected the packages that ONNX files are made with, found {error}. '
                f'Install them: pip install onnx onnxscript onnxruntime.'
            ) from error
        except UserError:
            raise
        except Exception as error:
            hint = 'Leave --dynamic out' if dynamic else 'Give another ending'
            raise UserError(
                f'{out}: expected a model that can be exported, found {type(error).__name__}: '
                f'{str(error).strip()[:300]}. {hint}: some heads (PSPHead) know their size.'
            ) from error
        part.replace(out)
    return out


def program(model: nn.Module, example: Tensor, dynamic: bool) -> 'torch.export.ExportedProgram':
    """`torch.export` of a model."""
    shapes = None
    if dynamic:
        # Named sizes: one that the model fixes is an error and not a wrong file.
        batch, *sides = (torch.export.Dim(name, min=2, max=512) for name in AXES.values())
        shapes = {INPUT: dict(zip(AXES, [batch, *(STEP * side for side in sides)]))}
    return torch.export.export(model, (example,), dynamic_shapes=shapes, strict=False)


def _write_program(model: nn.Module, example: Tensor, path: Path, dynamic: bool) -> None:
    _check_torch('.pt2')
    torch.export.save(program(model, example, dynamic), str(path))


def _write_onnx(model: nn.Module, example: Tensor, path: Path, dynamic: bool) -> None:
    names = dict(input_names=[INPUT], output_names=[OUTPUT])
    if exports_programs():
        made = torch.onnx.export(program(model, example, dynamic), dynamo=True, **names)
        made.save(str(path))
        return
    import onnx  # noqa: F401  (the older way asks for it only at the end, and in other words)

    axes = {INPUT: AXES, OUTPUT: AXES} if dynamic else None
    torch.onnx.export(model, (example,), str(path), opset_version=17, dynamic_axes=axes, **names)


def exports_programs() -> bool:
    """Tell whether this PyTorch exports by torch.export and not by tracing alone (2.6)."""
    return hasattr(getattr(torch.export, 'Dim', None), 'AUTO')


def _check_torch(ending: str) -> None:
    if not exports_programs():
        raise UserError(
            f'--out: expected PyTorch 2.6 or later for {ending} files, found {torch.__version__}. '
            f'Give a name that ends in .onnx.'
        )


def compare(
    model: nn.Module, path: Path, size: Sequence[int], dynamic: bool = False
) -> float | None:
    """`largest_difference` on a picture of `size`, and with `dynamic` on two of another size.

    Raises:
        UserError: it is above `ALLOWED`, or the file does not run.
    """
    shapes = [(1, 3, *size)]
    if dynamic:
        shapes.append((2, 3, size[0] + STEP, size[1] + 2 * STEP))
    largest = 0.0
    for shape in shapes:
        difference = largest_difference(model, path, torch.rand(shape) * 255)
        if difference is None:
            return None
        if not difference <= ALLOWED:
            raise UserError(
                f'{path}: expected the logits of the model to {ALLOWED:g}, found a difference of '
                f'{difference:.2g} on images {shape}. Do not use the file; report the config.'
            )
        largest = max(largest, difference)
    return largest


def largest_difference(model: nn.Module, path: Path, images: Tensor) -> float | None:
    """Between the logits of a file and of a model; None without onnxruntime.

    Raises:
        UserError: the file cannot be run on these images, or its logits are of another shape.
    """
    with torch.no_grad():
        expected = model(images)
    found = _run(path, images)
    if found is not None and found.shape != expected.shape:
        raise UserError(
            f'{path}: expected logits {tuple(expected.shape)} for images {tuple(images.shape)}, '
            f'found {tuple(found.shape)}. Do not use the file; leave --dynamic out.'
        )
    return None if found is None else float((found - expected).abs().max())


def _run(path: Path, images: Tensor) -> Tensor | None:
    """Logits of a file; None without onnxruntime."""
    try:
        if path.suffix == '.pt2':
            return torch.export.load(str(path)).module()(images)
        import onnxruntime

        session = onnxruntime.InferenceSession(str(path), providers=['CPUExecutionProvider'])
        return torch.from_numpy(session.run([OUTPUT], {INPUT: images.numpy()})[0])
    except ImportError:
        return None
    except Exception as error:  # onnxruntime has its own for everything
        raise UserError(
            f'{path}: expected a file that takes images {tuple(images.shape)}, found '
            f'{type(error).__name__}: {str(error).strip()[:300]}. Do not use it; leave --dynamic '
            f'out, or give another ending.'
        ) from error


def main(argv: list[str] | None = None) -> int:
    """Run the command line; return its exit status."""
    parser = argparse.ArgumentParser(
        prog='export.py',
        description='Write a trained segmentor as one file that runs without mmprompt.',
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add('config', help='config file, or its name below configs/')
    add('weights', nargs='?', help=f'{PROMPT_FILE}, {HEAD_FILE} or a checkpoint')
    add('--out', required=True, help='model.onnx, or model.pt2 for torch.export')
    add('--size', nargs=2, type=int, default=[512, 512], metavar=('H', 'W'), help='of pictures')
    add('--dynamic', action='store_true', help=f'any number and size, multiples of {STEP}')
    add('--cfg-options', nargs='+', action=OptionsAction, metavar='KEY=VALUE')
    args = parser.parse_args(argv)

    def body() -> None:
        model = Deployed(load_segmentor(args.config, args.weights, args.cfg_options)).eval()
        path = export(model, args.out, args.size, args.dynamic)
        print(f'{path}: {path.stat().st_size / 1e6:.1f} MB')
        difference = compare(model, path, args.size, args.dynamic)
        if difference is None:
            print('not compared with the model: pip install onnxruntime')
        else:
            print(f'largest difference to the model: {difference:.1g}')

    return run_command_line(body)

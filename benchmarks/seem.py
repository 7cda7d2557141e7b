"""Time and peak memory of SEEM's image side and decoder, beside timm's backbone of the same size.

Random weights, a random image. Each model runs in a process of its own; the two that are compared
run in turns, and the ratio is the median over pairs of neighbouring runs.

    python benchmarks/seem.py [--device cuda] [--dtype bfloat16] [--compile] [--channels-last]

`backbone` is part of `encode` (`SEEM.encode_image`); `decode` is `SEEM.decode` with 19 classes.
Needs timm.
"""

import argparse
import statistics
from pathlib import Path

import torch
from comparison import common_parser, conditions, parse, report  # beside this file
from measure import Worker, compared  # beside this file
from mmengine.config import Config

from mmprompt.foundation.seem import SEEM

MODELS = Path(__file__).resolve().parent.parent / 'configs/_base_/models'
#: variant -> timm's model of the same widths and depths.
VARIANTS = {
    'seem-nano': 'FocalNet',  # timm has no name for this size; see `timm_model`
    'focal-t': 'focalnet_tiny_lrf',
    'focal-l': 'focalnet_large_fl4',
    'davit-d3': 'davit_base_fl',
    'davit-d5': 'davit_huge_fl',
}
NANO = dict(
    embed_dim=24, depths=(2, 3, 2, 1), focal_levels=(2,) * 4, focal_windows=(3,) * 4, mlp_ratio=2.5
)
PARTS = ('backbone', 'encode', 'decode')
CLASSES = 19
HEADER = (
    'variant', 'parameters (M)', 'part', 'seconds', 'peak (MB)', 'timm', 'its parameters (M)',
    'its seconds', 'its peak (MB)', 'time ratio', 'memory ratio',
)  # fmt: skip


def millions(module: torch.nn.Module) -> float:
    return sum(p.numel() for p in module.parameters()) / 1e6


def image(options: argparse.Namespace) -> torch.Tensor:
    x = torch.randn(options.batch, 3, *options.size, device=options.device)
    return x.to(memory_format=torch.channels_last) if options.channels_last else x


def prepared(model: torch.nn.Module, options: argparse.Namespace) -> torch.nn.Module:
    model = model.eval().to(options.device)
    return model.to(memory_format=torch.channels_last) if options.channels_last else model


def ready(call, options: argparse.Namespace):
    """`call`, compiled and under autocast where the options say so."""
    if options.compile:
        call = torch.compile(call, fullgraph=True)
    if options.dtype == 'float32':
        return call

    def run(*args):
        with torch.autocast(options.device, getattr(torch, options.dtype)):
            return call(*args)

    return run


def build_ours(variant: str, options: argparse.Namespace):
    """Parameters and parts of one of our models."""
    config = Config.fromfile(str(MODELS / f'{variant}.py')).seem.to_dict()
    model = prepared(SEEM(**{**config, 'text_encoder': None}), options)
    x = image(options)
    semantic = torch.randn(CLASSES + 1, config['decoder']['proj_dim'], device=options.device)
    semantic = torch.nn.functional.normalize(semantic, dim=1)
    calls = {
        'backbone': ready(model.backbone, options),
        'encode': ready(model.encode_image, options),
        'decode': ready(model.decode, options),
    }
    features = None

    def decode():
        nonlocal features
        if features is None:
            features = calls['encode'](x)
        return calls['decode'](features, semantic)

    parts = {
        'backbone': lambda: calls['backbone'](x),
        'encode': lambda: calls['encode'](x),
        'decode': decode,
    }
    counts = {'backbone': millions(model.backbone), 'decode': millions(model.decoder)}
    counts['encode'] = counts['backbone'] + millions(model.pixel_decoder)
    return counts, parts


def timm_model(variant: str) -> torch.nn.Module:
    """Backbone of timm that gives four maps."""
    import timm
    from timm.models import build_model_with_cfg
    from timm.models.focalnet import FocalNet

    if variant != 'seem-nano':
        return timm.create_model(VARIANTS[variant], features_only=True)
    four = dict(flatten_sequential=True, out_indices=(0, 1, 2, 3))
    return build_model_with_cfg(
        FocalNet, 'focalnet_tiny_srf', False, feature_cfg=four, features_only=True, **NANO
    )


def build_theirs(variant: str, options: argparse.Namespace):
    """Parameters and backbone of timm's model."""
    model = prepared(timm_model(variant), options)
    x, call = image(options), ready(model, options)
    return {'backbone': millions(model)}, {'backbone': lambda: call(x)}


def rows_of(variant: str, options: argparse.Namespace) -> list[tuple]:
    """A row per part of one variant."""
    common = (options.device, options.threads)
    with Worker(build_ours, (variant, options), *common) as ours:
        with Worker(build_theirs, (variant, options), *common) as theirs:
            (mine, other), (peak, limit), ratios = compared(
                [ours, theirs], 'backbone', options.repeats
            )
        beside = (
            VARIANTS[variant], f'{theirs.parameters["backbone"]:.1f}', f'{other:.3f}',
            f'{limit:.0f}', f'{statistics.median(ratios):.2f}', f'{peak / limit:.2f}',
        )  # fmt: skip
        found = {'backbone': (mine, peak, beside)}
        for part in PARTS[1:]:
            (mine,), (peak,), _ = compared([ours], part, options.repeats, options.clock)
            found[part] = (mine, peak, ('',) * len(beside))
    return [
        (variant, f'{ours.parameters[part]:.1f}', part, f'{mine:.3f}', f'{peak:.0f}', *beside)
        for part, (mine, peak, beside) in found.items()
    ]


def main() -> None:
    import timm

    parser = common_parser(__doc__, (512, 1024))
    add = parser.add_argument
    add('--variants', nargs='+', choices=VARIANTS, default=list(VARIANTS), metavar='NAME',
        help=f'some of {", ".join(VARIANTS)}; default all')  # fmt: skip
    add('--dtype', choices=('float32', 'bfloat16', 'float16'), default='float32',
        help='less than float32 by autocast')  # fmt: skip
    add('--compile', action='store_true', help='torch.compile(fullgraph=True); minutes a model')
    add('--channels-last', action='store_true', help='weights and image')
    add('--batch', type=int, default=1)
    options = parse(parser)
    height, width = options.size
    further = [
        f'timm {timm.__version__}',
        options.dtype + (' autocast' if options.dtype != 'float32' else ''),
        *(['compiled'] if options.compile else []),
        *(['channels-last'] if options.channels_last else []),
    ]
    line = conditions(f'{options.batch} x {height}x{width}', options, further)
    report(line, HEADER, options.variants, rows_of, options)


if __name__ == '__main__':
    main()

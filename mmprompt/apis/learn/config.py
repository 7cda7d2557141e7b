"""The configs that `tools/learn.py` writes: what it runs, for anybody to run again or to change."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from pprint import pformat

from mmprompt.apis.bases import is_config
from mmprompt.apis.learn import spm
from mmprompt.apis.learn.classes_file import Classes
from mmprompt.common.checkpoint import read_metadata, resolve_weights
from mmprompt.common.files import atomic_file
from mmprompt.foundation.seem.checkpoint import FORMAT, KIND, read_base

#: What can be learned, and what to call it; names of `methods.ssprompt.methods.METHODS`, and of
#: `SPMBackbone.tuning`.
METHODS = {
    'zero-shot': 'zero-shot',
    'spaprompt': 'SpaPrompt',
    'semprompt': 'SemPrompt',
    'ssprompt': 'SSPrompt',
    'coop': 'CoOp',
    'coop-m4': 'CoOp, "a photo of a"',
    'coop-csc': 'CoOp, class-specific',
    'locn': 'LOCN',
    'vspl': 'VSPL',
    **spm.METHODS,
}
SHORT_SIDE = 512  # the paper's


@dataclass(frozen=True)
class Recipe:
    """How prompts are learned; see the command line of the same names."""

    base: str
    steps: int = 200
    lr: float = 0.01
    batch: int = 4
    short_side: int = SHORT_SIDE
    seed: int = 0
    workers: int = 1


def base_facts(base: str) -> dict:
    """`config`, `fingerprint` and `record` of a base; of our own files the header alone is read.

    Raises:
        UserError: it cannot be used.
    """
    if is_config(base):
        return spm.base_facts(base)
    path = resolve_weights(base)
    metadata = read_metadata(path) if path.suffix == '.safetensors' else {}
    if (metadata.get('kind'), metadata.get('format')) != (KIND, FORMAT):
        return read_base(path)[1]
    decoded = {key: json.loads(metadata[key]) for key in ('config', 'record')}
    return dict(decoded, fingerprint=metadata['fingerprint'])


def short_side_of(facts: Mapping, images: int) -> int:
    """The short side to work at: what the base was trained on, but no more than the images have.

    Args:
        facts: of `base_facts`.
        images: median short side of the images, pixels.
    """
    size = ((facts.get('record') or {}).get('data') or {}).get('size')
    return min([*(size or [SHORT_SIDE]), images])


def write_configs(
    out: Path,
    images: Path,
    classes: Classes,
    palette: list,
    parts: Mapping[str, list],
    recipe: Recipe,
    facts: Mapping,
    few_shot: bool,
) -> None:
    """Write ``configs/base.py`` and a leaf for each method.

    Args:
        out: the folder of the results.
        images: the user's images.
        classes: names and words.
        palette: an RGB triple per class, for pictures.
        parts: images by part; only whether there are some counts.
        recipe: how prompts are learned.
        facts: of `base_facts`.
        few_shot: whether ``few_shot.json`` says which training images are used.
    """
    folder = out / 'configs'
    _write(folder / 'base.py', _base(out, images, classes, palette, parts, recipe, facts, few_shot))
    for method in methods_of(recipe.base):
        _write(folder / f'{method}.py', _leaf(out, method))


def methods_of(base: str) -> dict[str, str]:
    """Those of `METHODS` that a base can learn."""
    prompted = is_config(base)
    return {k: v for k, v in METHODS.items() if (k in spm.METHODS) == prompted}


def _leaf(out: Path, method: str) -> str:
    config, place = f'{out}/configs/{method}.py', f'{out}/again/{method}'
    lines, prompt = [f'# {METHODS[method]} on your images.'], ''
    if method != 'zero-shot':
        lines.append(f'#   python tools/train.py {config} --work-dir {place}')
        prompt = f' {place}/{spm.files_of(method)[0]}'
    lines.append(f'#   python tools/test.py {config}{prompt} --work-dir {place}/test')
    lines.append("_base_ = './base.py'")
    changed = f'method={method!r}'
    if method in spm.METHODS:
        changed = f'backbone=dict(tuning={method!r})'
    lines.append(f'model = dict({changed})')
    if method == 'zero-shot':
        nothing = ('train_dataloader', 'train_cfg', 'optim_wrapper', 'param_scheduler')
        lines.append(' = '.join(nothing) + ' = None')
    return '\n'.join(lines) + '\n'


def _model(classes: Classes, recipe: Recipe, facts: Mapping) -> dict:
    config = facts['config']
    return dict(
        type='SSPromptSegmentor',
        base=recipe.base,
        classes=classes.names,
        texts=classes.texts,
        data_preprocessor=dict(
            type='mmseg.SegDataPreProcessor',
            mean=[123.675, 116.28, 103.53],
            std=[58.395, 57.12, 57.375],
            bgr_to_rgb=True,
            pad_val=0,
            seg_pad_val=255,
            size_divisor=32,
            test_cfg=dict(size_divisor=32),
        ),
        backbone=config['backbone'],
        decode_head=dict(
            type='SEEMPromptHead',
            pixel_decoder=config['pixel_decoder'],
            decoder=config['decoder'],
            spatial_prompt=dict(
                type='SpaPrompt', num_prompts=config['decoder'].get('num_queries', 101) - 1
            ),
            semantic_prompt=dict(type='SemPrompt'),
            loss_decode=dict(type='SSPromptSemanticLoss', mode='nll'),
        ),
        feature_cache=dict(root='auto', dtype='fp32', limit_gb=20.0, memory_gb=2.0),
        train_cfg=dict(),
        test_cfg=dict(mode='whole'),
    )


def _base(out, images, classes, palette, parts, recipe, facts, few_shot) -> str:
    """The text of ``base.py``; for the arguments see `write_configs`."""
    if is_config(recipe.base):
        prior = out.resolve() / spm.CLASS_PRIOR
        model = spm.model_of(classes, facts['config'], prior)
    else:
        model = _model(classes, recipe, facts)
    model = pformat(model, width=96, sort_dicts=False)
    texts = (
        _data(out, images, classes, palette, parts, recipe, few_shot),
        f'model = {model}\n',
        _schedule(recipe, bool(parts['val'])),
        _runtime(recipe),
    )
    return '\n'.join(texts)


def _data(out, images, classes, palette, parts, recipe, few_shot) -> str:
    loaders = {part: _loader(part, recipe, len(names), few_shot) for part, names in parts.items()}
    val = bool(parts['val'])
    return f"""\
# Written by tools/learn.py: the model, the data and the recipe that all methods share.
images = {str(images.resolve())!r}
prepared = {str(out.resolve())!r}
metainfo = dict(
    classes={classes.names!r},
    palette={palette!r},
)
scale = (65536, {recipe.short_side})  # the short side; no image reaches the other number
train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='mmseg.LoadAnnotations'),
    dict(type='mmseg.Resize', scale=scale, keep_ratio=True),
    dict(type='mmseg.RandomFlip', prob=0.5),
    dict(type='mmseg.PackSegInputs'),
]
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='mmseg.Resize', scale=scale, keep_ratio=True),
    # After the resizing, so that metrics see the labels at their own size.
    dict(type='mmseg.LoadAnnotations'),
    dict(type='mmseg.PackSegInputs'),
]
{loaders['train']}
{loaders['val'] if val else 'val_dataloader = None'}
{loaders['test']}
{"val_evaluator = dict(type='ClassIoU')" if val else 'val_evaluator = None'}
test_evaluator = dict(type='ClassIoU')
"""


def _schedule(recipe: Recipe, val: bool) -> str:
    decay = spm.WEIGHT_DECAY if is_config(recipe.base) else 1e-4
    return f"""\
optim_wrapper = dict(
    type='OptimWrapper', optimizer=dict(type='AdamW', lr={recipe.lr!r}, weight_decay={decay})
)
param_scheduler = [
    dict(type='PolyLR', power=0.9, eta_min=0.0, begin=0, end={recipe.steps}, by_epoch=False)
]
train_cfg = dict(type='IterBasedTrainLoop', max_iters={recipe.steps}\
{f', val_interval={recipe.steps}' if val else ''})
{"val_cfg = dict(type='ValLoop')" if val else 'val_cfg = None'}
test_cfg = dict(type='TestLoop')
randomness = dict(seed={recipe.seed})
"""


def _runtime(recipe: Recipe) -> str:
    return f"""\
default_scope = 'mmprompt'
custom_imports = dict(imports=['mmprompt'], allow_failed_imports=False)
env_cfg = dict(
    cudnn_benchmark=True,
    mp_cfg=dict(mp_start_method='fork', opencv_num_threads=0),
    dist_cfg=dict(backend='nccl'),
)
default_hooks = dict(
    timer=dict(type='IterTimerHook'),
    logger=dict(type='LoggerHook', interval={max(1, min(50, recipe.steps))}, \
log_metric_by_epoch=False),
    param_scheduler=dict(type='ParamSchedulerHook'),
    checkpoint=dict(
        type='CheckpointHook', by_epoch=False, interval={max(1, recipe.steps // 4)}, \
max_keep_ckpts=1
    ),
    sampler_seed=dict(type='DistSamplerSeedHook'),
)
log_processor = dict(by_epoch=False)
log_level = 'INFO'
load_from = None
resume = False
"""


def _loader(part: str, recipe: Recipe, number: int, few_shot: bool) -> str:
    train = part == 'train'
    pipeline = 'train_pipeline' if train else 'test_pipeline'
    dataset = f"""dict(
        type='FolderDataset',
        metainfo=metainfo,
        ann_file=f'{{prepared}}/splits/{part}.txt',
        data_prefix=dict(img_path=images, seg_map_path=f'{{prepared}}/labels'),
        pipeline={pipeline},
    )"""
    if train and few_shot:
        dataset = (
            f"dict(type='FewShotDataset', manifest=f'{{prepared}}/few_shot.json', dataset={dataset}"
            f')'
        )
    sampler = (
        "type='ResumableSampler', shuffle=True" if train else "type='DefaultSampler', shuffle=False"
    )
    return f"""{part}_dataloader = dict(
    batch_size={min(recipe.batch, number) if train else 1},
    num_workers={recipe.workers},
    persistent_workers={recipe.workers > 0},
    sampler=dict({sampler}),
    dataset={dataset},
)"""


def _write(path: Path, text: str) -> None:
    with atomic_file(path) as stream:
        stream.write(text.encode())

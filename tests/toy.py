"""Tiny everything: a SEEM base, street-like images and configs, made in milliseconds."""

import functools
from pathlib import Path

import mmengine.runner.runner as runner_module
import numpy as np
import torch
from layouts import LAYOUTS, find_layout, write_chase
from layouts import write as write_layout
from mmengine.config import Config, ConfigDict
from mmengine.structures import PixelData
from mmseg.datasets import CityscapesDataset
from mmseg.structures import SegDataSample
from PIL import Image

from mmprompt.foundation.seem import SEEM
from mmprompt.foundation.seem.checkpoint import save_base
from mmprompt.foundation.seem.templates import BARE_TEMPLATES, seem_templates
from mmprompt.foundation.seem.tokenizer import collect_token_ids

# Every Runner asks compilers and drivers for their versions, which takes seconds.
runner_module.collect_env = functools.cache(runner_module.collect_env)
CLASSES = CityscapesDataset.METAINFO['classes']
QUERIES = 10
PROMPTS = QUERIES - 1  # a square number, for the grid of points
DIM = 16
HEIGHT, WIDTH = 32, 64


def toy_seem(classes=CLASSES, in_channels=(8, 16, 32, 64), **decoder) -> dict:
    """Constructor dicts of a SEEM with some ten thousand parameters."""
    return dict(
        backbone=dict(
            type='mmprompt.FocalNet',
            embed_dim=8,
            depths=(1, 1, 1, 1),
            focal_levels=(1, 1, 1, 1),
            focal_windows=(3, 3, 3, 3),
            mlp_ratio=1.0,
            drop_path_rate=0.1,
            block='dw',
            layer_scale=0.5,
        ),
        pixel_decoder=dict(
            type='mmprompt.TransformerFPN',
            in_channels=in_channels,
            dim=DIM,
            mask_dim=DIM,
            num_layers=1,
            num_heads=2,
            ffn_dim=16,
            num_groups=4,
        ),
        decoder=dict(
            type='mmprompt.SEEMDecoder',
            dim=DIM,
            num_layers=3,
            num_heads=2,
            ffn_dim=16,
            num_queries=QUERIES,
            mask_dim=DIM,
            proj_dim=DIM,
            num_memory=2,
            **decoder,
        ),
        text_encoder=dict(
            type='mmprompt.SEEMTextEncoder',
            width=16,
            num_layers=1,
            num_heads=2,
            context_length=24,  # room for CoOp's 16
            dim=DIM,
            token_ids=collect_token_ids(classes, (*BARE_TEMPLATES, *seem_templates())),
        ),
    )


def stir(decoder) -> None:
    """Larger random weights, with which a toy's queries differ and its label maps have classes."""
    generator = torch.Generator().manual_seed(0)
    rows = (decoder.query_feat, decoder.query_embed, decoder.class_embed)
    with torch.no_grad():
        for weight in (*rows, *(layer.weight for layer in decoder.mask_embed)):
            weight.normal_(generator=generator)


def write_base(path: Path, seem: dict | None = None, seed: int = 0) -> Path:
    """Write a base file with random weights; equal seeds give equal files."""
    seem = seem or toy_seem()
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return save_base(path, SEEM(**seem), seem, dict(seed=seed))


def toy_segmentor(base: Path | str, seem: dict | None = None, **model) -> ConfigDict:
    """Model config of an `SSPromptSegmentor` over `write_base`; `model` overrides its keys."""
    seem = seem or toy_seem()
    head = dict(
        type='SEEMPromptHead',
        pixel_decoder=seem['pixel_decoder'],
        decoder=seem['decoder'],
        text_encoder=seem['text_encoder'],
        spatial_prompt=dict(type='SpaPrompt', num_prompts=PROMPTS),
        semantic_prompt=dict(type='SemPrompt'),
    )
    config = dict(
        type='SSPromptSegmentor',
        backbone=seem['backbone'],
        decode_head={**head, **model.pop('decode_head', {})},
        classes=CLASSES,
        base=str(base),
        templates=BARE_TEMPLATES,
        data_preprocessor=dict(
            type='mmseg.SegDataPreProcessor',
            mean=[123.675, 116.28, 103.53],
            std=[58.395, 57.12, 57.375],
            bgr_to_rgb=True,
            size_divisor=32,
            test_cfg=dict(size_divisor=32),
        ),
    )
    return ConfigDict({**config, **model})


def toy_batch(batch: int = 2, size=(HEIGHT, WIDTH), classes: int = len(CLASSES)) -> dict:
    """What a data loader gives: BGR images 0 to 255 and samples with labels, some ignored."""
    generator = torch.Generator().manual_seed(7)
    inputs, samples = [], []
    for _ in range(batch):
        cells = torch.randint(classes, (1, size[0] // 8, size[1] // 8), generator=generator)
        label = cells.repeat_interleave(8, 1).repeat_interleave(8, 2)
        image = (label * 13).expand(3, -1, -1) + torch.randint(9, (3, *size), generator=generator)
        label[:, :2] = 255
        shape = dict(img_shape=size, ori_shape=size, pad_shape=size)
        sample = SegDataSample(metainfo=dict(shape, seg_map_path='toy_labelTrainIds.png'))
        sample.gt_sem_seg = PixelData(data=label)
        inputs.append(image.to(torch.uint8))
        samples.append(sample)
    return dict(inputs=inputs, data_samples=samples)


def _scene(random: np.random.Generator, classes: int, size) -> tuple[np.ndarray, np.ndarray]:
    """RGB image and label map; every class is somewhere."""
    rows, columns = size[0] // 4, size[1] // 8
    cells = random.permutation(rows * columns) % classes
    label = cells.reshape(rows, columns).astype(np.uint8).repeat(4, 0).repeat(8, 1)
    image = np.stack([label * 13, 255 - label * 13, label * 5], -1)
    noisy = image.astype(int) + random.integers(-9, 10, image.shape)
    return np.clip(noisy, 0, 255).astype(np.uint8), label


def _save(array: np.ndarray, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path)


def write_streets(root: Path, train: int = 4, val: int = 2, size=(HEIGHT, WIDTH)) -> Path:
    """Write images and labels in the folders of Cityscapes."""
    random = np.random.default_rng(0)
    for split, count in (('train', train), ('val', val), ('test', val)):
        for index in range(count):
            image, label = _scene(random, len(CLASSES), size)
            instances = np.where(label >= 11, label.astype(np.uint16) * 1000, label)
            stem = f'{split}/toy/toy_{index:06d}_000000'
            _save(image, root / f'leftImg8bit/{stem}_leftImg8bit.png')
            _save(label, root / f'gtFine/{stem}_gtFine_labelTrainIds.png')
            _save(instances.astype(np.uint16), root / f'gtFine/{stem}_gtFine_instanceIds.png')
    return root


def streets_dataset(root: Path) -> dict:
    """Config of the test images of `write_streets` in a pipeline that changes none of them."""
    return dict(
        type='mmseg.CityscapesDataset',
        data_root=str(root),
        img_suffix='_leftImg8bit.png',
        seg_map_suffix='_gtFine_labelTrainIds.png',
        data_prefix=dict(img_path='leftImg8bit/test', seg_map_path='gtFine/test'),
        test_mode=True,
        pipeline=[
            dict(type='LoadImageFromFile'),
            dict(type='mmseg.LoadAnnotations'),
            dict(type='mmseg.PackSegInputs'),
        ],
    )


def write_camvid(root: Path, size=(HEIGHT, WIDTH)) -> Path:
    """Write frames and labels in the folders of CamVid: a long dusk clip and two day clips."""
    random = np.random.default_rng(0)
    frames = {'train': dict.fromkeys(('0001TP', '0006R0', '0016E5'), 3), 'val': {'0016E5': 2}}
    frames['train']['0001TP'] = 33
    for split, clips in frames.items():
        for clip, count in clips.items():
            for index in range(count):
                image, label = _scene(random, 12, size)
                _save(image, root / split / f'{clip}_{index:06d}.png')
                _save(label, root / f'{split}annot' / f'{clip}_{index:06d}.png')
    return root


def write_chase_db1(root: Path, size=(HEIGHT, WIDTH)) -> Path:
    """Write images and masks in the folders of CHASE-DB1's archive."""
    write_chase(root, size)
    return root


def _walk(node):
    if isinstance(node, dict):
        yield node
    for value in node.values() if isinstance(node, dict) else node:
        if isinstance(value, (dict, list, tuple)):
            yield from _walk(value)


def _toy_data(dataset: ConfigDict, folder: Path) -> Path:
    """Write toy data for a dataset's config below `folder`, once; return its folder."""
    layout = find_layout(dataset.data_root, dataset.data_prefix.img_path)
    # `write_streets` writes the folders of Cityscapes with instances.
    if layout is not None and layout is not LAYOUTS['cityscapes']:
        root = folder / layout.root
        if not root.exists():
            write_layout(folder, layout, [(HEIGHT, WIDTH), (WIDTH, HEIGHT)], cell=2)
        return root
    writer = {
        'mmseg.CityscapesDataset': write_streets,
        'CamVidDataset': write_camvid,
        'ChaseDB1FolderDataset': write_chase_db1,
    }[dataset.type]
    root = folder / writer.__name__
    return root if root.exists() else writer(root)


#: Sizes of a wrapped backbone by its type, and the channels of its four outputs with them.
TOY_BACKBONES = {
    'mmseg.ResNet': (dict(depth=18, base_channels=8, stem_channels=8), [8, 16, 32, 64]),
    'mmseg.ResNetV1c': (dict(depth=18, base_channels=8, stem_channels=8), [8, 16, 32, 64]),
    'mmseg.VisionTransformer': (
        dict(embed_dims=16, num_heads=2, img_size=(HEIGHT, WIDTH)),
        [16] * 4,
    ),
    'mmseg.SwinTransformer': (
        dict(embed_dims=8, depths=(2, 2, 2, 2), num_heads=(1, 2, 4, 8), window_size=2),
        [8, 16, 32, 64],
    ),
}


def _shrink_spm(model: ConfigDict) -> None:
    """A prompted segmentor of the same classes, places and heads with narrow layers, at random."""
    wrapped = model.backbone.backbone
    sizes, channels = TOY_BACKBONES[wrapped.type]
    wrapped.update(init_cfg=None, **sizes)
    model.backbone.prompter.channels = 8
    for head in (model.decode_head, *model.get('auxiliary_head', ())):
        several = isinstance(head.in_index, (list, tuple))
        head.in_channels = channels if several else channels[head.in_index]
        head.channels = 8
    model.expected_parameters = None
    if model.data_preprocessor.get('size'):
        model.data_preprocessor.size = (HEIGHT, WIDTH)
    if model.test_cfg.mode == 'slide':
        model.test_cfg.stride = (HEIGHT // 2, WIDTH // 2)


def shrink(cfg: Config, folder: Path) -> Config:
    """The same experiment with a toy base, toy data below `folder`, and one iteration."""
    # A Runner lays its config out five times, which takes seconds with the formatter.
    cfg = Config(cfg.to_dict(), filename=cfg.filename, format_python_code=False)
    classes = cfg.model.classes
    if cfg.model.type == 'SSPromptSegmentor':
        head = cfg.model.decode_head
        words = cfg.model.get('texts') or classes
        seem = toy_seem(words, object_tokens=head.decoder.get('object_tokens', False))
        # One by one: ConfigDict.update would merge the old sizes into the new.
        head.pixel_decoder, head.decoder = seem['pixel_decoder'], seem['decoder']
        head.text_encoder = seem['text_encoder']
        head.spatial_prompt.num_prompts = PROMPTS
        cfg.model.backbone = seem['backbone']
        cfg.model.base = str(write_base(folder / 'base.safetensors', seem))
        cfg.model.expected_parameters = None
    elif cfg.model.type == 'SSPromptSAM':
        from toy_sam import toy_sam_parts, write_sam  # which builds on this file

        head, parts = cfg.model.decode_head, toy_sam_parts(classes)
        head.decoder, head.text_encoder = parts['decoder'], parts['text_encoder']
        head.spatial_prompt.num_prompts = PROMPTS
        cfg.model.backbone = parts['backbone']
        cfg.model.base = str(write_sam(folder / 'sam.pt'))
        cfg.model.text_base = str(write_base(folder / 'text.safetensors', toy_seem(classes)))
        cfg.model.expected_parameters = None
    elif cfg.model.type == 'SPMSegmentor':
        _shrink_spm(cfg.model)
    elif cfg.model.type == 'SAMCPDetector':
        from toy_samcp_leaves import shrink_samcp

        shrink_samcp(cfg, folder)
        return _briefly(cfg, folder)
    else:
        cfg.model.seem = toy_seem(classes)
        cfg.model.base = None
    for node in _walk(cfg._cfg_dict):
        if 'type' in node and 'data_root' in node:
            node.data_root = str(_toy_data(node, folder))
        if node.get('type') == 'FewShotDataset':
            node.update(manifest=None, k=1)
        if 'scale' in node:
            node.scale = (WIDTH, HEIGHT)
        if 'crop_size' in node:
            node.crop_size = (HEIGHT, WIDTH)
        if 'data_record' in node:
            node.data_record = None  # toy data have none
    return _briefly(cfg, folder)


def _briefly(cfg: Config, folder: Path) -> Config:
    for node in _walk(cfg._cfg_dict):
        if 'num_workers' in node:
            node.update(num_workers=0, persistent_workers=False)
    if cfg.get('train_cfg'):
        cfg.train_cfg.update(max_iters=1, val_interval=1)
    cfg.work_dir = str(folder / 'work')
    return cfg

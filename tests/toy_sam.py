"""A tiny SAM: a checkpoint under the public names, and configs over it."""

import re
from pathlib import Path

import torch
from mmengine.config import ConfigDict
from toy import CLASSES, DIM, PROMPTS, toy_seem, toy_segmentor, write_base

from mmprompt.foundation.sam import SAM

SAM_DIM = 16


def toy_sam() -> dict:
    """Constructor dicts of a SAM with some ten thousand parameters."""
    return dict(
        image_encoder=dict(
            type='mmprompt.SAMImageEncoder',
            embed_dims=(8, 8, 16, 16),
            depths=(1, 1, 1, 1),
            num_heads=(1, 1, 2, 2),
            window_sizes=(2, 2, 2, 2),
            dim=SAM_DIM,
        ),
        prompt_encoder=dict(type='mmprompt.SAMPromptEncoder', dim=SAM_DIM, mask_channels=8),
        mask_decoder=dict(type='mmprompt.SAMMaskDecoder', dim=SAM_DIM, num_heads=2, ffn_dim=16),
    )


def to_public(name: str) -> str:
    """A name in `SAM` -> the name in MobileSAM's file; the inverse of `checkpoint.to_ours`."""
    name = re.sub(r'^(image_encoder\..*)\.conv\.weight$', r'\1.c.weight', name)
    patch = re.match(r'image_encoder\.body\.patch_embed\.conv(\d)\.', name)
    stage = re.match(r'image_encoder\.body\.stages\.(\d)\.', name)
    if patch:
        place = 2 * (int(patch[1]) - 1)
        return f'image_encoder.patch_embed.seq.{place}.{name[patch.end() :]}'
    if stage:
        rest = name[stage.end() :]
        return f'image_encoder.layers.{int(stage[1]) - rest.startswith("downsample.")}.{rest}'
    return name


def stirred_sam(seed: int = 0) -> SAM:
    """Random weights, large enough that points and images tell masks apart."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = SAM(**toy_sam()).eval()
        with torch.no_grad():
            for name, tensor in model.named_parameters():
                if tensor.ndim > 1 and not name.startswith('image_encoder.body'):
                    tensor.normal_(std=1.0 if tensor.ndim == 4 else 0.5)
    return model


def write_sam(path: Path, seed: int = 0) -> Path:
    """Write a checkpoint as MobileSAM's file has it, the unused classifier included."""
    tensors = {to_public(k): v for k, v in stirred_sam(seed).state_dict().items()}
    tensors['image_encoder.norm_head.weight'] = torch.ones(16)
    tensors['image_encoder.head.bias'] = torch.ones(5)
    torch.save(tensors, path)
    return path


def toy_sam_parts(words=CLASSES) -> dict:
    """Backbone, decoder and text encoder of a toy `SSPromptSAM`."""
    sam = toy_sam()
    decoder = dict(
        type='mmprompt.SAMPointDecoder',
        prompt_encoder=sam['prompt_encoder'],
        mask_decoder=sam['mask_decoder'],
        text_dim=DIM,
        area=(0.5, 1.0),
    )
    text = toy_seem(words)['text_encoder']
    return dict(backbone=sam['image_encoder'], decoder=decoder, text_encoder=text)


def toy_sam_segmentor(folder: Path, **model) -> ConfigDict:
    """Model config of an `SSPromptSAM` over files that are written into `folder`."""
    parts = toy_sam_parts()
    head = dict(
        type='SAMPromptHead',
        decoder={**parts['decoder'], **model.pop('decoder', {})},
        text_encoder=parts['text_encoder'],
        pixel_decoder=None,
        spatial_prompt=dict(type='SpaPrompt', num_prompts=PROMPTS, source='points'),
        semantic_prompt=dict(type='SemPrompt'),
    )
    config = dict(
        type='SSPromptSAM',
        backbone=parts['backbone'],
        text_base=str(write_base(folder / 'text.safetensors')),
        decode_head={**head, **model.pop('decode_head', {})},
    )
    return toy_segmentor(write_sam(folder / 'sam.pt'), **config, **model)

"""A trained SAM-CP from its config and weights, and what is known about its training."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config

import mmprompt  # noqa: F401  (registers the components that a config names)
from mmprompt.apis.pipelines import step_name, steps_of, without_truth
from mmprompt.common.checkpoint import fingerprint
from mmprompt.common.errors import UserError
from mmprompt.common.hooks import check_base, note_training
from mmprompt.common.patch_store import PatchStore
from mmprompt.common.prompt_file import HEAD_FILE, PromptFile
from mmprompt.common.strict_loader import load_strict
from mmprompt.common.text_bank import Names, TextBank
from mmprompt.common.texts import Texts
from mmprompt.datasets.patches import LoadPatches
from mmprompt.methods.samcp import SAMCPDetector
from mmprompt.methods.samcp.text import pick_rows, read_text
from mmprompt.registry import MODELS


def load_samcp(
    config: Config, weights: str | os.PathLike, device: str | torch.device = 'cpu'
) -> tuple[SAMCPDetector, dict[str, Any]]:
    """Build a detector and fill it.

    Args:
        config: of the model.
        weights: ``head.safetensors``, or ``iter_N.pth`` with the whole model.
        device: where it goes.

    Returns:
        The model in evaluation mode, and its recipe, with the `fingerprint` of all of it.

    Raises:
        UserError: there are no such weights, or they belong to another model.
    """
    # Pictures come once: their maps are not kept.
    model = MODELS.build({**config.model, 'feature_cache': None})
    recipe: dict[str, Any] = {}
    if Path(weights).suffix == '.safetensors':
        file = PromptFile.load(weights, kinds=('head',))
        model.load_base()
        model.load_prompt(file)
        recipe = dict(file.recipe)
    else:
        checkpoint = load_strict(weights)
        model.load_base()
        check_base(model, checkpoint.get('mmprompt') or {})
        _fill(model, checkpoint.get('state_dict', checkpoint), weights)
        note_training(model, checkpoint)
        recipe = dict((checkpoint.get('mmprompt') or {}).get('recipe') or {})
    model = model.to(device).eval()
    recipe['fingerprint'] = fingerprint(model.state_dict())
    return model, recipe


def _fill(model: SAMCPDetector, state: Mapping, weights: str | os.PathLike) -> None:
    found = model.load_state_dict(dict(state), strict=False)
    frozen = 'backbone.' if model.frozen_backbone else None
    missing = [k for k in found.missing_keys if frozen is None or not k.startswith(frozen)]
    wrong = missing + list(found.unexpected_keys)
    if wrong:
        raise UserError(
            f'{weights}: expected the weights of the model of this config, found them without '
            f'{len(missing)} tensors of it and with {len(found.unexpected_keys)} others, such as '
            f'{wrong[0]!r}. Give the config of that training, or {HEAD_FILE}.'
        )


def read_names(text: str | Mapping, own: Sequence[str], names: Names, dim: int) -> Texts:
    """Embeddings of any class names, from what a config has for its own classes.

    Args:
        text: ``model.head.text`` of the config: an encoder, or rows of names that are known.
        own: classes of the config, whose rows a ``.npy`` file has.
        names: the classes that are wanted, each a name or a list of names.
        dim: width of the embeddings.

    Raises:
        UserError: there is no row of a name, or the encoder cannot be had.
    """
    if isinstance(text, Mapping):
        # Of an encoder, `names` would take the place of those that are wanted.
        known = {k: v for k, v in text.items() if k != 'names' or 'array' in text}
        return read_text(known, names, dim)
    if Path(text).suffix == '.npy':
        return read_text(dict(array=text, names=list(own)), names, dim)
    bank = TextBank.load(text)
    mend = (
        'Make a bank of these names with tools/encode_class_names.py, by the encoder that made '
        'this one.'
    )
    rows = bank.embeddings[: len(bank.classes)].float()
    return pick_rows(rows, bank.classes, names, text, mend)


def picture_steps(config: Config) -> tuple[LoadPatches, list[dict]]:
    """What a config does with the patches and with an image at test, without loading of any.

    Raises:
        UserError: the config has no test data with patches.
    """
    steps = steps_of(config.get('test_dataloader'))
    loading = next((step for step in steps if step_name(step) == 'LoadPatches'), None)
    if loading is None:
        raise UserError(
            f'{config.filename}: expected a test pipeline with LoadPatches, found '
            f'{[step_name(step) for step in steps] or "none"}. Give the config of the training.'
        )
    loading = {k: v for k, v in loading.items() if k not in ('type', 'store')}
    return LoadPatches('', **loading), without_truth(steps, keep=())


def training_patches(config: Config) -> dict[str, Any] | None:
    """What the store that a config trains on says of its patches; None if it trains on none.

    Returns:
        `generator` and `settings`; if the store is not here, `missing` alone, where it should be.
    """
    for step in steps_of(config.get('train_dataloader')):
        if step_name(step) == 'LoadPatches':
            store = step['store']
            try:
                meta = PatchStore(store).meta
            except UserError:
                files = [store] if isinstance(store, (str, os.PathLike)) else store
                return dict(missing=', '.join(os.path.abspath(file) for file in files))
            return dict(generator=meta['generator'], settings=meta.get('settings'))
    return None

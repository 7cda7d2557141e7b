"""One frozen model, many tasks: every prompt's answer from one image encoding.

The image side runs once. The decoder runs once for all prompts that start its queries alike, which
are all that learned class embeddings alone; those that learned different queries share what it
makes of the image (`foundation.seem.many`). Class lists may differ in every way: a class list is
only compared with queries that are already there.
"""

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from mmprompt.common import mask_merge
from mmprompt.common.errors import UserError
from mmprompt.common.image_groups import padded
from mmprompt.common.text_bank import Names
from mmprompt.common.upsampling import upsample_masks
from mmprompt.foundation.seem import SEEMFeatures, SEEMOutput, inputs
from mmprompt.foundation.seem.many import decode_many
from mmprompt.foundation.seem.seem import batches
from mmprompt.methods.ssprompt.prompt_sets import FrozenBase, PromptSet, read_prompts

TASKS = ('semantic', 'panoptic', 'instance')
#: Values of one boolean mask of the decoder's attention; more prompts than this go in turns.
ATTENTION_VALUES = 1 << 26


class ManyPrompts:
    """A frozen base under many prompts at once.

    Args:
        base: path of a base file or of a public SEEM checkpoint, or ``mmprompt://NAME``.
        prompts: prompt files learned on this base; a list, or a dict by name.
        texts: class lists for the frozen model's own answers, by name.
        templates: sentences around those class names; SEEM's 81 if None.
        device: where the model runs.
        dtype: of its numbers.

    Attributes:
        sets: `PromptSet` by name, in the order given, prompts first.
        fingerprint: of the base.

    Raises:
        UserError: the base or a prompt file cannot be used (the message names it), a word is
            unknown, there is nothing to predict, or two sets have the same name.
    """

    def __init__(
        self,
        base: str | os.PathLike,
        prompts: Sequence | Mapping = (),
        texts: Mapping[str, Names] | None = None,
        templates: Sequence[str] | None = None,
        device: str | torch.device = 'cpu',
        dtype: torch.dtype = torch.float32,
    ) -> None:
        files, texts = read_prompts(prompts), dict(texts or {})
        both = sorted(set(files) & set(texts))
        if both or not (files or texts):
            found = f'two named {both[0]!r}' if both else 'neither prompt files nor class names'
            raise UserError(
                f'prompts and texts: expected at least one set and different names, found {found}. '
                f'Give prompt files or class names.'
            )
        frozen = FrozenBase(base)
        if dtype == torch.float64:  # what is learned is blended in double, too
            frozen.seem.double()
        found = [frozen.learned(name, file) for name, file in files.items()]
        found += [frozen.zero_shot(name, names, templates) for name, names in texts.items()]
        frozen.forget_text()
        self.base, self.fingerprint = str(base), frozen.fingerprint
        self.seem = frozen.seem.to(device=device, dtype=dtype)
        like = self.seem.decoder.class_embed
        self.sets = {
            each.name: replace(
                each,
                semantic=each.semantic.to(like),
                spatial={key: value.to(like) for key, value in each.spatial.items()},
            )
            for each in found
        }
        self._variants, self._rounds = _share(list(self.sets.values()))

    @torch.inference_mode()
    def segment(
        self,
        images: Sequence[inputs.Picture],
        task: str = 'semantic',
        things: Mapping[str, Sequence[int]] | None = None,
        short_side: int | None = None,
        **thresholds,
    ) -> list[dict]:
        """Every image under every prompt; what one image gives does not depend on the others.

        Args:
            images: RGB values 0-255, of any sizes; see `SEEM.segment`.
            task: 'semantic', 'panoptic' or 'instance'.
            things: indices of countable classes by set; for instances, none means all.
            short_side: see `SEEM.segment`.
            thresholds: see `SEEM.segment`.

        Returns:
            For each image a dict by set. 'semantic': (H, W) int64 labels and (C,) mean scores, see
            `mask_merge.semantic_of_many`; 'panoptic': `PanopticResult`; 'instance':
            `InstanceResult`. Sizes are those of the images.

        Raises:
            UserError: an argument cannot be used; it is named, with what was expected.
        """
        if task not in TASKS:
            raise UserError(f'task: expected one of {", ".join(TASKS)}, found {task!r}.')
        chosen = {
            name: inputs.check_options(
                task, (things or {}).get(name, ()), thresholds, len(each.classes)
            )
            for name, each in self.sets.items()
        }
        pictures = [inputs.read_image(image) for image in images]
        sizes = [inputs.resized_size(image.shape[1:], short_side) for image in pictures]
        answers: list[dict] = [{} for _ in pictures]
        for part in batches(sizes, [None] * len(sizes)):
            resized = [inputs.resize_image(pictures[i], sizes[i]) for i in part]
            batch = torch.stack([padded(self.seem.normalise(image)) for image in resized])
            for variant, output in self._decoded(self.seem.encode_image(batch)):
                for place, index in enumerate(part):
                    size, shape = sizes[index], tuple(pictures[index].shape[1:])
                    own = output.of_image(place)
                    maps = upsample_masks(own.pred_masks[0], size, shape)
                    answers[index].update(
                        self._answers(variant, own.queries, maps, task, chosen, thresholds)
                    )
        return [{name: answer[name] for name in self.sets} for answer in answers]

    def _decoded(self, features: SEEMFeatures) -> Iterator[tuple[int, SEEMOutput]]:
        """(variant, prediction) of every way in which the queries start."""
        decoder = self.seem.decoder
        cells = max(m[:, 0].numel() for m in features.multi_scale)
        step = max(1, ATTENTION_VALUES // (decoder.num_queries * cells))
        for together in self._rounds:
            for first in range(0, len(together), step):
                part = together[first : first + step]
                spatial = [self._variants[i][0] for i in part]
                yield from zip(part, decode_many(decoder, features, spatial))

    def _answers(self, variant: int, queries: Tensor, maps, task, things, thresholds) -> dict:
        """One image's answers by set, for all sets whose queries start alike."""
        names = self._variants[variant][1]
        logits = [
            self.seem.decoder.class_logits(queries, self.sets[name].semantic)[0] for name in names
        ]
        if task == 'semantic':
            return dict(zip(names, mask_merge.semantic_of_many(logits, maps)))
        if task == 'panoptic':
            return {
                name: mask_merge.panoptic(each, maps, things[name], **thresholds)
                for name, each in zip(names, logits)
            }
        return {
            name: mask_merge.instances(each, maps, thing_classes=things[name] or None, **thresholds)
            for name, each in zip(names, logits)
        }


Variant = tuple[dict[str, Tensor], list[str]]


def _share(sets: Sequence[PromptSet]) -> tuple[list[Variant], list[list[int]]]:
    """Different starts of the queries with the names of their sets, and which decode together."""
    variants: list[Variant] = []
    for each in sets:
        same = next((names for spatial, names in variants if _equal(spatial, each.spatial)), None)
        if same is None:
            variants.append((each.spatial, [each.name]))
        else:
            same.append(each.name)
    rounds: dict[int, list[int]] = {}
    for index, (spatial, _) in enumerate(variants):
        tokens = spatial['tokens'].shape[1] if 'tokens' in spatial else 0
        rounds.setdefault(tokens, []).append(index)
    return variants, list(rounds.values())


def _equal(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[k], other[k]) for k in one)

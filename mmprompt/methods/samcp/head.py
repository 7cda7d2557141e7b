"""SAM-CP behind any backbone and neck: patches in, affinities and classes out (Figure 2)."""

from collections.abc import Mapping, Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from mmprompt.common.errors import UserError
from mmprompt.methods.samcp.features import ImageFeatures
from mmprompt.methods.samcp.patch_encoder import PatchBatch
from mmprompt.methods.samcp.queries import Noised, QuerySet, SemanticQueries
from mmprompt.methods.samcp.structures import (
    PADDED,
    DecoderOutput,
    DenoisingOutput,
    PatchFeatures,
    SAMCPOutput,
)
from mmprompt.methods.samcp.text import Texts, read_text
from mmprompt.registry import MODELS


@MODELS.register_module()
class SAMCPHead(nn.Module):
    """Patch encoder, queries, affinity decoder, classifier and losses.

    It reads the pyramid of any backbone and neck. Embeddings of the classes are put in by
    `load_text` or `set_text`; building reads no file.

    Args:
        num_classes: C, things and stuff in the dataset's order.
        thing_classes: indices of the T classes that have instances.
        text: where the class embeddings come from, see `read_text`.
        text_dim: their width.
        in_channels: of the pyramid.
        dim: D.
        semantic_classes: 'all' C classes have a semantic query, or the 'stuff' classes only.
        patch_encoder: arguments of `SAMCPPatchEncoder`.
        decoder: of `SAMCPAffinityDecoder`.
        classifier: of `SAMCPClassifier`.
        denoising: of `SAMCPDenoising`; None leaves denoising out.
        loss: of `SAMCPLoss`.

    Raises:
        ValueError: thing classes that are none of the C, or another word for `semantic_classes`.
    """

    def __init__(
        self,
        num_classes: int,
        thing_classes: Sequence[int],
        text: str | Mapping | None = None,
        text_dim: int = 512,
        in_channels: int = 256,
        dim: int = 256,
        semantic_classes: Literal['all', 'stuff'] = 'all',
        patch_encoder: Mapping | None = None,
        decoder: Mapping | None = None,
        classifier: Mapping | None = None,
        denoising: Mapping | None = dict(type='SAMCPDenoising'),
        loss: Mapping | None = None,
    ) -> None:
        super().__init__()
        if semantic_classes not in ('all', 'stuff'):
            raise ValueError(
                f"semantic_classes: expected 'all' or 'stuff', found {semantic_classes!r}."
            )
        self.text_config, self.text_dim, self.asked = text, text_dim, semantic_classes
        self.names: Sequence[Sequence[str]] | None = None  # of the entries, see `Texts`
        self._set_label_space(num_classes, thing_classes)
        for name in ('text', 'entries'):
            self._hold(name, torch.zeros(num_classes, text_dim))
        self._hold('entry_class', torch.arange(num_classes))

        pyramid = dict(dim=dim, in_channels=in_channels)
        self.patch_encoder = _build('SAMCPPatchEncoder', patch_encoder, **pyramid)
        self.semantic_queries = SemanticQueries(text_dim, dim)
        self.denoising = None
        if denoising is not None:
            self.denoising = _build(
                'SAMCPDenoising', denoising, dim=dim, num_classes=len(self.thing_classes)
            )
        self.decoder = _build('SAMCPAffinityDecoder', decoder, **pyramid)
        self.classifier = _build('SAMCPClassifier', classifier, dim=dim, text_dim=text_dim)
        self.criterion = _build('SAMCPLoss', loss)

    # ------------------------------------------------------ classes and text
    def set_classes(self, texts: Texts | Tensor, thing_classes: Sequence[int]) -> None:
        """Give a built head other classes, to be looked for in images; no weight depends on them.

        Args:
            texts: of the C classes.
            thing_classes: indices of those that have instances.

        Raises:
            ValueError: thing classes that are none of the C.
        """
        texts = texts if isinstance(texts, Texts) else Texts(texts)
        self._set_label_space(texts.num_classes, thing_classes)
        self.set_text(texts)

    def load_text(self, classes: Sequence[str]) -> None:
        """Read the embeddings of the classes, by name and in this order.

        Raises:
            UserError: `text` is None, or see `read_text`.
        """
        if self.text_config is None:
            raise UserError(
                'model.head.text: expected where the embeddings of the class names come from, '
                "found None. Give the path of a text bank, of a .npy array, or dict(base=…): 'text="
                'dict(base="mmprompt://seem-nano_streets"), text_dim=80\' needs no other file.'
            )
        self.set_text(read_text(self.text_config, classes, self.text_dim))

    @torch.no_grad()
    def set_text(self, texts: Texts | Tensor) -> None:
        """Take over the embeddings of the classes.

        Args:
            texts: of C classes; a tensor (C, text_dim), of any length, has one entry for each.

        Raises:
            ValueError: of another number of classes.
        """
        if not isinstance(texts, Texts):
            texts = Texts(texts.to(self.text))
        if texts.num_classes != self.num_classes:
            raise ValueError(
                f'set_text: expected embeddings of {self.num_classes} classes, found '
                f'{texts.num_classes}.'
            )
        self.names = texts.names
        class_of = texts.class_of.to(self.columns)
        self._hold('entries', texts.entries.to(self.text))
        self._hold('text', texts.mean.to(self.text))
        self._hold('entry_class', class_of)
        for name, classes in (('thing', self.thing_classes), ('semantic', self.semantic_classes)):
            # Sorted by the place of the class among these.
            places = (classes[:, None] == class_of).nonzero()  # (E', 2): place, entry
            self._hold(f'{name}_entries', places[:, 1])
            self._hold(f'{name}_places', places[:, 0])

    def _set_label_space(self, num_classes: int, thing_classes: Sequence[int]) -> None:
        things = tuple(int(c) for c in thing_classes)
        if len(set(things)) != len(things) or not set(things) <= set(range(num_classes)):
            raise ValueError(
                f'thing_classes: expected different numbers below num_classes = {num_classes}, '
                f'found {things}.'
            )
        self.num_classes = num_classes
        asked = [c for c in range(num_classes) if self.asked == 'all' or c not in things]
        columns = [things.index(c) if c in things else -1 for c in range(num_classes)]
        self._hold('thing_classes', self._whole(things))
        self._hold('semantic_classes', self._whole(asked))
        self._hold('columns', self._whole(columns))

    def _whole(self, numbers: Sequence[int]) -> Tensor:
        device = self.columns.device if 'columns' in self._buffers else None
        return torch.tensor(numbers, dtype=torch.long, device=device)

    def _hold(self, name: str, value: Tensor) -> None:
        """A buffer that no file holds, of whatever size."""
        self.register_buffer(name, value, persistent=False)

    # --------------------------------------------------------------- forward
    def forward(
        self, features: ImageFeatures, patches: PatchBatch, noised: Noised | None = None
    ) -> SAMCPOutput:
        """Affinities and classes of a batch.

        Args:
            features: of the images.
            patches: N of each image.
            noised: denoising queries of a training step.
        """
        encoded = self.patch_encoder(features, patches)
        queries = self._queries(encoded, noised)
        layers = self.decoder(
            queries,
            encoded,
            features,
            lambda boxes, valid: self.patch_encoder.of_boxes(features, boxes, valid),
        )
        return self._output(layers, queries, encoded, noised)

    def _queries(self, patches: PatchFeatures, noised: Noised | None) -> QuerySet:
        # Entries of variance 1, whatever the width, for a linear layer.
        text = self.text[self.semantic_classes] * self.text_dim**0.5
        if noised is None:
            noised, told = Noised.none(patches.boxes), patches.content[:, :0]
        else:
            told = self.denoising.content(noised.labels).to(patches.content)  # (B, R, D)
        return QuerySet.join(self.semantic_queries(text), patches, noised, told)

    def _output(
        self,
        layers: Sequence[DecoderOutput],
        asked: QuerySet,
        patches: PatchFeatures,
        noised: Noised | None,
    ) -> SAMCPOutput:
        things = self._entries('thing')
        queries = torch.stack([layer.queries for layer in layers])  # (L, B, M, D)
        affinity = torch.stack([layer.affinity_logits for layer in layers])  # (L, B, M, N)
        there = asked.valid[:, :, None] & patches.valid[:, None]  # (B, M, N)
        affinity = affinity.masked_fill(~there, PADDED)

        told, semantic, instance = queries.split(asked.counts, dim=2)
        to_told, to_semantic, to_instance = affinity.split(asked.counts, dim=2)
        classes = self.classifier(instance, *things)  # (L, B, N, T)
        denoising = None
        if asked.counts[0]:
            valid = noised.group >= 0  # (B, R)
            logits = self.classifier(told, *things).masked_fill(~valid[..., None], PADDED)
            denoising = DenoisingOutput(logits, to_told, noised.units, noised.positive, valid)
        boxes = torch.stack([layer.boxes for layer in layers])
        return SAMCPOutput(
            semantic_logits=self.classifier.own(semantic, *self._entries('semantic')),
            instance_logits=classes.masked_fill(~patches.valid[..., None], PADDED),
            affinity_semantic=to_semantic,
            affinity_instance=to_instance,
            boxes_instance=boxes.split(asked.counts, dim=2)[2],
            semantic_classes=self.semantic_classes,
            thing_classes=self.thing_classes,
            valid=patches.valid,
            boxes=patches.boxes,
            denoising=denoising,
        )

    def _entries(self, kind: str) -> tuple[Tensor, Tensor | None]:
        """Text and `class_of` for the classifier; classes counted within their kind."""
        if len(self.entries) == self.num_classes:
            return self.text[getattr(self, f'{kind}_classes')], None
        return self.entries[getattr(self, f'{kind}_entries')], getattr(self, f'{kind}_places')

    def loss(self, features: ImageFeatures, samples: Sequence) -> dict[str, Tensor]:
        """Losses of a batch of samples with ``patches`` and ``gt_units``."""
        noised = None
        if self.denoising is not None:
            self._check_denoising()
            units = [sample.gt_units for sample in samples]
            noised = self.denoising(units, self.columns, features.sizes)
        return self.criterion(self(features, batch_of(samples, features), noised), samples)

    def _check_denoising(self) -> None:
        built, now = self.denoising.num_classes, len(self.thing_classes)
        if built != now:
            raise UserError(
                f'SAMCPHead: expected to be trained on the {built} thing classes that it was built '
                f'with, found {now}. Build it with the classes of the data (model.classes, '
                f'model.head.thing_classes).'
            )


def batch_of(samples: Sequence, features: ImageFeatures) -> PatchBatch:
    """The patches of samples.

    Raises:
        UserError: a sample without.
    """
    for sample in samples:
        if 'patches' not in sample:
            raise UserError(
                f'{sample.get("img_path", "a sample")}: expected its patches, found '
                f'{sorted(sample.keys())}. Put LoadPatches into the pipeline and PackPatchInputs '
                f'at its end.'
            )
    return PatchBatch.join([sample.patches for sample in samples], features.sizes)


def _build(default: str, config: Mapping | None, **known) -> nn.Module:
    return MODELS.build({'type': default, **known, **(config or {})})

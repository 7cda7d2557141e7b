"""SAM-CP on any picture and any class names: patches made on the fly, all three results."""

import hashlib
import json
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from mmengine.config import Config
from mmengine.dataset import Compose, pseudo_collate
from mmengine.logging import print_log
from mmengine.registry import init_default_scope

from mmprompt.apis.images import as_picture
from mmprompt.apis.inference.class_lists import ClassList, list_of, own_list
from mmprompt.apis.inference.finer import MARGIN, check_source, levels_of
from mmprompt.apis.inference.finer import finer as look_closer
from mmprompt.apis.inference.patch_scores import patches_of_instances
from mmprompt.apis.inference.predictions import Prediction
from mmprompt.apis.inference.samcp_loading import (
    load_samcp,
    picture_steps,
    read_names,
    training_patches,
)
from mmprompt.apis.inference.things import thing_indices
from mmprompt.apis.patches.generate import build_generator
from mmprompt.apis.patches.source import PatchSource, described, differences, generator_like
from mmprompt.apis.pipelines import steps_of
from mmprompt.common.errors import UserError
from mmprompt.common.text_bank import Names
from mmprompt.common.texts import Texts
from mmprompt.datasets.patch_geometry import remember
from mmprompt.foundation.patch_generators import PatchGenerator
from mmprompt.methods.samcp.alone import ScoreKeeper
from mmprompt.methods.samcp.predict import ImageScores
from mmprompt.registry import TASK_UTILS

ALL = 'all'
#: What is made for each task, by the names that `SAMCPPredictor` has for it.
RESULTS = dict(semantic='semantic', instance='instances', panoptic='panoptic')
THRESHOLDS = dict(
    semantic={},
    instance=dict(top_k='instance_top_k'),
    panoptic=dict(score_threshold='panoptic_score', overlap_threshold='overlap_threshold'),
)


class Seen(NamedTuple):
    """One picture that went through the model.

    Attributes:
        sample: with the results.
        scores: what they were made of.
        batch: what the model's preprocessor was given.
    """

    sample: Any
    scores: ImageScores
    batch: dict


class SAMCPSegmenter:
    """A trained SAM-CP that asks pictures for any classes.

    Args:
        config: of a `SAMCPDetector`; its test pipeline says at which size images are seen, its
            ``model.head.text`` which encoder reads class names.
        weights: ``head.safetensors``, or a checkpoint of the whole model.
        device: where the model runs.
        texts: classes, each a name or a list of names; None: those of the config.
        things: names of the classes that are counted one by one, of `texts` or of finer ones; None:
            those of the training, and `things.THINGS` among other names.
        generator: what makes patches: a name of `GENERATORS`, a config, or a built one. None: what
            made the patches of the training, with its settings.
        options: arguments of the generator, over those settings.
        patches: a finished store, asked first. Alone, it has the patches of all pictures.
        folder: where made patches are kept, see `PatchSource`.

    Attributes:
        model: the detector.
        asked: the present `ClassList`.
        own: that of the config.
        source: where patches come from.
        recipe: of the weights; of a checkpoint, what can be known.

    Raises:
        UserError: the weights, a name or the patches cannot be used; the message says which.
    """

    def __init__(
        self,
        config: Config,
        weights: str | os.PathLike,
        device: str | torch.device = 'cpu',
        texts: Names | None = None,
        things: Sequence[str] | None = None,
        generator: str | Mapping | PatchGenerator | None = None,
        options: Mapping[str, Any] | None = None,
        patches: str | os.PathLike | None = None,
        folder: str | os.PathLike | None = None,
    ) -> None:
        init_default_scope(config.get('default_scope', 'mmprompt'))
        self.weights = Path(weights)
        self.model, self.recipe = load_samcp(config, weights, device)
        self._test_cfg = config.model.get('test_cfg') or {}
        own = own_list(self.model.head, self.model.classes)
        self.own, self.asked, self._wanted_things = own, own, None
        head = self.model.head
        named = Texts(head.entries, head.entry_class, head.names)
        named.entries = head.entries  # of unit length: not rounded a second time
        self._texts: dict[tuple, Texts] = {(True, own.texts): named}
        self._loading, steps = picture_steps(config)
        self._config_digest = _digest_of(config)
        self._pipeline = Compose(steps)
        trained = self.recipe.get('patches') or training_patches(config)
        _check_options(generator, options, patches)
        if generator is not None or patches is None:
            generator = _generator(generator, trained, dict(options or {}))
        self.source = PatchSource(generator, patches, folder, self._loading.check_image)
        self._say_differences(trained)
        if texts is not None or things is not None:
            self.ask(texts, things)

    def _say_differences(self, trained: Mapping | None) -> None:
        used = None
        if self.source.generator is not None:
            used = described(self.source.generator)
        elif self.source.store is not None:
            used = self.source.store.meta
        for line in differences(trained, used or {})[:3] if used else []:
            print_log(f'patches: made otherwise than those of the training: {line}', 'current')

    # --------------------------------------------------------------- classes
    def ask(
        self,
        texts: Names | None = None,
        things: Sequence[str] | None = None,
        also: Names = (),
    ) -> None:
        """Ask for other classes from now on.

        Args:
            texts: as of the class; None: the classes of the config.
            things: as of the class.
            also: other classes, such as finer ones, which `things` may name.

        Raises:
            UserError: a name is not known to the encoder, or `things` names no class.
        """
        asked = list_of(texts, things, self.own)
        if things is not None:
            thing_indices(dict(asked=asked.texts, also=tuple(also)), things)
        self._wanted_things = things
        self._speak(asked)

    def finer_list(self, texts: Names) -> ClassList:
        """Finer classes, of which those are things that `ask` was told."""
        return list_of(texts, self._wanted_things, self.own)

    def _speak(self, asked: ClassList) -> None:
        if asked == self.asked:
            return
        head, key = self.model.head, (asked.own, asked.texts)
        if key not in self._texts:
            self._texts[key] = read_names(
                head.text_config, self.own.classes, asked.texts, head.text_dim
            )
        self.model.set_classes(asked.classes, asked.things, self._texts[key])
        self.asked = asked

    @contextmanager
    def asking(self, asked: ClassList) -> Iterator[None]:
        """Ask for other classes inside the block."""
        before = self.asked
        self._speak(asked)
        try:
            yield
        finally:
            self._speak(before)

    # -------------------------------------------------------------- pictures
    def predict(
        self,
        picture: np.ndarray,
        path: str | os.PathLike | None = None,
        task: str = ALL,
        finer: Mapping[str, Names] | None = None,
        margin: float = MARGIN,
        patch_scores: bool = False,
        **thresholds: Any,
    ) -> dict[str, Prediction]:
        """Segment one picture.

        Args:
            picture: RGB (H, W, 3) of 0 to 255, which become uint8.
            path: its file, by which a store of patches knows it.
            task: 'semantic', 'instance', 'panoptic', or 'all' of them from one forward pass.
            finer: finer classes by the name of the class in whose objects they are looked for.
            margin: around these objects, see `finer`.
            patch_scores: whether instances tell what they were merged from, see `patch_scores`.
            thresholds: 'panoptic': `score_threshold`, `overlap_threshold`; 'instance': `top_k`.

        Returns:
            A `Prediction` by task, and by level of finer classes.

        Raises:
            UserError: it is no such picture, there are no patches, or an option cannot be used.
        """
        picture = as_picture(picture)
        seen = self.see(picture, path, ALL if finer else task, **thresholds)
        found = {each: self._prediction(each, seen) for each in tasks_of(task)}
        if patch_scores and 'instance' in found:
            told = patches_of_instances(self.model, seen.batch, seen.sample)
            found['instance'] = replace(found['instance'], patches=told)
        if finer:
            whole = found.get('panoptic') or self._prediction('panoptic', seen)
            known = {k: v for k, v in thresholds.items() if k in THRESHOLDS['panoptic']}
            found |= look_closer(self, picture, whole, finer, margin, **known)
        return found

    def check(
        self,
        task: str = ALL,
        thresholds: Mapping[str, Any] | None = None,
        finer: Mapping[str, Names] | None = None,
        patch_scores: bool = False,
        margin: float = MARGIN,
    ) -> None:
        """Refuse what `predict` would refuse for every picture.

        Raises:
            UserError: see there.
        """
        self._predictor(ALL if finer else task, thresholds or {})
        if finer and not (0 <= margin < math.inf):
            raise UserError(
                f'margin around objects (--finer-margin): expected a share of 0 or more, found '
                f'{margin}. Correct it.'
            )
        if patch_scores and task not in (ALL, 'instance'):
            raise UserError(
                f'patch_scores: expected the task {ALL!r} or instance, whose instances they are '
                f'of, found {task!r}. Leave one of the two out.'
            )
        if finer:
            check_source(self.source)
        for level in levels_of(finer or {}, self.asked.classes):
            for texts in level.values():
                with self.asking(self.finer_list(texts)):
                    pass

    @torch.no_grad()
    def see(
        self,
        picture: np.ndarray,
        path: str | os.PathLike | None = None,
        task: str = ALL,
        **thresholds: Any,
    ) -> Seen:
        """Bring one picture through the model; see `predict`."""
        keeper = ScoreKeeper(self._predictor(task, thresholds))
        batch = pseudo_collate([self._item(picture, path)])
        before, self.model.predictor = self.model.predictor, keeper
        try:
            (sample,) = self.model.test_step(batch)
        finally:
            self.model.predictor = before
        (scores,) = keeper.scores
        return Seen(sample, scores, batch)

    def _prediction(self, task: str, seen: Seen) -> Prediction:
        classes, things = self.asked.classes, self.asked.things
        if task != 'semantic':
            return Prediction.of_sample(task, seen.sample, classes, things)
        labels = seen.sample.pred_sem_seg.data[0].cpu()
        labels = torch.where(labels == seen.scores.void, -1, labels)
        scores = class_scores(seen.scores, len(classes))
        return Prediction(
            task, task, classes, things, tuple(labels.shape), labels.numpy(),
            scores.float().numpy(), (labels, scores),
        )  # fmt: skip

    def _predictor(self, task: str, thresholds: Mapping[str, Any]) -> Any:
        wanted = tasks_of(task)
        known = {name: key for each in wanted for name, key in THRESHOLDS[each].items()}
        unknown = sorted(set(thresholds) - set(known))
        if unknown:
            raise UserError(
                f'task {task!r} of SAM-CP takes the thresholds {sorted(known)}, found {unknown}. '
                f'Leave them out.'
            )
        if thresholds.get('top_k', 0) < 0:
            raise UserError(
                f'top_k: expected a number of instances from 0 up, found {thresholds["top_k"]}. '
                f'Correct it.'
            )
        made = {key: each in wanted for each, key in RESULTS.items()}
        given = {known[name]: value for name, value in thresholds.items()}
        return TASK_UTILS.build({'type': 'SAMCPPredictor', **self._test_cfg, **made, **given})

    def _item(self, picture: np.ndarray, path: str | os.PathLike | None) -> dict:
        bgr = np.ascontiguousarray(picture[..., ::-1])
        item = dict(
            img=bgr,
            img_shape=bgr.shape[:2],
            ori_shape=bgr.shape[:2],
            img_path=str(path or ''),
        )
        remember(item)
        item['patch_set'] = patches = self.source(picture, path)
        item['patch_ids'] = self._loading.chosen(patches)
        return self._pipeline(item)

    def facts(self) -> dict[str, Any]:
        """Whose answers these are, plain values: weights, config, present texts, patches."""
        entries = self.model.head.entries.detach().float().cpu().contiguous()
        return dict(
            base=self.recipe['fingerprint'],
            config=self._config_digest,
            embeddings=hashlib.sha256(entries.numpy().tobytes()).hexdigest(),
            patches=self.source.facts(),
        )


def tasks_of(task: str) -> tuple[str, ...]:
    """The tasks that a word asks for.

    Raises:
        UserError: another word.
    """
    if task != ALL and task not in RESULTS:
        raise UserError(f'task: expected one of {(*RESULTS, ALL)}, found {task!r}.')
    return tuple(RESULTS) if task == ALL else (task,)


def class_scores(scores: ImageScores, num_classes: int) -> torch.Tensor:
    """(C,) how sure it is that a class is in the picture: of its query, or its best instance."""
    found = torch.zeros(num_classes)
    if scores.instance.numel():
        found[scores.thing_classes.cpu()] = scores.instance.amax(dim=0).float().cpu()
    found[scores.semantic_classes.cpu()] = scores.semantic.float().cpu()
    return found


def _check_options(
    generator: str | Mapping | PatchGenerator | None, options: Mapping | None, patches: Any
) -> None:
    """Raises `UserError` for options that nothing would read."""
    built = isinstance(generator, PatchGenerator)
    if options and (built or (generator is None and patches is not None)):
        found = 'a built generator' if built else f'the store {patches} alone'
        raise UserError(
            f'patches: expected options ({", ".join(options)}) of a generator by name, found '
            f'{found}. Name the generator, too, as --generator does, or leave the options out.'
        )


def _digest_of(config: Config) -> str:
    """Of what a config says on answers; where its files lie is no part of it."""
    model = {k: v for k, v in config.model.to_dict().items() if k not in ('backbone', 'head')}
    head = {k: v for k, v in config.model.head.to_dict().items() if k != 'text'}
    backbone = {k: v for k, v in config.model.backbone.to_dict().items() if k != 'init_cfg'}
    steps = [{k: v for k, v in s.items() if k != 'store'} for s in steps_of(config.test_dataloader)]
    text = json.dumps([model, head, backbone, steps], sort_keys=True, default=repr)
    return hashlib.sha256(text.encode()).hexdigest()


def _generator(
    given: str | Mapping | PatchGenerator | None, trained: Mapping | None, options: dict
) -> PatchGenerator:
    if isinstance(given, PatchGenerator):
        return given
    if isinstance(given, Mapping):
        return build_generator(dict(given), options)
    if given is None or (trained or {}).get('generator') == given:
        return generator_like(trained, options)
    return build_generator(given, options)

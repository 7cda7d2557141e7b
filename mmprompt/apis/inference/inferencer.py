"""From images to masks: what a notebook imports."""

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.config import Config
from mmengine.dataset import Compose, pseudo_collate
from mmengine.registry import init_default_scope
from mmseg.structures import SegDataSample

import mmprompt  # noqa: F401  (registers the components that a config names)
from mmprompt.apis.bases import is_samcp
from mmprompt.apis.cli import find_config
from mmprompt.apis.images import as_picture, read_frames, read_picture
from mmprompt.apis.inference.finer import MARGIN
from mmprompt.apis.inference.predictions import Prediction
from mmprompt.apis.inference.samcp_segmenter import ALL, RESULTS, SAMCPSegmenter
from mmprompt.apis.inference.things import thing_indices
from mmprompt.apis.pipelines import steps_of, without_truth
from mmprompt.common.checkpoint import SCHEME
from mmprompt.common.errors import UserError
from mmprompt.common.prompt_file import HEAD_FILE, PromptFile
from mmprompt.common.text_bank import Names
from mmprompt.foundation.patch_generators import PatchGenerator
from mmprompt.methods.ssprompt.many import ManyPrompts
from mmprompt.registry import MODELS

Image = str | Path | np.ndarray
Predictions = dict[str, Prediction]
BASES = ('.safetensors', '.pt', '.pth')
ZERO_SHOT = 'zero-shot'


class Inferencer:
    """A frozen model under one prompt or many, ready to be called on images.

    Given a base, it predicts every prompt set from one encoding of an image: prompt files with any
    class lists, and class names for the model's own, zero-shot answer. Prompt files need no config;
    their recipe says how they are put on.

    Given a config, it is the model of that config with at most one prompt. Given one of SAM-CP and
    its weights, it asks for any class names, and answers by task.

    Args:
        base: frozen weights: path of a base file or of a public SEEM checkpoint, or
            ``mmprompt://NAME``; or a config, its path, or its name.
        prompt: path of a prompt file; with a config, None gives the zero-shot model. Of SAM-CP the
            weights, ``head.safetensors`` or a checkpoint.
        device: where the model runs.
        prompts: prompt files learned on the base, in a list or in a dict by name. With a config,
            the base is that of the config.
        texts: class names for zero-shot, each a name or a list of synonyms; or a dict of such lists
            by name. One list is found under 'zero-shot'. SAM-CP takes one list; None: its own.
        templates: sentences around those names; SEEM's 81 if None.
        things: names of the classes that are counted one by one; if None, those that a prompt was
            trained with, and where it was with none, `things.THINGS`.
        short_side: resize so that the shorter side has this many pixels; None keeps the size. Give
            what the prompts were trained at (512 for the public checkpoints, see SSPrompt).
        dtype: of the numbers of the base and its prompts.
        generator: what makes the patches of SAM-CP: a name ('mobile-sam', 'felzenszwalb', 'sam',
            'sam2'), a config with `type`, or a `PatchGenerator`; a dict without `type` changes
            settings of that of the training, which is also taken if it is None.
        patches: a store that has the patches of SAM-CP.
        patch_folder: where made patches are kept for the next time.

    Attributes:
        many: the `ManyPrompts` behind it; None with a config.
        samcp: the `SAMCPSegmenter` behind it; None without a config of SAM-CP.
        model, config: with a config alone.

    Raises:
        UserError: the config, the base or a prompt file cannot be used; the message names it.

    Example:
        >>> segment = Inferencer(
        ...     'mmprompt://seem-nano_streets',
        ...     prompts=['fog.safetensors', 'mine.safetensors'],
        ...     texts=['road', 'sky', ['car', 'automobile']],
        ... )
        >>> found = segment('street.png')
        >>> found['fog'].label_map  # (H, W), indices of found['fog'].classes
        >>> found['zero-shot'].to_data_sample().pred_sem_seg

        >>> segment = Inferencer(
        ...     'configs/samcp/samcp_nano_streets.py', 'head.safetensors', texts=['road', 'car']
        ... )
        >>> found = segment('street.png')
        >>> found['panoptic'].label_map, found['instance'].segments, found['semantic'].label_map
    """

    def __init__(
        self,
        base: str | Path | Config,
        prompt: str | Path | None = None,
        device: str | torch.device = 'cpu',
        *,
        prompts: Sequence[str | Path] | Mapping[str, str | Path] | None = None,
        texts: Names | Mapping[str, Names] | None = None,
        templates: Sequence[str] | None = None,
        things: Sequence[str] | None = None,
        short_side: int | None = None,
        dtype: torch.dtype = torch.float32,
        generator: str | Mapping | PatchGenerator | None = None,
        patches: str | Path | None = None,
        patch_folder: str | Path | None = None,
    ) -> None:
        self._device = checked_device(device)
        self.many: ManyPrompts | None = None
        self.samcp: SAMCPSegmenter | None = None
        is_base = not isinstance(base, Config) and _is_base(base)
        if not is_base:
            self.config = base if isinstance(base, Config) else find_config(base)
        sources = dict(generator=generator, patches=patches, folder=patch_folder)
        own = dict(templates=templates, short_side=short_side)
        own['dtype'] = None if dtype is torch.float32 else dtype
        if not is_base and is_samcp(self.config):
            _refuse(own, 'a config of SAM-CP, which decides them itself')
            self._use_samcp(prompt, prompts, texts, things, sources)
            return
        if any(value is not None for value in sources.values()):
            raise UserError(
                'Inferencer: expected generator, patches and patch_folder with a config of SAM-CP '
                'alone, found another model. Leave them out.'
            )
        if not is_base and prompts is None and texts is None:
            _refuse(own | dict(things=things), 'a config alone, which decides them itself')
            self._use_config(prompt)
            return
        source = base if is_base else _base_of(self.config)
        if prompt is not None:
            if prompts is not None:
                raise UserError(
                    'Inferencer: expected prompt or prompts, found both. Put all into prompts.'
                )
            prompts = [prompt]
        texts = texts if isinstance(texts, Mapping) or texts is None else {ZERO_SHOT: texts}
        self.many = ManyPrompts(source, prompts or (), texts, templates, self._device, dtype)
        self.short_side = short_side
        lists = {name: each.classes for name, each in self.many.sets.items()} | dict(texts or {})
        learned = {name: each.things for name, each in self.many.sets.items()}
        self._things = thing_indices(lists, things, learned)

    # ------------------------------------------------------------ many prompts
    @property
    def classes(self) -> dict[str, tuple[str, ...]]:
        """Class names by prompt set; of SAM-CP by task."""
        if self.samcp is not None:
            return dict.fromkeys(RESULTS, self.samcp.asked.classes)
        return {name: each.classes for name, each in self._sets().items()}

    @property
    def things(self) -> dict[str, tuple[int, ...]]:
        """Indices of countable classes by prompt set; of SAM-CP by task."""
        if self.samcp is not None:
            return dict.fromkeys(RESULTS, self.samcp.asked.things)
        self._sets()
        return self._things

    def stream(
        self,
        images: Iterable[Image],
        task: str | None = None,
        batch: int = 1,
        **thresholds,
    ) -> Iterator[Predictions]:
        """Predictions of one image after the other; as many as `batch` are in memory at once.

        Args:
            images: paths or RGB arrays (H, W, 3) of 0 to 255, of any sizes.
            task: 'semantic', 'panoptic' or 'instance'; of SAM-CP also 'all'. None: 'all' of SAM-CP,
                else 'semantic'.
            batch: images that go through the network together; SAM-CP takes one by one.
            thresholds: 'panoptic': `score_threshold`, `overlap_threshold`; 'instance': `top_k`; see
                `mask_merge`.

        Yields:
            Predictions by prompt set; of SAM-CP by task.

        Raises:
            UserError: an image cannot be read, or an option cannot be used.
        """
        if self.samcp is None:
            self._sets()
        part: list[Image] = []
        for image in images:
            part.append(image)
            if len(part) == batch:
                yield from self._predict(part, task, thresholds)
                part = []
        yield from self._predict(part, task, thresholds)

    def video(
        self, path: str | Path, task: str | None = None, batch: int = 1, **thresholds
    ) -> Iterator[tuple[int, np.ndarray, Predictions]]:
        """(number from 0, RGB frame, predictions) of every frame; see `stream`."""
        part: list[tuple[int, np.ndarray]] = []
        for numbered in read_frames(path):
            part.append(numbered)
            if len(part) == batch:
                yield from self._of_frames(part, task, thresholds)
                part = []
        yield from self._of_frames(part, task, thresholds)

    def _of_frames(self, part: list, task: str | None, thresholds: dict) -> Iterator:
        found = self._predict([frame for _, frame in part], task, thresholds)
        for (number, frame), predictions in zip(part, found):
            yield number, frame, predictions

    def _predict(self, images: list[Image], task: str | None, thresholds: dict) -> list:
        if not images:
            return []
        pictures = [i if isinstance(i, np.ndarray) else read_picture(i) for i in images]
        if self.samcp is not None:
            paths = [None if isinstance(i, np.ndarray) else i for i in images]
            shown = zip(pictures, paths)
            return [self.samcp.predict(*each, task or ALL, **thresholds) for each in shown]
        sets, task = self._sets(), task or 'semantic'
        answers = self.many.segment(pictures, task, self._things, self.short_side, **thresholds)
        return [
            {
                name: Prediction.make(sets[name], task, self.things[name], result)
                for name, result in answer.items()
            }
            for answer in answers
        ]

    def _sets(self) -> dict:
        if self.many is None:
            raise UserError(
                'Inferencer: expected a base with prompts or texts, found a config with at most '
                'one prompt. Give the base: Inferencer(base, prompts=[…]).'
            )
        return self.many.sets

    # ----------------------------------------------------------------- SAM-CP
    def _use_samcp(
        self,
        prompt: str | Path | None,
        prompts: Sequence | Mapping | None,
        texts: Names | Mapping | None,
        things: Sequence[str] | None,
        sources: dict,
    ) -> None:
        given = list(prompts.values() if isinstance(prompts, Mapping) else prompts or ())
        given += [] if prompt is None else [prompt]
        if len(given) != 1 or isinstance(texts, Mapping):
            found = 'lists of texts by name' if len(given) == 1 else f'{len(given)} files'
            raise UserError(
                f'{self.config.filename}: expected the one file of weights that was trained with '
                f'this config of SAM-CP ({HEAD_FILE} or iter_N.pth), and one list of texts, found '
                f'{found}. Give one; `ask` changes the texts of an Inferencer.'
            )
        generator = sources['generator']
        if isinstance(generator, Mapping) and 'type' not in generator:
            sources = {**sources, 'generator': None, 'options': generator}
        self.samcp = SAMCPSegmenter(self.config, given[0], self._device, texts, things, **sources)
        self.model = self.samcp.model

    def ask(
        self,
        texts: Names | None,
        things: Sequence[str] | None = None,
        also: Names = (),
    ) -> None:
        """Ask for other classes from now on; of SAM-CP, whose weights know no class names.

        Args:
            texts: class names, each a name or a list of synonyms; None: the classes of the config.
            things: names of the classes that are counted one by one, see the class.
            also: names of finer classes, which `things` may have too.

        Raises:
            UserError: another model, or a name that the encoder does not know.
        """
        self._samcp_for('ask').ask(texts, things, also)

    def _samcp_for(self, method: str) -> SAMCPSegmenter:
        if self.samcp is None:
            raise UserError(
                f'Inferencer.{method}: expected a config of SAM-CP, found another model. Give '
                f'one, with its weights.'
            )
        return self.samcp

    def finer(
        self, image: Image, rules: Mapping[str, Names], margin: float = MARGIN, **thresholds
    ) -> Predictions:
        """Ask SAM-CP for finer classes inside of what it finds, and for finer ones inside of those.

        Args:
            image: as of a call.
            rules: finer classes by the name of the class in whose objects they are looked for.
            margin: see `finer.MARGIN`.
            thresholds: of panoptic results, see `stream`.

        Returns:
            'panoptic', and for each level 'finer', 'finer-2' and so on: panoptic predictions whose
            segments tell the id of the one that they lie in as `parent`.

        Raises:
            UserError: another model, or see `finer.finer`.
        """
        self._samcp_for('finer')
        return self(image, 'panoptic', finer=rules, margin=margin, **thresholds)

    # ------------------------------------------------------------ one config
    def _use_config(self, prompt: str | Path | None) -> None:
        init_default_scope(self.config.get('default_scope', 'mmprompt'))
        self.model = MODELS.build(self.config.model).to(self._device).eval()
        self.model.load_base()
        if prompt is not None:
            self.model.load_prompt(PromptFile.load(prompt, kinds=('prompt', 'head')))
        self._pipeline = Compose(without_truth(steps_of(self.config.test_dataloader)))

    @torch.no_grad()
    def __call__(
        self, images: Image | Sequence[Image], task: str | None = None, **thresholds
    ) -> Predictions | list[Predictions] | SegDataSample | list[SegDataSample]:
        """Segment one image or a list of them; images of unequal sizes are no matter.

        Args:
            images: a path, an RGB array (H, W, 3) of 0 to 255, or a list of those.
            task: see `stream`; a config has its own.
            thresholds: see `stream`.

        Returns:
            Predictions by prompt set (SAM-CP: by task), or a list of those, at the images' own
            sizes. Of another config: a
            data sample, or a list of them, whose ``pred_sem_seg.data`` is (1, H, W).
        """
        single = isinstance(images, (str, Path, np.ndarray))
        given = [images] if single else list(images)
        if self.many is None and self.samcp is None:
            _refuse(dict(task=task, **thresholds), 'a config alone, which decides them itself')
            inputs = [self._prepare(image) for image in given]
            results = [self.model.test_step(pseudo_collate([item]))[0] for item in inputs]
        else:
            results = list(self.stream(given, task, max(1, len(given)), **thresholds))
        return results[0] if single else results

    def _prepare(self, image: Image) -> dict:
        if not isinstance(image, np.ndarray):
            return self._pipeline(dict(img_path=str(image)))
        bgr = np.ascontiguousarray(as_picture(image)[..., ::-1])
        item = dict(img=bgr, img_shape=bgr.shape[:2], ori_shape=bgr.shape[:2], img_path='')
        for step in self._pipeline.transforms:
            if type(step).__name__ != 'LoadImageFromFile':
                item = step(item)
        return item


def _refuse(options: Mapping[str, Any], found: str) -> None:
    given = [name for name, value in options.items() if value is not None]
    if given:
        raise UserError(
            f'Inferencer: expected {", ".join(given)} with a base and its prompts alone, found '
            f'{found}. Leave them out.'
        )


def _is_base(base: str | os.PathLike) -> bool:
    return str(base).startswith(SCHEME) or Path(base).suffix in BASES


def _base_of(config: Config) -> str:
    base = config.model.get('base')
    if not base:
        raise UserError(
            f'{config.filename}: expected model.base, the frozen weights, found none. Give the '
            f'path of a base file in place of the config.'
        )
    return base


def checked_device(device: str | torch.device) -> torch.device:
    """The device of that name.

    Raises:
        UserError: there is none.
    """
    try:
        found = torch.device(device)
    except RuntimeError as error:
        raise UserError(f'device: expected cpu, cuda or cuda:N, found {device!r}.') from error
    if found.type == 'cuda' and not torch.cuda.is_available():
        raise UserError(
            'device: expected a GPU that PyTorch can use, as cuda says, found none. Use cpu, or '
            'install a PyTorch built for your driver.'
        )
    return found

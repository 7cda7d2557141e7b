"""SAM-CP in `tools/predict.py`: any class names, patches on the fly, all results at once."""

import argparse
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mmprompt.apis.cli import find_config
from mmprompt.apis.images import Source
from mmprompt.apis.inference.finer import (
    MARGIN,
    classes_of,
    level_names,
    levels_of,
    reachable,
    things_of,
)
from mmprompt.apis.inference.inferencer import Predictions, checked_device
from mmprompt.apis.inference.samcp_segmenter import ALL, SAMCPSegmenter, tasks_of
from mmprompt.apis.predict.options import (
    parse_finer,
    parse_prompts,
    parse_texts,
    read_names,
    read_thresholds,
)
from mmprompt.apis.predict.outputs import OutputFolder, Place, ResultSet
from mmprompt.apis.predict.pictures import predict, report
from mmprompt.common.errors import UserError
from mmprompt.common.prompt_file import HEAD_FILE
from mmprompt.common.text_bank import Names

#: Folder of the results of the config's own classes, of one list without a name, and of patches.
TRAINED, TEXTS, PATCHES = 'trained', 'texts', 'patches'


def predict_samcp(args: argparse.Namespace, sources: Sequence[Source]) -> int:
    """What `tools/predict.py` does with a config of SAM-CP; the exit status.

    Each list of texts gets a folder below ``--out`` with one folder per result. Patches are kept
    beside them, so that further lists find them there.
    """
    segmenter, lists = _segmenter(args), _lists(args)
    rules, things = parse_finer(args.finer or []), read_names(args.things)
    asked = [each for texts in lists.values() for each in _names(segmenter, texts)]
    levels_of(rules, [each if isinstance(each, str) else each[0] for each in asked])
    finer = [each for texts in rules.values() for each in texts]
    also = (*asked, *finer)  # of any list may be a thing, or a class to be looked into
    jobs = {
        name: _Job(segmenter, texts, things, also, rules, args) for name, texts in lists.items()
    }
    # Nothing is written before all of them can be.
    folders = {
        name: OutputFolder(Path(args.out) / name, job.sets(), job.run(), args.force)
        for name, job in jobs.items()
    }
    status = 0
    for name, job in jobs.items():
        counts = predict(job.answer, sources, folders[name])
        status = max(status, report(counts, [f'{name}: {", ".join(job.sets())}'], args.out))
    return status


def _names(segmenter: SAMCPSegmenter, texts: Names | None) -> Names:
    return segmenter.own.texts if texts is None else texts


def _lists(args: argparse.Namespace) -> dict[str, Any]:
    if Path(args.out).expanduser().is_file():
        raise UserError(f'--out {args.out}: expected a folder, found a file. Name a folder.')
    lists = parse_texts(args.texts, TEXTS) or {TRAINED: None}
    if PATCHES in lists:
        raise UserError(
            f'--texts: expected a name other than {PATCHES!r}, which is the folder of patches, '
            f'found it. Name the list otherwise.'
        )
    return lists


def _segmenter(args: argparse.Namespace) -> SAMCPSegmenter:
    if args.short_side is not None:
        raise UserError(
            '--short-side: expected no such option for a config of SAM-CP, whose test pipeline '
            'says at which size images are seen, found it. Leave it out.'
        )
    if args.batch != 1:
        raise UserError(
            f'--batch: expected 1 for a config of SAM-CP, which sees one image at a time, found '
            f'{args.batch}. Leave it out.'
        )
    prompts = parse_prompts(args.prompts)
    paths = list(prompts.values() if isinstance(prompts, dict) else prompts)
    if len(paths) != 1:
        raise UserError(
            f'--prompts: expected the one file that was trained with {args.base}, found '
            f'{len(paths)}. Give {HEAD_FILE}, or iter_N.pth of a trained backbone.'
        )
    named = dict(weights=args.weights, points_per_side=args.points_per_side)
    options = {k: v for k, v in named.items() if v is not None} | (args.generator_options or {})
    return SAMCPSegmenter(
        find_config(args.base),
        paths[0],
        checked_device(args.device),
        generator=args.generator,
        options=options,
        patches=args.patches,
        folder=Path(args.out).expanduser() / PATCHES,
    )


class _Job:
    """One list of texts on all pictures.

    Raises:
        UserError: an option cannot be used.
    """

    def __init__(
        self,
        segmenter: SAMCPSegmenter,
        texts: Names | None,
        things: Sequence[str] | None,
        also: Names,
        rules: Mapping[str, Names],
        args: argparse.Namespace,
    ) -> None:
        self.segmenter, self.task = segmenter, args.task or ALL
        self.thresholds = read_thresholds(args)
        self.margin = MARGIN if args.finer_margin is None else args.finer_margin
        self.patch_scores, self.things = bool(args.patch_scores), things
        segmenter.ask(texts, things, also)
        self.asked = segmenter.asked
        self.finer = reachable(rules, self.asked.classes)
        segmenter.check(self.task, self.thresholds, self.finer, self.patch_scores, self.margin)

    def sets(self) -> dict[str, ResultSet]:
        """What is written, by folder."""
        asked = self.asked
        found = {each: ResultSet(each, asked.classes, asked.things) for each in tasks_of(self.task)}
        levels = levels_of(self.finer, asked.classes)
        for name, level in zip(level_names(len(levels)), levels):
            things = things_of(self.segmenter, level)
            found[name] = ResultSet('panoptic', classes_of(level), things)
        return found

    def run(self) -> dict[str, Any]:
        """What decides the answers."""
        asked = self.asked
        finer = {name: [_plain(t) for t in texts] for name, texts in self.finer.items()}
        with self.segmenter.asking(asked):
            facts = self.segmenter.facts()
        return dict(
            task=self.task,
            **self.thresholds,
            texts=[_plain(each) for each in asked.texts],
            things=list(asked.things),
            wanted_things=self.things,
            finer=finer,
            finer_margin=self.margin if finer else None,
            patch_scores=self.patch_scores,
            **facts,
        )

    def answer(self, items: list[tuple[Place, np.ndarray]]) -> Iterator[Predictions]:
        """Predictions of some pictures."""
        for place, picture in items:
            with self.segmenter.asking(self.asked):
                found = self.segmenter.predict(
                    picture,
                    place.path if place.frame is None else None,
                    self.task,
                    finer=self.finer,
                    margin=self.margin,
                    patch_scores=self.patch_scores,
                    **self.thresholds,
                )
            yield found


def _plain(names: str | tuple[str, ...]) -> str:
    return names if isinstance(names, str) else ', '.join(names)

"""Files, folders, patterns and videos, predicted one after the other and written."""

import sys
from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np

from mmprompt.apis.images import Source, find_sources, read_frames, read_picture
from mmprompt.apis.inference.inferencer import Predictions
from mmprompt.apis.predict.outputs import OutputFolder, Place
from mmprompt.common.errors import UserError

#: Predictions of some pictures, in their order.
Answer = Callable[[list[tuple[Place, np.ndarray]]], Iterable[Predictions]]


def predict(
    answer: Answer, inputs: Sequence[str], folder: OutputFolder, batch: int = 1
) -> tuple[int, int, int]:
    """Predict files, folders, patterns and videos, and write what `command.EPILOG` tells.

    Args:
        answer: predictions of some pictures, in their order.
        inputs: see `images.find_sources`.
        folder: where results go.
        batch: pictures that are answered together.

    Returns:
        How many pictures were predicted, were there already, and failed.
    """
    folder.begin()
    done = there = failed = 0
    waiting: list[tuple[Place, np.ndarray]] = []

    def work() -> int:
        count = len(waiting)
        for (place, picture), predictions in zip(waiting, answer(waiting) if waiting else ()):
            folder.write(place, picture, predictions)
            print(f'{place.origin} -> {place.name}', flush=True)
        waiting.clear()
        return count

    for source in find_sources(inputs):
        try:
            for place, picture in _pictures(source, folder):
                if picture is None:
                    there += 1
                    continue
                waiting.append((place, picture))
                if len(waiting) == batch:
                    done += work()
        except UserError as error:
            failed += 1
            print(f'error: {" ".join(str(error).split())}', file=sys.stderr, flush=True)
    return done + work(), there, failed


def _pictures(source: Source, folder: OutputFolder) -> Iterator[tuple[Place, np.ndarray | None]]:
    """The pictures of a source, None for one that is done."""
    if not source.is_video:
        place = Place(source.path, source.name)
        yield place, None if folder.has(place) else read_picture(source.path)
        return
    first = 0
    while folder.has(place := _frame(source, first)):
        first += 1
        yield place, None
    for number, picture in read_frames(source.path, first):
        yield _frame(source, number), picture


def _frame(source: Source, number: int) -> Place:
    return Place(source.path, source.name / f'{number:06d}', number)


def report(counts: tuple[int, int, int], sets: Iterable[str], out: str) -> int:
    """Say what was done; the exit status."""
    done, there, failed = counts
    names = ', '.join(sets)
    print(f'{done} predicted ({names}), {there} there already, {failed} failed: {out}')
    return 1 if failed else 0

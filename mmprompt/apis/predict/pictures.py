"""Files, folders, patterns and videos, predicted one after the other and written."""

import sys
from collections.abc import Callable, Iterable, Iterator

import numpy as np

from mmprompt.apis.images import Source, read_frames, read_picture
from mmprompt.apis.inference.inferencer import Predictions
from mmprompt.apis.predict.outputs import OutputFolder, Place
from mmprompt.common.errors import UserError

#: Predictions of some pictures, in their order.
Answer = Callable[[list[tuple[Place, np.ndarray]]], Iterable[Predictions]]


def predict(
    answer: Answer, sources: Iterable[Source], folder: OutputFolder, batch: int = 1
) -> tuple[int, int, int]:
    """Predict pictures and videos, and write what `command.EPILOG` tells.

    Args:
        answer: predictions of some pictures, in their order.
        sources: of `images.find_sources`.
        folder: where results go.
        batch: pictures that are answered together; where one fails, one by one.

    Returns:
        How many pictures were predicted, were there already, and failed.
    """
    folder.begin()
    done = there = failed = 0
    waiting: list[tuple[Place, np.ndarray]] = []

    def work(items: list[tuple[Place, np.ndarray]]) -> None:
        nonlocal done, failed
        left = list(items)
        try:
            for (place, picture), predictions in zip(items, answer(items) if items else ()):
                folder.write(place, picture, predictions)
                print(f'{place.origin} -> {place.name}', flush=True)
                done += 1
                del left[0]
        except UserError as error:
            if len(left) == 1:
                failed += 1
                _say(error)
            for item in left if len(left) > 1 else ():
                work([item])

    for source in sources:
        try:
            for place, picture in _pictures(source, folder):
                if picture is None:
                    there += 1
                    continue
                waiting.append((place, picture))
                if len(waiting) == batch:
                    items, waiting = waiting, []
                    work(items)
        except UserError as error:  # it cannot be read
            failed += 1
            _say(error)
    work(waiting)
    return done, there, failed


def _say(error: UserError) -> None:
    print(f'error: {" ".join(str(error).split())}', file=sys.stderr, flush=True)


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

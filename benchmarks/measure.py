"""Seconds and peak memory of calls that run in processes of their own, side by side.

A worker process builds its subject once and then runs parts of it on request. Of two workers only
one runs at a time, in turns, so that whatever else happens on the machine hits both alike.
"""

import ctypes
import multiprocessing
import os
import resource
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch

MB = 1e6
STATUS = Path('/proc/self/status')


def _resident(field: str) -> float:
    """A memory field of this process in bytes, such as VmRSS (now) or VmHWM (the most so far)."""
    line = next(line for line in STATUS.read_text().splitlines() if line.startswith(field))
    return int(line.split()[1]) * 1024


def _give_back() -> None:
    """Return to the system what earlier calls left behind."""
    try:
        ctypes.CDLL(None).malloc_trim(0)
    except AttributeError:
        pass  # another libc than glibc


def _peak_of(call: Callable[[], object], device: str) -> float:
    """MB that `call` holds at its peak beyond what was held before.

    On CUDA what PyTorch allocates; on the CPU resident memory, to the accuracy of the allocator.
    """
    if device == 'cuda':
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        call()
        torch.cuda.synchronize()
        return (torch.cuda.max_memory_allocated() - before) / MB
    if not STATUS.exists():  # not Linux: the high-water mark cannot be reset, only grow
        unit = 1 if sys.platform == 'darwin' else 1024
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        call()
        return (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * unit / MB
    _give_back()
    Path('/proc/self/clear_refs').write_text('5')  # the high-water mark starts again from here
    before = _resident('VmRSS')
    call()
    return (_resident('VmHWM') - before) / MB


def _seconds_of(call: Callable[[], object], device: str) -> float:
    if device == 'cuda':
        torch.cuda.synchronize()
    start = time.perf_counter()
    call()
    if device == 'cuda':
        torch.cuda.synchronize()
    return time.perf_counter() - start


def _processor_seconds_of(call: Callable[[], object], device: str) -> float:
    """What this process computes itself, all its threads together, whatever else is running."""
    start = time.process_time()
    call()
    return time.process_time() - start


MEASURES = dict(seconds=_seconds_of, processor=_processor_seconds_of, peak=_peak_of)


def _serve(pipe, build: Callable, arguments: tuple, device: str, threads: int | None) -> None:
    """What a worker does: build, say how many parameters there are, then run what is asked for."""
    if threads:
        torch.set_num_threads(threads)
    torch.manual_seed(0)
    with torch.inference_mode():
        try:
            parameters, parts = build(*arguments)
            pipe.send(parameters)
            while request := pipe.recv():
                name, what = request
                measured = MEASURES[what](parts[name], device)
                _give_back()  # others are measured meanwhile
                pipe.send(measured)
        except Exception as error:
            pipe.send(error)
            raise


class Worker:
    """A process around one subject.

    Args:
        build: a function of this module's importer; gives (parameters, {part: call}).
        arguments: what it is called with; picklable.
        device: 'cpu' or 'cuda'.
        threads: CPU threads, None for PyTorch's own choice.
    """

    def __init__(
        self, build: Callable, arguments: tuple, device: str, threads: int | None = None
    ) -> None:
        # A fresh interpreter: a fork would share pages and thread pools.
        context = multiprocessing.get_context('spawn')
        if threads:
            os.environ['OMP_NUM_THREADS'] = str(threads)
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(
            target=_serve, args=(theirs, build, arguments, device, threads), daemon=True
        )
        self.process.start()
        theirs.close()
        self.parameters = self._answer()

    def _answer(self):
        try:
            answer = self.pipe.recv()
        except EOFError:
            self.process.join()
            raise SystemExit(
                f'a worker died with exit code {self.process.exitcode} (-9: out of memory)'
            ) from None
        if isinstance(answer, Exception):
            raise SystemExit(f'a worker failed: {answer}')
        return answer

    def run(self, part: str, what: str = 'seconds') -> float:
        """One of `MEASURES` of one call of `part`: seconds, or MB at the peak."""
        self.pipe.send((part, what))
        return self._answer()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.process.is_alive():
            try:
                self.pipe.send(None)
            except OSError:
                pass
            self.process.join(10)
            self.process.kill()


def compared(
    workers: list[Worker], part: str, repeats: int, clock: str = 'seconds'
) -> tuple[list, list, list[float]]:
    """Run one part of every worker in turns.

    Returns:
        median seconds per worker, peak MB per worker, and per repeat the ratio of the first
        worker's seconds to the last one's.
    """
    for worker in workers:
        worker.run(part)  # compiles, packs weights, chooses algorithms
    peaks = [worker.run(part, 'peak') for worker in workers]
    times = [[] for _ in workers]
    for repeat in range(repeats):
        turns = list(zip(workers, times))
        for worker, seconds in turns if repeat % 2 else reversed(turns):
            seconds.append(worker.run(part, clock))
    ratios = [first / last for first, last in zip(times[0], times[-1])]
    return [statistics.median(t) for t in times], peaks, ratios

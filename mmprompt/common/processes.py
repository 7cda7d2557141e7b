"""Several processes that work on one training or one evaluation, as `torchrun` starts them.

`torchrun` tells each process its place by environment variables (RANK, WORLD_SIZE, LOCAL_RANK) and
where all of them meet (MASTER_ADDR, MASTER_PORT).
"""

import os
from datetime import timedelta

import torch
import torch.distributed as dist
from mmengine.dist import all_reduce, get_world_size
from torch import Tensor

from mmprompt.common.errors import UserError

_PLACE = ('RANK', 'WORLD_SIZE', 'MASTER_ADDR', 'MASTER_PORT')
#: Seconds that one process waits for the others. A process that ends is noticed at once; this is
#: for one that stands still.
TIMEOUT = 1800
_meeting: dict[str, dist.Store] = {}


def by_torchrun() -> bool:
    """Whether this process was started by `torchrun`, be it as the only one."""
    return all(name in os.environ for name in _PLACE)


def num_processes() -> int:
    """How many processes `torchrun` started, 1 without it."""
    return int(os.environ['WORLD_SIZE']) if by_torchrun() else 1


def is_first() -> bool:
    """Whether this process is the one that writes files and prints results."""
    if dist.is_available() and dist.is_initialized():
        return dist.get_rank() == 0
    return not by_torchrun() or int(os.environ['RANK']) == 0


def meet() -> None:
    """Find the place where all processes of this run meet; nothing for a single one.

    Raises:
        UserError: nobody answers there.
    """
    if num_processes() == 1 or _meeting:
        return
    from torch.distributed.rendezvous import rendezvous

    try:
        store, _, _ = next(rendezvous('env://', timeout=timedelta(seconds=TIMEOUT)))
    except (RuntimeError, ValueError, OSError) as error:
        raise UserError(
            f'expected the other {num_processes() - 1} processes to meet at '
            f'{os.environ["MASTER_ADDR"]}:{os.environ["MASTER_PORT"]}, found {error}. Start all of '
            f'them with one torchrun.'
        ) from error
    _meeting['store'] = dist.PrefixStore('mmprompt', store)


def join(backend: str | None = None, timeout: float | None = None) -> None:
    """Make this process one of the group that `torchrun` started; nothing for a single one.

    Each process takes the GPU of its local rank. Without a GPU the backend is gloo.

    Args:
        backend: 'nccl' (the default) or 'gloo', which lets several processes share a GPU.
        timeout: seconds that one process waits for the others; `TIMEOUT` by default.

    Raises:
        UserError: there are fewer GPUs than processes, or the processes do not meet.
    """
    if num_processes() == 1 or dist.is_initialized():
        return
    meet()
    backend = backend or 'nccl'
    if torch.cuda.is_available():
        place, gpus = int(os.environ.get('LOCAL_RANK', 0)), torch.cuda.device_count()
        if backend == 'nccl' and place >= gpus:
            raise UserError(
                f'torchrun --nproc_per_node: expected at most {gpus}, the number of GPUs, found '
                f'{os.environ.get("LOCAL_WORLD_SIZE", place + 1)}. Start fewer processes, or set '
                f"env_cfg.dist_cfg.backend='gloo', with which processes can share a GPU."
            )
        torch.cuda.set_device(place % gpus)
    else:
        backend = 'gloo'
    number = _meeting['store'].add(f'groups of {os.environ["RANK"]}', 1)
    dist.init_process_group(
        backend,
        store=dist.PrefixStore(f'group {number}', _meeting['store']),
        rank=int(os.environ['RANK']),
        world_size=num_processes(),
        timeout=timedelta(seconds=timeout or TIMEOUT),
    )


def leave() -> None:
    """End the group that `join` made, when all processes have come to this point."""
    if _meeting and dist.is_initialized():
        dist.barrier()
        dist.destroy_process_group()


def first_to_fail() -> bool:
    """Whether this process fails before any other; to be asked once, by a process that fails.

    What the others raise afterwards is that one is missing, which is no news.
    """
    if not _meeting:
        return True
    try:
        return _meeting['store'].add('failures', 1) == 1
    except RuntimeError:  # the meeting place is gone; better told twice than not at all
        return True


def mean_count(count: Tensor) -> Tensor:
    """What a sum over this process's share of a batch is divided by to give a mean.

    A distributed model averages gradients over processes. Dividing each process's sum by the
    *mean* count makes the average that of all elements of the batch, wherever they lie: the mean
    of the means would weigh an element of a process with few of them more.

    Args:
        count: elements, or the sum of their weights, in this process; every process must call.

    Returns:
        The total over all processes (1 if there is nothing) by the number of processes, float.
    """
    total = count.detach().clone().to(torch.promote_types(count.dtype, torch.float32))
    all_reduce(total)
    return total.masked_fill(total == 0, 1) / get_world_size()

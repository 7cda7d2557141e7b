"""Two processes that share a batch have the gradients of one.

Started as a script this file is one of the two.
"""

import subprocess
import sys
from pathlib import Path

import torch
from samcp_cases import batch_of
from samcp_loops import OPTIONS, RULES, gradients
from torch import Tensor

from mmprompt.methods.samcp.losses import SAMCPLoss
from mmprompt.methods.samcp.structures import SAMCPOutput


def of_images(output: SAMCPOutput, images: slice) -> SAMCPOutput:
    """The part of a batch, padded as the batch is, with gradients of its own."""
    second = dict(boxes=0, valid=0, units=0, positive=0)

    def part(thing) -> dict:
        found = dict(vars(thing))
        for name, value in found.items():
            if torch.is_tensor(value) and not name.endswith('_classes'):
                axis = second.get(name, 1)
                cut = value.detach()[(slice(None),) * axis + (images,)].clone()
                found[name] = cut.requires_grad_() if value.requires_grad else cut
        return found

    noisy = output.denoising
    fields = part(output)
    if noisy is not None:
        fields['denoising'] = type(noisy)(**part(noisy))
    return SAMCPOutput(**fields)


SHARES = dict(
    unequal=[(8, 6), (0, 3), (10, 2), (4, 7)],
    one_without_truth=[(0, 6), (0, 3), (10, 5), (4, 7)],
    one_without_patches=[(8, 6), (6, 5), (4, 0), (0, 0)],
)


def share_of(case: str, images: slice, options: dict) -> dict[str, Tensor]:
    """Gradients by name of the images of one process; denoising only where there is truth."""
    output, samples = batch_of(0, SHARES[case], denoising=6)
    output, samples = of_images(output, images), samples[images]
    if not any(sample.gt_units.is_instance.any() for sample in samples):
        output.denoising = None
    values = SAMCPLoss(part_assigner=RULES, **options)(output, samples)
    return gradients(values, output)


def two_shares(folder: Path) -> None:
    """Be one of two processes, which write their gradients."""
    rank = int(sys.argv[2])
    torch.distributed.init_process_group(
        'gloo', init_method=f'file://{folder}/meet', rank=rank, world_size=2
    )
    half = slice(0, 2) if rank == 0 else slice(2, 4)
    found = {
        (case, number): share_of(case, half, options)
        for case in SHARES
        for number, options in enumerate(OPTIONS)
    }
    torch.save(found, folder / f'{rank}.pt')
    torch.distributed.barrier()


def test_two_processes_have_the_gradients_of_one(tmp_path):
    """A distributed model averages what its processes found; that must be the whole batch."""
    paths = [str(Path(__file__).parents[i]) for i in (2, 3)]
    code = f'import sys; sys.path[:0] = {paths}; import runpy; runpy.run_path({__file__!r}, '
    code += "run_name='__main__')"
    pair = [
        subprocess.Popen([sys.executable, '-c', code, str(tmp_path), str(rank)]) for rank in (0, 1)
    ]
    assert [process.wait(timeout=300) for process in pair] == [0, 0]
    shares = [torch.load(tmp_path / f'{rank}.pt') for rank in (0, 1)]
    for (case, number), first in shares[0].items():
        second = shares[1][case, number]
        output, samples = batch_of(0, SHARES[case], denoising=6)
        loss = SAMCPLoss(part_assigner=RULES, **OPTIONS[number])
        whole = gradients(loss(output, samples), output)
        for name, gradient in whole.items():
            axis = 1
            parts = [s.get(name) for s in (first, second)]
            half = list(gradient.shape)
            half[axis] //= 2
            parts = [torch.zeros(half, dtype=gradient.dtype) if p is None else p for p in parts]
            joined = torch.cat(parts, dim=axis) / 2  # the average over processes
            assert torch.allclose(joined, gradient, rtol=1e-9, atol=1e-14), (case, number, name)


if __name__ == '__main__':
    two_shares(Path(sys.argv[1]))

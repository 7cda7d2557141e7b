"""Two processes that share a batch train the whole model as one, though one has nothing to do.

Started as a script this file is one of the two.
"""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from toy_samcp import stir_affinity, toy_detector, toy_sample, write_text

from mmprompt.methods.samcp.queries import SAMCPDenoising
from mmprompt.registry import MODELS

#: Patches of the image of each process, and whether it has true units.
CASES = dict(
    unequal=[(7, True), (3, True)],
    one_without_truth=[(5, True), (5, False)],
    one_without_patches=[(0, True), (6, True)],
    one_without_anything=[(6, True), (0, False)],
)


def noise_of_its_own(self, units, labels, boxes, draw=SAMCPDenoising.draw):
    """Noise that depends on the image alone, so that one process draws what two do."""
    torch.manual_seed(int(boxes.sum() * 1e4))
    return draw(self, units, labels, boxes)


def model_of(folder: Path) -> torch.nn.Module:
    torch.manual_seed(0)
    model = MODELS.build(toy_detector(str(folder / 'text.npy'))).double()
    model.load_base()
    stir_affinity(model.head)
    return model.train()


def images_of(case: str) -> tuple[torch.Tensor, list]:
    samples = [toy_sample(n, seed=i, units=u) for i, (n, u) in enumerate(CASES[case])]
    torch.manual_seed(3)
    return torch.randn(2, 3, 64, 64, dtype=torch.float64), samples


def gradients(model: torch.nn.Module, inputs: torch.Tensor, samples: list) -> dict:
    model.zero_grad()
    sum(model(inputs, samples, mode='loss').values()).backward()
    trained = ((k, p) for k, p in model.named_parameters() if p.requires_grad)
    return {k.removeprefix('module.'): p.grad.clone() for k, p in trained}


def be_one(folder: Path, rank: int) -> None:
    """Be one of two processes, which write their gradients."""
    SAMCPDenoising.draw = noise_of_its_own
    torch.distributed.init_process_group(
        'gloo', init_method=f'file://{folder}/meet', rank=rank, world_size=2
    )
    # As a Runner does by default: a parameter that is not reached would stop the training.
    model = torch.nn.parallel.DistributedDataParallel(model_of(folder))
    found = {}
    for case in CASES:
        inputs, samples = images_of(case)
        found[case] = gradients(model, inputs[rank : rank + 1], samples[rank : rank + 1])
    torch.save(found, folder / f'{rank}.pt')
    torch.distributed.barrier()


@pytest.fixture(scope='module')
def pair(tmp_path_factory):
    """Gradients of both processes by case, and the folder."""
    folder = tmp_path_factory.mktemp('pair')
    write_text(folder / 'text.npy')
    paths = [str(Path(__file__).parents[i]) for i in (2, 3)]
    code = f'import sys; sys.path[:0] = {paths}; import runpy; runpy.run_path({__file__!r}, '
    code += "run_name='__main__')"
    started = [
        subprocess.Popen([sys.executable, '-c', code, str(folder), str(rank)]) for rank in (0, 1)
    ]
    assert [process.wait(timeout=300) for process in started] == [0, 0]
    return [torch.load(folder / f'{rank}.pt') for rank in (0, 1)], folder


@pytest.mark.parametrize('case', CASES)
def test_two_processes_have_the_gradients_of_one(case, pair, monkeypatch):
    monkeypatch.setattr(SAMCPDenoising, 'draw', noise_of_its_own)
    (first, second), folder = pair
    expected = gradients(model_of(folder), *images_of(case))
    assert any(value.any() for value in expected.values())
    for name, value in expected.items():
        assert torch.equal(first[case][name], second[case][name]), name
        assert torch.allclose(first[case][name], value, rtol=0, atol=1e-10), name


if __name__ == '__main__':
    be_one(Path(sys.argv[1]), int(sys.argv[2]))

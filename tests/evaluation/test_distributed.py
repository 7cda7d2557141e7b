"""Metrics on two processes: the same as on one, whatever the number of images."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.dataset import DefaultSampler, pseudo_collate
from mmengine.evaluator import Evaluator
from mmengine.structures import InstanceData, PixelData
from mmseg.structures import SegDataSample

from mmprompt.evaluation import ForegroundDice, InstanceAP, PanopticQuality

CLASSES = ('road', 'car', 'person')
COUNTS = (8, 7)


class Images(torch.utils.data.Dataset):
    """Samples with truth and predictions that differ from image to image."""

    def __init__(self, count: int) -> None:
        self.count = count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> SegDataSample:
        rng = np.random.default_rng(index)
        gt_map = np.kron(rng.integers(0, 5, (3, 4)), np.ones((6, 6), int))
        pred_map = gt_map.copy()
        pred_map[rng.random(gt_map.shape) < rng.uniform(0, 0.4)] = 0
        ids = np.unique(pred_map[pred_map > 0])
        gt_ids = np.unique(gt_map[gt_map > 0])
        label = torch.from_numpy(gt_ids % 3)
        segments = InstanceData(
            ids=torch.from_numpy(gt_ids),
            labels=label,
            is_thing=label > 0,
            is_crowd=torch.from_numpy((gt_ids == 4) & bool(index % 2)),
        )
        found = InstanceData(ids=torch.from_numpy(ids), labels=torch.from_numpy(ids % 3))
        masks = pred_map == ids[ids % 3 > 0][:, None, None]
        instances = InstanceData(
            masks=torch.from_numpy(masks),
            labels=torch.from_numpy(ids[ids % 3 > 0] % 3),
            scores=torch.from_numpy(rng.random(len(masks))),
        )
        sample = SegDataSample()
        sample.set_data(
            dict(
                gt_sem_seg=PixelData(data=torch.from_numpy(gt_map % 3)[None]),
                pred_sem_seg=PixelData(data=torch.from_numpy(pred_map % 3)[None]),
                gt_panoptic_seg=PixelData(data=torch.from_numpy(gt_map)[None]),
                gt_segments=segments,
                pred_panoptic_seg=PixelData(data=torch.from_numpy(pred_map)[None]),
                pred_segments=found,
                pred_instances=instances,
            )
        )
        return sample


def measure(count: int) -> dict[str, float]:
    """All metrics of `count` images, fed as a Runner feeds them."""
    metrics = [
        PanopticQuality(thing_classes=(1, 2), classwise=False),
        InstanceAP(classwise=False),
        ForegroundDice(foreground=2),
    ]
    evaluator = Evaluator(metrics)
    evaluator.dataset_meta = dict(classes=CLASSES)
    data = Images(count)
    loader = torch.utils.data.DataLoader(
        data, 2, sampler=DefaultSampler(data, shuffle=False), collate_fn=pseudo_collate
    )
    for samples in loader:
        evaluator.process(data_samples=samples, data_batch={})
    return evaluator.evaluate(len(data))


def work(out: str) -> None:
    """What each of two processes does."""
    torch.distributed.init_process_group('gloo')
    found = [measure(count) for count in COUNTS]
    # None leaves while the other may still ask it for something.
    torch.distributed.barrier()
    if torch.distributed.get_rank() == 0:
        Path(out).write_text(json.dumps(found))
    torch.distributed.destroy_process_group()


@pytest.mark.skipif(not torch.distributed.is_available(), reason='needs torch.distributed')
def test_two_processes_measure_what_one_does(tmp_path):
    """Of 7 images one process gets four, the other three and then the first one again."""
    with socket.socket() as free:
        free.bind(('127.0.0.1', 0))
        port = free.getsockname()[1]
    out = tmp_path / 'found.json'
    command = [sys.executable, '-m', 'torch.distributed.run', '--nproc_per_node', '2']
    command += ['--master_addr', '127.0.0.1', '--master_port', str(port), __file__, str(out)]
    changed = dict(OMP_NUM_THREADS='1', CUDA_VISIBLE_DEVICES='')
    done = subprocess.run(
        command,
        env=os.environ | changed,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    wanted = [measure(count) for count in COUNTS]
    assert out.read_text() == json.dumps(wanted)  # NaN for what is undefined
    names = ('PQ', 'AP', 'Dice', 'Dice_mean_of_images')
    assert all(0 < row[name] < 100 for row in wanted for name in names)
    assert wanted[0] != wanted[1]


if __name__ == '__main__':
    work(sys.argv[1])

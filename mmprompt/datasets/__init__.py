"""Datasets and transforms that MMSegmentation lacks."""
from mmprompt.datasets.camvid import CamVidDataset
from mmprompt.datasets.guarded import GuardedDataset
from mmprompt.datasets.samplers import ResumableSampler
from mmprompt.datasets.transforms import (
    LoadCityscapesPanoptic,
    PackPanopticInputs,
    PanopticFromLabels,
)

__all__ = [
    'CamVidDataset',
    'GuardedDataset',
    'LoadCityscapesPanoptic',
    'PackPanopticInputs',
    'PanopticFromLabels',
    'ResumableSampler',
]

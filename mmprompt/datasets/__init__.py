"""Datasets and transforms that MMSegmentation lacks."""
from mmprompt.datasets.camvid import CamVidDataset
from mmprompt.datasets.transforms import (
    LoadCityscapesPanoptic,
    PackPanopticInputs,
    PanopticFromLabels,
)

__all__ = ['CamVidDataset', 'LoadCityscapesPanoptic', 'PackPanopticInputs', 'PanopticFromLabels']

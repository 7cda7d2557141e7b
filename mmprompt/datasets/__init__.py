"""Datasets and transforms that MMSegmentation lacks."""

from mmprompt.datasets.camvid import CamVidDataset
from mmprompt.datasets.chase_db1 import ChaseDB1FolderDataset
from mmprompt.datasets.coco_instances import (
    CocoInstanceSegDataset,
    LoadAnnotationsFromCocoInstances,
    LoadCocoInstances,
)
from mmprompt.datasets.coco_panoptic import CocoPanopticSegDataset, LoadAnnotationsFromCocoPanoptic
from mmprompt.datasets.cod10k import COD10KInstanceSegDataset
from mmprompt.datasets.det_transforms import (
    DetRandomChoiceResize,
    DetRandomCrop,
    DetRandomFlip,
    DetResize,
    DetResizeShortestEdge,
)
from mmprompt.datasets.few_shot import FewShotDataset
from mmprompt.datasets.folder import FolderDataset
from mmprompt.datasets.guarded import GuardedDataset
from mmprompt.datasets.mapillary import Mapillary19Dataset
from mmprompt.datasets.patches import LoadPatches, LoadUnits, PackPatchInputs
from mmprompt.datasets.samplers import ResumableSampler
from mmprompt.datasets.transforms import (
    LoadAnnotationsByTable,
    LoadCityscapesPanoptic,
    PackPanopticInputs,
    PanopticFromLabels,
)

__all__ = [
    'COD10KInstanceSegDataset',
    'CamVidDataset',
    'ChaseDB1FolderDataset',
    'CocoInstanceSegDataset',
    'CocoPanopticSegDataset',
    'DetRandomChoiceResize',
    'DetRandomCrop',
    'DetRandomFlip',
    'DetResize',
    'DetResizeShortestEdge',
    'FewShotDataset',
    'FolderDataset',
    'GuardedDataset',
    'LoadAnnotationsByTable',
    'LoadAnnotationsFromCocoInstances',
    'LoadAnnotationsFromCocoPanoptic',
    'LoadCityscapesPanoptic',
    'LoadCocoInstances',
    'LoadPatches',
    'LoadUnits',
    'Mapillary19Dataset',
    'PackPanopticInputs',
    'PackPatchInputs',
    'PanopticFromLabels',
    'ResumableSampler',
]

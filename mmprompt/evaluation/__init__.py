"""Metrics that MMSegmentation lacks or cannot run without extra installs."""

from mmprompt.evaluation.class_iou import ClassIoU
from mmprompt.evaluation.dice import ForegroundDice
from mmprompt.evaluation.instance_ap import InstanceAP
from mmprompt.evaluation.panoptic_quality import PanopticQuality

__all__ = ['ClassIoU', 'ForegroundDice', 'InstanceAP', 'PanopticQuality']

"""Metrics that MMSegmentation lacks or cannot run without extra installs."""

from mmprompt.evaluation.instance_ap import InstanceAP
from mmprompt.evaluation.panoptic_quality import PanopticQuality

__all__ = ['InstanceAP', 'PanopticQuality']

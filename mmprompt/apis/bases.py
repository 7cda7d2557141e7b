"""What a base is: weights, or a config of one of the methods."""

from pathlib import Path

from mmengine.config import Config

from mmprompt.methods.samcp import SAMCPDetector
from mmprompt.methods.spm import SPMSegmentor


def is_config(base: str) -> bool:
    """Tell whether a base is a config and no file of weights."""
    return '://' not in base and Path(base).suffix in ('', '.py')


def is_spm(config: Config) -> bool:
    """Tell whether a config's model is an `SPMSegmentor`."""
    return _model_type(config) == SPMSegmentor.__name__


def is_samcp(config: Config) -> bool:
    """Tell whether a config's model is a `SAMCPDetector`."""
    return _model_type(config) == SAMCPDetector.__name__


def _model_type(config: Config) -> str | None:
    kind = (config.get('model') or {}).get('type')
    return kind.split('.')[-1] if isinstance(kind, str) else None

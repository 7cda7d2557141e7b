"""SEEM, written once with its sizes as parameters."""

from mmprompt.foundation.seem.davit import DaViT
from mmprompt.foundation.seem.decoder import SEEMDecoder
from mmprompt.foundation.seem.export import ExportBaseHook
from mmprompt.foundation.seem.features import SEEMFeatures, SEEMOutput, StrokeOutput, Strokes
from mmprompt.foundation.seem.focal import FocalNet
from mmprompt.foundation.seem.pixel_decoder import TransformerFPN
from mmprompt.foundation.seem.pretrainer import SEEMPretrainer
from mmprompt.foundation.seem.seem import SEEM
from mmprompt.foundation.seem.text_encoder import SEEMTextEncoder

__all__ = [
    'SEEM',
    'DaViT',
    'ExportBaseHook',
    'FocalNet',
    'SEEMDecoder',
    'SEEMFeatures',
    'SEEMOutput',
    'SEEMPretrainer',
    'SEEMTextEncoder',
    'StrokeOutput',
    'Strokes',
    'TransformerFPN',
]

"""SAM-CP: patches merged into semantic regions and instances by their affinity to queries.

SAM-CP: Marrying SAM with Composable Prompts (`docs/samcp.md`), Figure 2 from left to right:
`patch_encoder` (with `features`), `queries`, `affinity_decoder` (with `image_attention`),
`classifier`, put together by `head`; `targets`, `matching_costs` and `losses` teach it, `predict`
reads semantic, instance and panoptic results from it, `open_vocabulary` adds what CLIP sees.
`detector` adds a backbone. What they hand to each other is in `structures`.
"""

from mmprompt.methods.samcp.affinity_decoder import SAMCPAffinityDecoder
from mmprompt.methods.samcp.classifier import SAMCPClassifier
from mmprompt.methods.samcp.detector import SAMCPDetector
from mmprompt.methods.samcp.head import SAMCPHead
from mmprompt.methods.samcp.losses import SAMCPLoss
from mmprompt.methods.samcp.open_vocabulary import OpenVocabularyScores
from mmprompt.methods.samcp.patch_encoder import SAMCPPatchEncoder
from mmprompt.methods.samcp.predict import SAMCPPredictor
from mmprompt.methods.samcp.queries import SAMCPDenoising
from mmprompt.methods.samcp.structures import SAMCPOutput
from mmprompt.methods.samcp.targets import SAMCPPartAssigner

__all__ = [
    'OpenVocabularyScores',
    'SAMCPAffinityDecoder',
    'SAMCPClassifier',
    'SAMCPDenoising',
    'SAMCPDetector',
    'SAMCPHead',
    'SAMCPLoss',
    'SAMCPOutput',
    'SAMCPPartAssigner',
    'SAMCPPatchEncoder',
    'SAMCPPredictor',
]

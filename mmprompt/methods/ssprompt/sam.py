"""SSPrompt on SAM (paper 001, appendix B): a frozen SAM, text rows of another model, two prompts.

SAM knows no texts. Rows of classes come from the text encoder of a SEEM base, whose space SAM's
features were never trained to meet; a fixed random projection takes them there. So the zero-shot
result is chance, and what CoOp and LOCN can say is bound to sentences that mean nothing to SAM.
"""

import hashlib
import json
from collections.abc import Mapping

import torch
from mmengine.logging import print_log
from torch import Tensor

from mmprompt.common.audit import describe_audit
from mmprompt.common.checkpoint import fingerprint
from mmprompt.common.errors import UserError
from mmprompt.common.feature_cache import FeatureCache
from mmprompt.common.image_groups import padded
from mmprompt.foundation.sam import read_sam
from mmprompt.foundation.seem.architecture import architecture, check_architecture
from mmprompt.foundation.seem.checkpoint import check_fit, read_base
from mmprompt.foundation.seem.class_names import encode_names
from mmprompt.methods.ssprompt.head import is_trained
from mmprompt.methods.ssprompt.sam_head import SAMDecoded
from mmprompt.methods.ssprompt.segmentor import HEAD, TEXT_PLACE, SSPromptSegmentor
from mmprompt.registry import MODELS

#: Methods that SAM has no place for: its own parts stay frozen, and no token stands for a point.
ELSEWHERE = ('vspl', 'zero-shot-grid', 'head', 'full')
#: Where the parts of a SAM checkpoint go.
SAM_PLACES = dict(
    image_encoder='backbone',
    prompt_encoder=HEAD + 'decoder.prompt_encoder',
    mask_decoder=HEAD + 'decoder.mask_decoder',
)


@MODELS.register_module()
class SSPromptSAM(SSPromptSegmentor):
    """A frozen SAM under zero-shot prompts, CoOp, LOCN, SpaPrompt, SemPrompt or SSPrompt.

    Arguments as in `SSPromptSegmentor`, of which `base` is a checkpoint of MobileSAM. Where the
    spatial prompt is frozen, the cache holds masks and what is inside them, else the embeddings.

    Args:
        text_base: the SEEM base whose text encoder embeds the classes, and whose temperature the
            cosines get: a path or ``mmprompt://NAME``.
        method: as in `SSPromptSegmentor`, but for `ELSEWHERE`.
        **segmentor: the others of `SSPromptSegmentor`.
    """

    def __init__(self, text_base: str, method: str | None = None, **segmentor) -> None:
        if method in ELSEWHERE:
            raise UserError(
                f'model.method: {method!r} is no method on SAM. Use ssprompt, spaprompt, '
                f'semprompt, coop, locn or zero-shot.'
            )
        super().__init__(method=method, **segmentor)
        self.text_base = text_base

    # ------------------------------------------------------------ frozen base
    def load_base(self) -> None:
        """Fill the frozen parts and the default prompts from both files; once.

        Raises:
            UserError: a file is missing, damaged or of another architecture, or the text encoder
                does not know a word.
        """
        head = self.decode_head
        if head.filled:
            return
        path = self._base_path()
        sam = read_sam(path)
        text, metadata = read_base(self.text_base)
        self._copy(sam, str(path))
        if self._reads_words:
            self._copy_text(text, metadata)
        head.decoder.align(text['decoder.logit_scale'])
        bank = encode_names(self.texts, text, metadata, self.templates)
        head.fill(bank.embeddings, self.texts)
        decoder = head.decoder
        reading = [
            *(fingerprint(sam), metadata['fingerprint'], decoder.projection_seed),
            *(decoder.masks, decoder.centre, decoder.area),
        ]
        self.base_fingerprint = _digest(reading)
        print_log(f'base {path}, texts {self.text_base}, {describe_audit(self)}', 'current')

    def _copy_text(self, text: Mapping[str, Tensor], metadata: Mapping) -> None:
        """Fill the text encoder that a prompt of words reads with."""
        place, source = TEXT_PLACE['text_encoder'], str(self.text_base)
        encoder = self.get_submodule(place)
        own = dict(text_encoder=self._part_configs['text_encoder'])
        modules = dict(text_encoder=encoder)
        check_architecture(own, modules, metadata['config'], source, dict(text_encoder=HEAD))
        prefix = 'text_encoder.'
        given = {k.removeprefix(prefix): v for k, v in text.items() if k.startswith(prefix)}
        check_fit(encoder.state_dict(), given, source)
        with torch.no_grad():
            for name, tensor in encoder.state_dict().items():
                tensor.copy_(given[name])

    @property
    def _reads_words(self) -> bool:
        return getattr(self.decode_head.semantic_prompt, 'needs_text_encoder', False)

    def _places(self) -> dict[str, str]:
        places = dict(backbone='backbone', decoder=HEAD + 'decoder')
        return places | (TEXT_PLACE if self._reads_words else {})

    @torch.no_grad()
    def _copy(self, tensors: Mapping[str, Tensor], source: str) -> None:
        """Strict in-place copy of a SAM, whose parts stand at `SAM_PLACES`."""
        given = {}
        for name, tensor in tensors.items():
            part, _, rest = name.partition('.')
            given[f'{SAM_PLACES[part]}.{rest}'] = tensor
        prefixes = tuple(f'{place}.' for place in SAM_PLACES.values())
        own = {k: v for k, v in self.state_dict().items() if k.startswith(prefixes)}
        check_fit(own, given, source)
        for name, tensor in own.items():
            tensor.copy_(given[name])

    def _feature_fingerprint(self) -> str:
        """Of the frozen weights and of what computes the features with them (SHA-256, hex)."""
        parts = {
            part: architecture(self._part_configs[part], type(module))
            for part, module in self._modules_of_base().items()
        }
        spatial = self.decode_head.spatial_prompt
        points = None if is_trained(spatial) else spatial.num_prompts
        return _digest([self.base_fingerprint, parts, points])

    # ------------------------------------------------------------ image side
    def extract_feat(self, inputs: Tensor) -> Tensor | SAMDecoded:
        """Normalised images (B, 3, H, W) -> embeddings, or masks where the points are frozen.

        What is not a multiple of 32 is padded with zeros at the right and bottom.
        """
        self.load_base()
        inputs = padded(inputs)  # before the cache, whose keys are what the network sees
        if self._cache_config is not None and self._cache is None:
            self._cache = FeatureCache(
                fingerprint=self._feature_fingerprint(), **self._cache_config
            )
        cache = self._cache
        maps = self._encode(inputs) if cache is None else cache.fetch(inputs, self._encode)
        return SAMDecoded(**maps) if 'masks' in maps else maps['embeddings']

    @torch.no_grad()
    def _encode(self, inputs: Tensor) -> dict[str, Tensor]:
        embeddings = self.backbone(inputs)
        if is_trained(self.decode_head.spatial_prompt):
            return dict(embeddings=embeddings)
        return self.decode_head.masks(embeddings).as_dict()


def _digest(content: list) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True, default=str).encode()).hexdigest()

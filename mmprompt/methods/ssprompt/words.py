"""The baselines that learn words: CoOp and LOCN, read anew by the frozen text encoder at each step.

Both stand in the place of `SemPrompt`. What they learn lies before the text encoder, so gradients
pass through it at each step, and it stays in the model: frozen, in no checkpoint or prompt file.

Notation: C classes, T texts (one per class, or per synonym), M context vectors, L tokens, E width
of word vectors, D width of embeddings.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from mmengine.model import BaseModule
from torch import Tensor, nn

from mmprompt.common.errors import UserError
from mmprompt.common.freeze import freeze
from mmprompt.common.text_bank import Names
from mmprompt.foundation.seem.templates import clean_name
from mmprompt.foundation.seem.text_encoder import first_end, pool_synonyms
from mmprompt.foundation.seem.tokenizer import flatten_names, tokenize
from mmprompt.registry import MODELS


class WordPrompt(BaseModule):
    """Class embeddings from learned word vectors. Base of `CoOp` and `LOCN`.

    Without gradient (in testing) the embeddings are computed once and kept until the learned
    vectors change.

    Args:
        num_prompts: C.
        dim: D.
        text_encoder: config of the text encoder of the base.
        shape: of the learned vectors, the last being E where it is None.
    """

    needs_text_encoder = True

    def __init__(
        self,
        num_prompts: int,
        dim: int,
        text_encoder: dict,
        shape: Sequence[int],
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(init_cfg)
        self.num_prompts = num_prompts
        self.text_encoder = freeze(MODELS.build(text_encoder))
        width, found = self.text_encoder.lang_proj.shape
        if found != dim:
            raise ValueError(
                f'{type(self).__name__}.text_encoder.dim is {found}, but the decoder compares with '
                f'embeddings of {dim} channels; give the text encoder of the base.'
            )
        self.words = nn.Parameter(torch.zeros(*shape, width))
        self.filled = False
        self._restored = False
        self._kept: tuple[Tensor, Tensor] | None = None

    @torch.no_grad()
    def read(self, names: Names | None) -> None:
        """Take the class names; once, after the weights of the text encoder are in place.

        Args:
            names: C classes, each a name or a list of synonyms.

        Raises:
            UserError: there are no names, or the text encoder does not know a word.
        """
        if names is None:
            raise UserError(
                f'{type(self).__name__} reads class names, which only SSPromptSegmentor gives. Use '
                f'the decode head inside it.'
            )
        start = self._tokenise([[clean_name(word) for word in g] for g in flatten_names(names)])
        if start is not None and not self._restored:
            self.words.copy_(start)
        self._kept = None

    def fill(self, default: Tensor) -> None:
        """Nothing is blended with the default rows (C, D)."""
        self.filled = True

    def _tokenise(self, groups: list[list[str]]) -> Tensor | None:
        """Prepare `_embed` for words by class; where the learned vectors start, if not built so."""
        raise NotImplementedError

    def _embed(self) -> Tensor:
        """Unit rows (C, D)."""
        raise NotImplementedError

    def forward(self) -> Tensor:
        """Class embeddings of unit length, (C, D)."""
        if torch.is_grad_enabled():
            return self._embed()
        if self._kept is None or not torch.equal(self._kept[0], self.words):
            with torch.autocast(self.words.device.type, enabled=False):
                self._kept = self.words.detach().clone(), self._embed()
        return self._kept[1]

    def _ids(self, texts: Sequence[str], room: int | None = None) -> Tensor:
        """Token ids (T, L) on the right device, start and end included."""
        encoder = self.text_encoder
        ids = tokenize(texts, room or encoder.context_length, encoder.known)
        return ids.to(self.words.device)

    def _apply(self, *args, **kwargs) -> nn.Module:
        self._kept = None  # of another device or precision from now on
        return super()._apply(*args, **kwargs)

    def _load_from_state_dict(self, state_dict, prefix, *args, **kwargs) -> None:
        self._restored = self._restored or prefix + 'words' in state_dict
        self._kept = None
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)


@MODELS.register_module()
class CoOp(WordPrompt):
    """CoOp (Zhou et al., 2022): learned context vectors before the class name.

    A text is ``[start] [V]_1 ... [V]_M name . [end]``; M = 16 shared vectors are 8,192 parameters.
    The embeddings of synonyms are averaged, as in the zero-shot model.

    Args:
        num_prompts: C; `SEEMPromptHead` gives it.
        dim: D; `SEEMPromptHead` gives it.
        text_encoder: config of the text encoder of the base; `SEEMPromptHead` gives it.
        num_tokens: M.
        init: None for normal vectors, or a text of M tokens to start from, such as 'a photo of a'.
        init_std: standard deviation of normal vectors.
        class_specific: each class has M vectors of its own ("CSC").
    """

    def __init__(
        self,
        num_prompts: int,
        dim: int,
        text_encoder: dict,
        num_tokens: int = 16,
        init: str | None = None,
        init_std: float = 0.02,
        class_specific: bool = False,
        init_cfg: dict | None = None,
    ) -> None:
        shape = (num_prompts, num_tokens) if class_specific else (num_tokens,)
        super().__init__(num_prompts, dim, text_encoder, shape, init_cfg)
        # Start, name, full stop and end need a place each.
        most = self.text_encoder.context_length - 4
        if not 1 <= num_tokens <= most:
            raise ValueError(
                f'CoOp.num_tokens must be 1 to {most} for a text encoder of context_length '
                f'{self.text_encoder.context_length}, found {num_tokens}.'
            )
        self.num_tokens, self.init, self.class_specific = num_tokens, init, class_specific
        nn.init.normal_(self.words, std=init_std)
        self.register_buffer('ids', None, persistent=False)  # (T, L - M)
        self.register_buffer('owner', None, persistent=False)  # (T,) class of each text
        self._sizes: list[int] = []

    @property
    def reading(self) -> dict:
        """See `BlendedPrompt`."""
        return {'class_specific': self.class_specific}

    def _tokenise(self, groups: list[list[str]]) -> Tensor | None:
        self._sizes = [len(group) for group in groups]
        texts = [f'{word}.' for group in groups for word in group]
        self.ids = self._ids(texts, self.text_encoder.context_length - self.num_tokens)
        owner = [c for c, group in enumerate(groups) for _ in group]
        self.owner = torch.tensor(owner, device=self.ids.device)
        if self.init is None:
            return None
        start = self._ids([self.init])[0, 1:-1]
        if len(start) != self.num_tokens:
            raise UserError(
                f'CoOp.init {self.init!r}: expected {self.num_tokens} tokens, as '
                f'CoOp.num_tokens says, found {len(start)}. Correct one of the two.'
            )
        return self.text_encoder.words(start).expand_as(self.words)

    def _embed(self) -> Tensor:
        known = self.text_encoder.words(self.ids)  # (T, L - M, E)
        context = self.words[self.owner] if self.class_specific else self.words[None]
        context = context.expand(len(known), -1, -1)  # (T, M, E)
        words = torch.cat([known[:, :1], context.to(known.dtype), known[:, 1:]], 1)  # (T, L, E)
        rows = self.text_encoder.encode_words(words, first_end(self.ids) + self.num_tokens)
        return pool_synonyms(F.normalize(rows, dim=-1), self._sizes)


@MODELS.register_module()
class LOCN(WordPrompt):
    """Learned class names (Parisot et al., 2023): one word vector per class in place of its name.

    A text is ``[start] a photo of a [CLASS]_c . [end]``; 19 classes are 9,728 parameters. A name of
    several tokens becomes one, so that the end stands at the same place in each text.

    Args:
        num_prompts: C; `SEEMPromptHead` gives it.
        dim: D; `SEEMPromptHead` gives it.
        text_encoder: config of the text encoder of the base; `SEEMPromptHead` gives it.
        template: the sentence, with one '{}' where the learned word stands.
    """

    def __init__(
        self,
        num_prompts: int,
        dim: int,
        text_encoder: dict,
        template: str = 'a photo of a {}.',
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(num_prompts, dim, text_encoder, (num_prompts,), init_cfg)
        if template.count('{}') != 1:
            raise ValueError(f"LOCN.template must have one '{{}}', found {template!r}.")
        self.template = template
        self.register_buffer('before', None, persistent=False)  # (P,) start and prefix
        self.register_buffer('after', None, persistent=False)  # (S,) suffix and end

    @property
    def reading(self) -> dict:
        """See `BlendedPrompt`."""
        return {'template': self.template}

    def _tokenise(self, groups: list[list[str]]) -> Tensor:
        prefix, suffix = self.template.split('{}')
        self.before, self.after = self._ids([prefix])[0, :-1], self._ids([suffix])[0, 1:]
        return torch.stack([torch.stack([self._mean(w) for w in g]).mean(0) for g in groups])

    def _mean(self, word: str) -> Tensor:
        """Mean of the vectors of a name's tokens, (E,)."""
        return self.text_encoder.words(self._ids([word])[0, 1:-1]).mean(0)

    def _embed(self) -> Tensor:
        sides = [self.text_encoder.words(ids) for ids in (self.before, self.after)]
        before, after = (side.expand(self.num_prompts, -1, -1) for side in sides)
        words = torch.cat([before, self.words[:, None].to(before.dtype), after], 1)  # (C, L, E)
        end = torch.full((len(words),), words.shape[1] - 1, device=words.device)
        return F.normalize(self.text_encoder.encode_words(words, end), dim=-1)

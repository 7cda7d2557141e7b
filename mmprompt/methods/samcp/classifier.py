"""Classification of queries against the texts of the classes (Eq. 1)."""

import math
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mmprompt.common.matching import at_least_float
from mmprompt.methods.samcp.affinity_decoder import PRIOR_LOGIT
from mmprompt.methods.samcp.layers import Linear
from mmprompt.registry import MODELS

TEXT_TEMPERATURE = 0.1  # GLIP's
LIMIT = 5e4  # keeps half precision finite


@MODELS.register_module()
class SAMCPClassifier(nn.Module):
    """Logits S of queries for texts; every class starts near a score of 0.01.

    Args:
        dim: D.
        text_dim: of the embeddings e.
        kind: 'glip', which Eq. 1 follows: the projected query is normalised, the text is before its
            projection, and has a bias of its own; 'cosine': both are projected, then normalised;
            'range': both are projected and brought linearly into [0, 1], Eq. 1 to the letter.

    Raises:
        ValueError: another kind.
    """

    def __init__(
        self, dim: int, text_dim: int, kind: Literal['glip', 'cosine', 'range'] = 'glip'
    ) -> None:
        super().__init__()
        scales = dict(glip=1.0, cosine=TEXT_TEMPERATURE, range=float(dim))
        if kind not in scales:
            raise ValueError(f'kind: expected one of {tuple(scales)}, found {kind!r}.')
        self.kind = kind
        self.query = Linear(dim, dim)
        self.text = Linear(text_dim, dim)
        # s is learned as its logarithm, so that nothing is ever divided by zero.
        self.log_scale = nn.Parameter(torch.tensor(math.log(scales[kind])))
        self.prior = nn.Parameter(torch.tensor(PRIOR_LOGIT))
        if kind == 'glip':
            self.text_bias = nn.Parameter(torch.zeros(text_dim))

    def forward(self, queries: Tensor, text: Tensor, class_of: Tensor | None = None) -> Tensor:
        """All classes: (..., M, D) and (E, text_dim) -> (..., M, K), at least float32.

        Args:
            queries: of any kind.
            text: entries of the K classes.
            class_of: (E,) the class of each entry, sorted, none left out; the best entry of a class
                counts. None: every class has one.
        """
        texts, bias = self._texts(text)  # (E, D), (E,) or ()
        logits = self._logits(self._queries(queries) @ texts.t(), bias)
        return logits if class_of is None else best_of_entries(logits, class_of)

    def own(self, queries: Tensor, text: Tensor, class_of: Tensor | None = None) -> Tensor:
        """One class for each query: (..., S, D) and (E, text_dim) -> (..., S).

        Args:
            queries: the first is asked for class 0, and so on.
            text, class_of: as in `forward`, of the S classes.
        """
        texts, bias = self._texts(text)
        queries = self._queries(queries)
        if class_of is None:
            return self._logits((queries * texts).sum(-1), bias)
        logits = self._logits((queries[..., class_of, :] * texts).sum(-1), bias)  # (..., E)
        return best_of_entries(logits, class_of)

    def _queries(self, queries: Tensor) -> Tensor:
        queries = at_least_float(self.query(queries))
        return to_range(queries) if self.kind == 'range' else F.normalize(queries, dim=-1)

    def _texts(self, text: Tensor) -> tuple[Tensor, Tensor]:
        text = F.normalize(text, dim=-1)
        if self.kind == 'glip':
            texts = at_least_float(self.text(text / TEXT_TEMPERATURE))
            return texts, at_least_float(text @ self.text_bias) + self.prior
        texts = at_least_float(self.text(text))
        normal = to_range(texts) if self.kind == 'range' else F.normalize(texts, dim=-1)
        return normal, self.prior

    def _logits(self, products: Tensor, bias: Tensor) -> Tensor:
        return (at_least_float(products) * torch.exp(-self.log_scale) + bias).clamp(-LIMIT, LIMIT)


def best_of_entries(logits: Tensor, class_of: Tensor) -> Tensor:
    """(..., E) -> (..., K): of each class the highest of its entries.

    Args:
        logits: of the entries.
        class_of: (E,) int64, sorted, no class left out.
    """
    count = int(class_of[-1]) + 1 if len(class_of) else 0
    lowest = logits.new_full((*logits.shape[:-1], count), -math.inf)
    return lowest.scatter_reduce(-1, class_of.expand_as(logits), logits, 'amax')


def to_range(x: Tensor) -> Tensor:
    """Rows (..., D) brought linearly into [0, 1]."""
    low, high = x.amin(-1, keepdim=True), x.amax(-1, keepdim=True)
    return (x - low) / (high - low).clamp(min=torch.finfo(x.dtype).eps)

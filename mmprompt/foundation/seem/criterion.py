"""Training losses of SEEM: set prediction on every layer, strokes, and a dense term.

Notation: L predictions (decoder layers + the initial one), B images, Q queries, C classes, T true
masks of the batch. Weights follow Mask2Former / SEEM: 2, 5, 5 for class, BCE, Dice and 0.4, 1, 1
for strokes.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mmprompt.common import matching
from mmprompt.common.mask_merge import semantic_scores
from mmprompt.common.matching import HungarianMatcher, MaskTargets, Matches, at_least_float
from mmprompt.common.processes import mean_count
from mmprompt.foundation.seem.features import SEEMOutput, StrokeOutput


def dense_nll(scores: Tensor, labels: Tensor, ignore_index: int = 255) -> Tensor:
    """Mean of -log(S_y / sum_c S_c) over the labelled pixels, of all processes together.

    Args:
        scores: (B, C, h, w), non-negative (`semantic_scores`).
        labels: (B, h, w) int64.
    """
    # Only two logarithms per pixel: the class is picked first. 4 times as fast as all C of them.
    valid = labels != ignore_index
    chosen = scores.gather(1, labels.masked_fill(~valid, 0)[:, None])[:, 0]  # (B, h, w)
    return picked_nll(chosen, scores.sum(dim=1), valid, scores.shape[1])


def picked_nll(chosen: Tensor, total: Tensor, valid: Tensor, num_classes: int) -> Tensor:
    """`dense_nll` of what it needs to know.

    Args:
        chosen: (...) S of the labelled class.
        total: (...) sum of S over the classes.
        valid: (...) bool, which pixels count.
        num_classes: C.
    """
    loss = ((total + 1e-6 * num_classes).log() - (chosen + 1e-6).log()) * valid
    return loss.sum() / mean_count(valid.sum())


def dense_cross_entropy(scores: Tensor, labels: Tensor, ignore_index: int = 255) -> Tensor:
    """Mean cross-entropy with S itself as the logits; arguments as of `dense_nll`."""
    total = F.cross_entropy(scores, labels, ignore_index=ignore_index, reduction='sum')
    return total / mean_count((labels != ignore_index).sum())


DENSE_LOSSES = {'nll': dense_nll, 'ce': dense_cross_entropy}


class SetCriterion(nn.Module):
    """Losses of one training step. Holds no parameters.

    Args:
        class_weight, bce_weight, dice_weight: of the losses (and not of the matcher).
        no_object_weight: of unmatched queries in the class loss.
        num_points: points per mask for the mask losses.
        oversample, importance: see `matching.uncertain_points`.
        grid: fixed points for the mask losses instead: (rows, columns) of a grid, or 'native' for
            all cells of the predicted maps.
        matcher: arguments of `HungarianMatcher`, which has a `grid` of its own.
        num_aux: how many of the earlier predictions get a loss, the last ones first; None = all.
        stroke_weights: (class, BCE, Dice) of the stroke loss.
        dense_weight: of the dense term on semantic scores; 0 switches it off.
        dense_loss: 'nll' or 'ce'.
        dense_aux: whether the earlier predictions get the dense term too.
        ignore_index: void in the label map.
    """

    def __init__(
        self,
        class_weight: float = 2.0,
        bce_weight: float = 5.0,
        dice_weight: float = 5.0,
        no_object_weight: float = 0.1,
        num_points: int = 12544,
        oversample: float = 3.0,
        importance: float = 0.75,
        grid: tuple[int, int] | str | None = None,
        matcher: dict | None = None,
        num_aux: int | None = None,
        stroke_weights: Sequence[float] = (0.4, 1.0, 1.0),
        dense_weight: float = 0.0,
        dense_loss: str = 'nll',
        dense_aux: bool = False,
        ignore_index: int = 255,
    ):
        super().__init__()
        matching.check_grid('SetCriterion', grid)
        if dense_loss not in DENSE_LOSSES:
            raise ValueError(
                f'SetCriterion.dense_loss: expected one of {sorted(DENSE_LOSSES)}, '
                f'found {dense_loss!r}.'
            )
        self.weights = (class_weight, bce_weight, dice_weight)
        self.no_object_weight = no_object_weight
        self.num_points = num_points
        self.oversample = oversample
        self.importance = importance
        self.grid = grid
        self.matcher = HungarianMatcher(**({'num_points': num_points} | (matcher or {})))
        self.num_aux = num_aux
        self.stroke_weights = tuple(stroke_weights)
        self.dense_weight = dense_weight
        self.dense_loss = DENSE_LOSSES[dense_loss]
        self.dense_aux = dense_aux
        self.ignore_index = ignore_index

    def forward(
        self, output: SEEMOutput, targets: MaskTargets, labels: Tensor | None = None
    ) -> dict[str, Tensor]:
        """Losses of the object queries.

        Args:
            output: the decoder's prediction; its `aux` holds the earlier ones in order.
            targets: true masks at input resolution.
            labels: (B, H, W) label map, for the dense term.

        Returns:
            weighted scalars: `loss_class`, `loss_bce`, `loss_dice`, `loss_dense` of the last
            prediction and `aux_loss_...`, the sums over the earlier ones.
        """
        aux = list(output.aux)
        if self.num_aux is not None:
            aux = aux[len(aux) - min(self.num_aux, len(aux)) :]
        logits = torch.stack([p.pred_logits for p in (*aux, output)])  # (L, B, Q, C+1)
        embed = torch.stack([p.mask_embed for p in (*aux, output)])  # (L, B, Q, D)
        features = output.mask_features
        matches = self._match(logits, embed, features, targets)
        per_layer = self._set_losses(logits, embed, features, targets, matches)
        if self.dense_weight > 0 and labels is not None:
            predictions = [*aux, output] if self.dense_aux else [output]
            per_layer['loss_dense'] = self._dense_losses(predictions, labels)
        losses = {}
        for name, values in per_layer.items():
            losses[name] = values[-1]
            if len(values) > 1:
                losses[f'aux_{name}'] = values[:-1].sum()
        return losses

    def stroke_losses(
        self, strokes: StrokeOutput, targets: MaskTargets, rows: Tensor
    ) -> dict[str, Tensor]:
        """Losses of the stroke copies of the queries, one stroked mask per image.

        The query whose mask costs least (BCE + Dice) answers: its mask is pulled to the truth, and
        the similarity to the stroke, by which inference picks a query, to it by cross-entropy.

        Args:
            strokes: the decoder's answer.
            targets: of the whole batch.
            rows: (B,) index into `targets` of the stroked mask; -1 = image without a stroke.
        """
        image = (rows >= 0).nonzero()[:, 0]
        if len(image) == 0:
            zero = strokes.mask_embed.sum() * 0
            return {f'stroke_loss_{n}': zero for n in ('class', 'bce', 'dice')}
        features, embed = strokes.mask_features[image].flatten(2), strokes.mask_embed[image]
        dtype = torch.promote_types(embed.dtype, torch.float32)
        size = strokes.mask_features.shape[-2:]
        points = matching.grid_points(*size, embed.device, dtype)
        truth = matching.sample_masks(
            targets.masks, rows[image], points.expand(len(image), -1, -1)
        )  # (S, P), P = h*w
        with torch.no_grad():
            values = at_least_float(torch.einsum('sqd,sdp->sqp', embed, features))
            bce, dice = matching.pairwise_mask_cost(values, truth[:, None])
            best = (bce + dice)[..., 0].argmin(dim=-1)  # (S,)
        chosen = embed[torch.arange(len(image), device=embed.device), best]  # (S, D)
        values = at_least_float(torch.einsum('sd,sdp->sp', chosen, features))
        bce, dice = matching.mask_losses(values, truth)
        scores = at_least_float(torch.einsum('sqd,sd->sq', embed, strokes.positive[image]))
        weights = self.stroke_weights
        return {
            'stroke_loss_class': weights[0] * F.cross_entropy(scores, best),
            'stroke_loss_bce': weights[1] * bce.mean(),
            'stroke_loss_dice': weights[2] * dice.mean(),
        }

    @torch.no_grad()
    def _match(
        self, logits: Tensor, embed: Tensor, features: Tensor, targets: MaskTargets
    ) -> Matches:
        """Masks are linear in the features, so only the features are sampled, not every mask."""
        points = self.matcher.points(len(features), features.shape[-2:], features)
        if self.matcher.grid == 'native':
            sampled = features.flatten(2)  # (B, D, P)
        else:
            sampled = matching.sample_maps(features, points)
        values = torch.einsum('lbqd,bdp->lbqp', embed, sampled)
        return self.matcher.assign(logits, values, points, targets)

    def _set_losses(
        self,
        logits: Tensor,
        embed: Tensor,
        features: Tensor,
        targets: MaskTargets,
        matches: Matches,
    ) -> dict[str, Tensor]:
        """Per-prediction (L,) class, BCE and Dice losses, weighted."""
        no_object = logits.shape[-1] - 1
        wanted = torch.full(logits.shape[:3], no_object, device=logits.device)
        wanted[matches.layer, matches.image, matches.query] = targets.labels[matches.target]
        classes = torch.stack(
            [
                matching.classification_loss(x, y, self.no_object_weight)
                for x, y in zip(logits, wanted)
            ]
        )
        if len(matches) == 0:  # nothing to segment: keep the graph connected all the same
            bce = dice = embed.sum(dim=(1, 2, 3)) * 0 + features.sum() * 0
        else:
            order = matches.image.argsort(stable=True)
            layer, image, query, target = (
                x[order] for x in (matches.layer, matches.image, matches.query, matches.target)
            )
            per_image = torch.bincount(image, minlength=len(features)).tolist()
            parts = embed[layer, image, query].split(per_image)  # B x (M_b, D)
            chosen = torch.cat([e @ f.flatten(1) for e, f in zip(parts, features)])
            chosen = at_least_float(chosen).reshape(-1, *features.shape[-2:])  # (M, h, w)
            values, truth, weights = self._at_points(chosen, targets, image, target)
            zero = values.new_zeros(len(logits))
            pair = matching.mask_losses(values, truth, weights)
            bce, dice = (zero.index_add(0, layer, x) for x in pair)
        count = self._mean_count(targets)
        return {
            'loss_class': self.weights[0] * classes,
            'loss_bce': self.weights[1] * bce / count,
            'loss_dice': self.weights[2] * dice / count,
        }

    def _at_points(
        self, chosen: Tensor, targets: MaskTargets, images: Tensor, rows: Tensor
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """Matched logits, truth and weights (M, P): on uncertain points, or on the fixed ones."""
        if self.grid is None:
            points = matching.uncertain_points(
                chosen.detach(), self.num_points, self.oversample, self.importance
            ).to(chosen)
            values = matching.sample_maps(chosen[:, None], points)[:, 0]
            truth = matching.sample_masks(targets.masks, rows, points)
            return values, truth, targets.weights(images, points)
        size = chosen.shape[-2:] if self.grid == 'native' else self.grid
        points = matching.grid_points(*size, chosen.device, chosen.dtype)

        def shared(count: int) -> Tensor:
            return points.expand(count, -1, -1)

        # Sampling the few masks once is cheaper than sampling a copy per layer.
        every = torch.arange(len(targets.masks), device=rows.device)
        truth = matching.sample_masks(targets.masks, every, shared(len(every)))[rows]
        if targets.ignore is None:
            weights = None
        else:
            every = torch.arange(len(targets.ignore), device=rows.device)
            weights = targets.weights(every, shared(len(every)))[images]
        if self.grid == 'native':  # the cell centres are the map's own values
            return chosen.flatten(1), truth, weights
        return matching.sample_maps(chosen[:, None], shared(len(chosen)))[:, 0], truth, weights

    def _dense_losses(self, predictions: Sequence[SEEMOutput], labels: Tensor) -> Tensor:
        """One dense term per prediction."""
        size = predictions[-1].mask_features.shape[-2:]
        small = F.interpolate(labels[:, None].float(), size=size, mode='nearest-exact')[:, 0].long()
        values = [
            self.dense_loss(
                semantic_scores(at_least_float(p.pred_logits), at_least_float(p.pred_masks)),
                small,
                self.ignore_index,
            )
            for p in predictions
        ]
        return self.dense_weight * torch.stack(values)

    @staticmethod
    def _mean_count(targets: MaskTargets) -> Tensor:
        """Masks per process, averaged over processes."""
        return mean_count(torch.tensor(len(targets.labels), device=targets.labels.device))

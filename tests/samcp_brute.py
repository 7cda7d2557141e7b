"""Merging of decoded masks in loops over patches, queries and pixels."""

import itertools

import numpy as np
import torch

from mmprompt.common.patches import PatchSet
from mmprompt.methods.samcp.predict import VOID, ImageScores, SAMCPPredictor

THINGS = [1, 3, 4]


class Brute:
    """The same results, number by number."""

    def __init__(self, options: dict, scores: ImageScores, patches: PatchSet) -> None:
        self.options = vars(SAMCPPredictor(**options))
        self.scores, self.masks = scores, patches.decode()  # (N, H, W)
        self.size, self.filled = patches.size, 0

    def affinity(self, logits: torch.Tensor) -> list[float]:
        """One row."""
        probs = logits.sigmoid().tolist()
        if self.options['mask_rule'] == 'threshold' or not probs:
            return probs
        low, high = min(probs), max(probs)
        return [(p - low) / (high - low) if high > low else 1.0 for p in probs]

    def claim(self, row: list[float], score: float, by: str, every: bool = False) -> np.ndarray:
        """(H, W): how much a row claims each pixel."""
        found = np.zeros(self.size)
        for value, mask in zip(row, self.masks):
            if every or value > self.options['mask_threshold']:
                found = np.where(mask, np.maximum(found, value if '*' in by else 1.0), found)
        return found * score

    def union(self, row: list[float]) -> np.ndarray:
        found = np.zeros(self.size, dtype=bool)
        for value, mask in zip(row, self.masks):
            if value > self.options['mask_threshold']:
                found |= mask
        return found

    def rows(self, semantic: bool) -> list[tuple[float, int, torch.Tensor]]:
        """Score, class and logits of what may be in the panoptic result, best first."""
        found, scores = [], self.scores
        for query in range(len(scores.instance)):
            score, column = max((float(p), -t) for t, p in enumerate(scores.instance[query]))
            found.append((score, THINGS[-column], scores.affinity_instance[query]))
        for row, label in enumerate(scores.semantic_classes.tolist()):
            if semantic and label not in THINGS:
                found.append((float(scores.semantic[row]), label, scores.affinity_semantic[row]))
        lowest = self.options['panoptic_affinity']
        found = [r for r in found if r[0] > self.options['panoptic_score']]
        found = [r for r in found if float(r[2].sigmoid().max()) > lowest]
        return sorted(found, key=lambda r: -r[0])[: self.options['panoptic_top_k']]

    def semantic(self) -> np.ndarray:
        scores = self.scores
        rows = [
            (float(scores.semantic[s]), label, scores.affinity_semantic[s])
            for s, label in enumerate(scores.semantic_classes.tolist())
        ]
        if not set(THINGS) <= set(scores.semantic_classes.tolist()):
            rows += self.rows(False)
        rows = [(p, label, self.affinity(x), x.sigmoid().tolist()) for p, label, x in rows]
        labels = np.full(self.size, VOID)
        for pixel in np.ndindex(self.size):
            labels[pixel] = self.pixel(rows, pixel)
        return labels

    def pixel(self, rows: list, pixel: tuple[int, int]) -> int:
        """The label of one pixel."""
        claims, soft = [], []
        for score, label, row, probs in rows:
            values = [value for value, mask in zip(row, self.masks) if mask[pixel]]
            merged = [value for value in values if value > self.options['mask_threshold']]
            if merged and score >= self.options['semantic_score']:
                by = max(merged) if '*' in self.options['semantic_pixel'] else 1.0
                claims.append((score * by, label))
            here = [p for p, mask in zip(probs, self.masks) if mask[pixel]]
            if here:
                soft.append((score * max(here), label))
        if not claims and self.options['unclaimed'] == 'best':
            claims = soft
            self.filled += bool(soft)
        return max(claims)[1] if claims else VOID

    def panoptic(self) -> tuple[np.ndarray, list[tuple[int, float]]]:
        """Map and (label, score) of each segment."""
        rows = [(p, label, self.affinity(logits)) for p, label, logits in self.rows(True)]
        by = self.options['panoptic_pixel']
        claims = np.stack([np.zeros(self.size)] + [self.claim(r, p, by) for p, _, r in rows])
        winner = claims.argmax(axis=0)  # 0: nobody
        found, segments = np.zeros(self.size, dtype=int), []
        for number, (score, label, row) in enumerate(rows, start=1):
            won, area = (winner == number).sum(), self.union(row).sum()
            if won and won >= self.options['overlap_threshold'] * area:
                segments.append((label, score))
                found[winner == number] = len(segments)
        return found, segments

    def instances(self) -> list[tuple[float, int, np.ndarray]]:
        """Score, label and mask."""
        probs = self.scores.instance
        pairs = [(float(probs[q, t]), q, t) for q, t in itertools.product(*map(range, probs.shape))]
        found = []
        for score, query, column in sorted(pairs, key=lambda p: -p[0])[
            : self.options['instance_top_k']
        ]:
            row = self.affinity(self.scores.affinity_instance[query])
            mask = self.union(row)
            if '*' in self.options['instance_score'] and mask.any():
                score = score * self.claim(row, 1.0, 'score*affinity').sum() / mask.sum()
            if mask.any() and score >= self.options['instance_min_score']:
                found.append((score, THINGS[column], mask))
        return sorted(found, key=lambda f: -f[0])

"""What instances of SAM-CP were merged from, and how each patch alone would be called (Fig. 5)."""

from typing import Any

from pycocotools import mask as coco_mask

from mmprompt.apis.inference.overlays import DRAWN_SCORE
from mmprompt.methods.samcp import SAMCPDetector
from mmprompt.methods.samcp.alone import scores_alone


def patches_of_instances(
    model: SAMCPDetector, batch: dict, sample: Any, least: float = DRAWN_SCORE
) -> tuple[tuple[dict, ...], ...]:
    """Of each instance its patches, those of highest score first, as plain values.

    Args:
        model: which made the result.
        batch: what its preprocessor was given, one image.
        sample: with ``pred_instances``.
        least: instances of a lower score tell nothing.

    Returns:
        By instance its patches: `id` in the image's patches, `score` of the instance's class if
        the model is given this patch and no other, `area`, `bbox` and `segmentation` as COCO has
        them.
    """
    found, patches = sample.pred_instances, sample.patch_set
    told = found.scores >= least
    needed = found.members[told].any(dim=0).nonzero()[:, 0]  # rows of what the model saw
    alone = dict(zip(needed.tolist(), scores_alone(model, batch, needed).cpu()))
    ids, codes = sample.patches.ids.tolist(), patches.coco()
    answers = []
    for members, label, tell in zip(found.members.cpu(), found.labels.tolist(), told.tolist()):
        rows = members.nonzero()[:, 0].tolist() if tell else []
        scored = sorted(((float(alone[row][label]), row) for row in rows), reverse=True)
        answers.append(tuple(_plain(ids[row], score, codes[ids[row]]) for score, row in scored))
    return tuple(answers)


def _plain(number: int, score: float, rle: dict) -> dict[str, Any]:
    return dict(
        id=number,
        score=round(score, 6),
        area=int(coco_mask.area(rle)),
        bbox=[float(v) for v in coco_mask.toBbox(rle)],
        segmentation=dict(size=list(rle['size']), counts=rle['counts'].decode()),
    )

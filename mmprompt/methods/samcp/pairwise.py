"""Section 3.1 to the letter: every class with every patch, every patch with every other.

The unified affinity framework is to give the same and cost less. This is the slow side of that
comparison: an oracle for small cases, and a row of the timing table. Nothing here is used to train
or to predict.

Notation: N patches, C classes, K units, M instances found, D channels, (H, W) pixels.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from mmengine.structures import InstanceData
from torch import Tensor

from mmprompt.methods.samcp.predict import ImageScores
from mmprompt.methods.samcp.targets import PART, SAMCPPartAssigner

#: Prompt I: (class, patch) -> whether the patch can be classified as that.
PromptOne = Callable[[int, int], bool]
#: Prompt II: (class, patch, patch) -> whether both are of one instance of that class.
PromptTwo = Callable[[int, int, int], bool]
CONFLICTS = ('join', 'agree')


@dataclass
class Composition:
    """What the two prompts make of the patches of an image.

    Attributes:
        semantic: patches of each class that has any, in rising order.
        instances: (class, patches) of each instance, in the order of their first patches.
        asked: how often Prompt I and Prompt II were executed.
    """

    semantic: dict[int, tuple[int, ...]] = field(default_factory=dict)
    instances: list[tuple[int, tuple[int, ...]]] = field(default_factory=list)
    asked: list[int] = field(default_factory=lambda: [0, 0])


def compose(
    num_patches: int,
    classes: Sequence[int],
    things: Sequence[int],
    prompt_one: PromptOne,
    prompt_two: PromptTwo,
    conflict: str = 'join',
) -> Composition:
    """Traverse the patches of an image: Prompt I for all, Prompt II for pairs of one thing class.

    Answers of Prompt II may contradict each other: P1 and P2, P1 and P3 are of one instance, but
    P2 and P3 are not. The paper names that conflict and not what to do.

    Args:
        num_patches: N.
        classes: all classes to ask for.
        things: those among them whose patches are merged into instances.
        conflict: 'join': one yes is enough, so instances are what chains of yes connect; 'agree':
            a patch, in the order of the patches, joins the first instance to all of whose patches
            it belongs, and else begins one.

    Raises:
        ValueError: another `conflict`.
    """
    if conflict not in CONFLICTS:
        raise ValueError(f'conflict: expected one of {CONFLICTS}, found {conflict!r}.')
    found = Composition()
    group = _joined if conflict == 'join' else _agreed
    for label in classes:
        found.asked[0] += num_patches
        patches = [n for n in range(num_patches) if prompt_one(label, n)]
        if patches:
            found.semantic[label] = tuple(patches)
        if label not in things:
            continue
        same = {}
        for place, first in enumerate(patches):
            for second in patches[place + 1 :]:
                found.asked[1] += 1
                same[first, second] = prompt_two(label, first, second)
        found.instances += [(label, members) for members in group(patches, same)]
    return found


def _joined(patches: Sequence[int], same: dict[tuple[int, int], bool]) -> list[tuple[int, ...]]:
    """Groups of patches that chains of yes connect, by the traversal of the graph they span."""
    left, groups = list(patches), []
    while left:
        members, ahead = [], [left.pop(0)]
        while ahead:
            patch = ahead.pop(0)
            members.append(patch)
            near = [n for n in left if same[min(patch, n), max(patch, n)]]
            left = [n for n in left if n not in near]
            ahead += near
        groups.append(tuple(sorted(members)))
    return groups


def _agreed(patches: Sequence[int], same: dict[tuple[int, int], bool]) -> list[tuple[int, ...]]:
    """Groups of patches of which any two are yes."""
    groups: list[list[int]] = []
    for patch in patches:
        for members in groups:
            if all(same[member, patch] for member in members):
                members.append(patch)
                break
        else:
            groups.append([patch])
    return [tuple(members) for members in groups]


def merge_masks(masks: Tensor, members: Sequence[int]) -> Tensor:
    """Union (H, W) bool of some of the decoded masks (N, H, W) bool, one by one."""
    union = masks.new_zeros(masks.shape[1:])
    for patch in members:
        union |= masks[patch]
    return union


def affinity_prompts(
    member_semantic: Tensor, member_instance: Tensor, labels: Tensor
) -> tuple[PromptOne, PromptTwo]:
    """The prompts, answered by merged rows of affinities.

    Args:
        member_semantic: (C, N) bool, patches that the row of a class has.
        member_instance: (M, N) bool, patches of each instance.
        labels: (M,) their classes.
    """

    def one(label: int, patch: int) -> bool:
        return bool(member_semantic[label, patch])

    def two(label: int, first: int, second: int) -> bool:
        rows = member_instance[labels == label]
        return bool((rows[:, first] & rows[:, second]).any())

    return one, two


def feature_prompts(
    features: Tensor, text: Tensor, threshold: float = 0.5
) -> tuple[PromptOne, PromptTwo]:
    """The prompts, answered by one cosine similarity each; for timing.

    Args:
        features: (N, D) of patches.
        text: (C, D) of classes.
        threshold: of both similarities.
    """

    def one(label: int, patch: int) -> bool:
        return bool(F.cosine_similarity(text[label], features[patch], dim=0) > threshold)

    def two(label: int, first: int, second: int) -> bool:
        mine, other = features[first] * text[label], features[second] * text[label]
        return bool(F.cosine_similarity(mine, other, dim=0) > threshold)

    return one, two


def perfect_scores(
    units: InstanceData,
    thing_classes: Tensor,
    semantic_classes: Tensor,
    assigner: SAMCPPartAssigner | None = None,
    certain: float = 20.0,
) -> ImageScores:
    """The answer of a model that makes no mistake: the best that these patches allow.

    Every class that is there, and every instance with a part, has probability (nearly) 1 and
    exactly its parts. Instance k answers through query k, as if it were matched to that; queries
    that are left over keep to their own patches.

    Args:
        units: `gt_units` of an image.
        thing_classes: (T,).
        semantic_classes: (S,).
        assigner: what is a part; by default as in training.
        certain: size of all logits.
    """
    assigner = assigner or SAMCPPartAssigner()
    parts = assigner(units.mask_iop, units.box_iop, units.box_iou) == PART  # (K, N)
    patches = parts.shape[1]
    some = parts.any(dim=1)
    region = parts.new_zeros(len(semantic_classes), patches)
    there = parts.new_zeros(len(semantic_classes))
    for row, label in enumerate(semantic_classes.tolist()):
        mine = ~units.is_instance & (units.labels == label)
        region[row], there[row] = parts[mine].any(dim=0), (mine & some).any()
    mine = units.is_instance & some
    rows, labels = parts[mine][:patches], units.labels[mine][:patches]
    instance = torch.eye(patches, dtype=torch.bool, device=parts.device)
    classes = parts.new_zeros(patches, len(thing_classes))
    instance[: len(rows)] = rows
    classes[: len(rows)] = labels[:, None] == thing_classes

    def logits(flag: Tensor) -> Tensor:
        return certain * (2.0 * flag.float() - 1)

    return ImageScores(
        logits(there).sigmoid(),
        logits(classes).sigmoid(),
        logits(region),
        logits(instance),
        semantic_classes,
        thing_classes,
    )

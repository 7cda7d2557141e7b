"""What a finished SAM-CP run makes of patches, and the features it learned (Figs. 3, 4 and 14)."""

from collections.abc import Sequence
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import torch
from mmengine.config import Config, ConfigDict
from mmengine.dataset import pseudo_collate
from torch import Tensor
from torchvision.ops import roi_align

from mmprompt.apis.figures import colour_labels, draw_scenes, save_figure, shrink
from mmprompt.apis.images import read_picture
from mmprompt.apis.inference.overlays import draw_overlay, palette_of, regions_of
from mmprompt.apis.inference.predictions import Prediction
from mmprompt.apis.inference.samcp_loading import load_samcp
from mmprompt.common.errors import UserError
from mmprompt.common.image_groups import image_groups
from mmprompt.common.patches import PatchSet
from mmprompt.datasets.checks import build_dataset
from mmprompt.methods.samcp import SAMCPDetector
from mmprompt.methods.samcp.head import batch_of

#: A patch is painted in the t-SNE as part of the unit that holds at least this share of it.
PART = 0.5
#: Which of the backbone's maps stands for "before": stride 16.
LEVEL, STRIDE = 2, 16
GREY = (0.8, 0.8, 0.8)


def picture_merging(
    name: str,
    config: Config,
    data: ConfigDict,
    learned: Path,
    out: Path,
    count: int,
    device: str,
    widest: int,
) -> list[Path]:
    """Draw patches, truth and the three results of test images, and the t-SNE of patch features.

    Args:
        name: of the run, in the names of the pictures.
        config: of the run.
        data: config of the test data, without wrappers.
        learned: file of what was learned beside the frozen backbone.
        out: folder of the pictures.
        count: images, spread evenly over the data.
        device: where the network runs.
        widest: pixels of an image's longer side in the picture.

    Returns:
        The files.
    """
    model, _ = load_samcp(config, learned, device)
    dataset = build_dataset(data)
    indices = np.linspace(0, len(dataset) - 1, min(count, len(dataset))).round().astype(int)
    scenes, panels = [], []
    for index in indices.tolist():
        batch = pseudo_collate([dataset[index]])
        with torch.no_grad():
            panels.append(features_of(model, batch))
            sample = model.test_step(batch)[0]
        scenes.append(_scene(sample, model, widest))
    files = [out / f'merged_{name}.png', out / f'tsne_{name}.png']
    draw_scenes(scenes, files[0])
    draw_features(panels, files[1])
    return files


def _scene(sample, model: SAMCPDetector, widest: int) -> dict[str, np.ndarray]:
    """Columns of one image, RGB pictures of one size."""
    picture = read_picture(sample.img_path)
    classes, things = model.classes, model.head.thing_classes.tolist()
    palette = palette_of(classes)
    found = {
        task: regions_of(Prediction.of_sample(task, sample, classes, things))
        for task in ('instance', 'panoptic')
    }
    truth = sample.gt_sem_seg.data[0].cpu().numpy()
    semantic = sample.pred_sem_seg.data[0].cpu().numpy()
    columns = {
        'image': picture,
        'patches': paint_patches(sample.patch_set.select(sample.patches.ids.cpu().numpy())),
        'truth': colour_labels(_fit(truth, picture), palette),
        'semantic': colour_labels(_fit(semantic, picture), palette),
        'instances': draw_overlay(picture, found['instance']),
        'panoptic': draw_overlay(picture, found['panoptic']),
    }
    return shrink(columns, widest)


def _fit(labels: np.ndarray, picture: np.ndarray) -> np.ndarray:
    """A label map at the size of the picture."""
    rows, columns = (
        ((2 * np.arange(there) + 1) * seen) // (2 * there)  # where the centres lie
        for there, seen in zip(picture.shape[:2], labels.shape)
    )
    return labels[rows[:, None], columns]


def paint_patches(patches: PatchSet) -> np.ndarray:
    """Each patch in a colour of its own, smaller ones on top; black where there is none.

    Returns:
        (H, W, 3) uint8.
    """
    labels = np.full(patches.size, -1)
    for patch in np.argsort(-patches.areas, kind='stable'):
        labels[patches.select([patch]).decode()[0]] = patch
    colours = np.random.default_rng(0).integers(40, 256, (len(patches), 3))
    return colour_labels(labels, colours)


class _Panel:
    """Features of the patches of one image, before and after, and what they are part of."""

    def __init__(self, before: Tensor, after: Tensor, classes: Tensor, instances: Tensor) -> None:
        self.before, self.after = before.float().cpu().numpy(), after.float().cpu().numpy()
        self.classes, self.instances = classes.cpu().numpy(), instances.cpu().numpy()


def features_of(model: SAMCPDetector, batch: dict) -> _Panel:
    """What stands for the patches of one image.

    Before is the mean of the backbone's map of stride 16 over the cells of a patch, after is f of
    the patch encoder (Sec. 3.2.1). Classes and instances are -1 where no true unit holds a patch.

    Args:
        model: trained.
        batch: of the image, as a data loader gives it.
    """
    data = model.data_preprocessor(batch, False)
    samples, inputs = data['data_samples'], data['inputs']
    metas = [sample.metainfo for sample in samples]
    maps = model.backbone(image_groups(inputs, metas)[0].images)
    found = samples[0].patches
    before = means_of_patches(maps[LEVEL], found.bboxes.to(inputs), found.regions.to(inputs))
    features = model.extract_feat(inputs, metas)
    after = model.head.patch_encoder(features, batch_of(samples, features))
    units = samples[0].gt_units
    one_by_one = units.is_instance
    return _Panel(
        before,
        after.content[0][after.valid[0]],
        holders(units.mask_iop[~one_by_one], units.labels[~one_by_one]),
        holders(units.mask_iop[one_by_one], torch.arange(int(one_by_one.sum()))),
    )


def means_of_patches(level: Tensor, boxes: Tensor, regions: Tensor) -> Tensor:
    """Mean of a map (1, D, h, w) of stride 16 over the cells of patches -> (N, D).

    Args:
        level: the map.
        boxes: (N, 4) xyxy in pixels of the input.
        regions: (N, 7, 7), 1 where a cell of the box is the patch's.
    """
    rois = roi_align(level, [boxes], regions.shape[-1], 1 / STRIDE, aligned=True)  # (N, D, 7, 7)
    inside = regions.to(rois)[:, None]
    return (rois * inside).sum((2, 3)) / inside.sum((2, 3)).clamp(min=1)


def holders(iop: Tensor, names: Tensor) -> Tensor:
    """Of units (K,) with shares (K, N) of patches: for each patch the name of its holder, or -1."""
    if not len(iop):
        return names.new_full(iop.shape[1:], -1)
    best, row = iop.max(0)
    return names.to(row)[row].masked_fill(best < PART, -1)


def draw_features(panels: Sequence[_Panel], path: Path) -> None:
    """One row per image: t-SNE before and after, coloured by true class and by true instance."""
    titles = ('before, classes', 'after, classes', 'before, instances', 'after, instances')
    figure, axes = plt.subplots(
        len(panels), len(titles), figsize=(3.2 * len(titles), 3.2 * len(panels)), squeeze=False
    )
    for row, panel in zip(axes, panels, strict=True):
        flat = [project(values) for values in (panel.before, panel.after)] * 2
        for place, (axis, points) in enumerate(zip(row, flat, strict=True)):
            names = panel.classes if place < 2 else panel.instances
            axis.scatter(*points.T, s=9, c=_colours(names), linewidths=0)
            axis.set_xticks([])
            axis.set_yticks([])
    for axis, title in zip(axes[0], titles, strict=True):
        axis.set_title(title, fontsize=11)
    save_figure(figure, path)


def _colours(names: np.ndarray) -> np.ndarray:
    """(N, 3), equal names in equal colours, -1 in grey."""
    hues = plt.get_cmap('gist_rainbow')
    known = [name for name in np.unique(names) if name >= 0]
    table = {name: hues(place / max(1, len(known)))[:3] for place, name in enumerate(known)}
    return np.array([table.get(name, GREY) for name in names]).reshape(-1, 3)


def project(values: np.ndarray) -> np.ndarray:
    """(N, D) -> (N, 2) by t-SNE; fewer than three points lie on a line.

    Raises:
        UserError: scikit-learn is not installed.
    """
    if len(values) < 3:
        return np.stack([np.arange(len(values)), np.zeros(len(values))], axis=1)
    try:
        from sklearn.manifold import TSNE
    except ImportError as error:
        raise UserError(
            'The t-SNE of patch features needs scikit-learn, which is not installed. Install it '
            'with `pip install scikit-learn`.'
        ) from error
    perplexity = min(30.0, (len(values) - 1) / 3)
    return TSNE(perplexity=perplexity, init='pca', random_state=0).fit_transform(values)

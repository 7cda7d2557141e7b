"""The interim maps of a finished SPM run beside images and results, for ``tools/pictures.py``."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from mmengine.config import Config, ConfigDict
from torch import Tensor
from torch.nn import functional as F

from mmprompt.apis.figures import colour_labels, draw_scenes, shrink
from mmprompt.apis.images import read_picture
from mmprompt.apis.inference.inferencer import Inferencer
from mmprompt.datasets.checks import build_dataset
from mmprompt.methods.spm.stages import OUT


def mix_colours(probs: np.ndarray, palette: Sequence[Sequence[int]]) -> np.ndarray:
    """Paint a soft map: at each pixel the classes' colours, mixed by their probabilities.

    Args:
        probs: (C, H, W), summing to 1 over the classes.
        palette: one RGB triple per class.

    Returns:
        (H, W, 3) uint8.
    """
    mixed = np.einsum('chw,ck->hwk', probs, np.asarray(palette, np.float64))
    return mixed.round().clip(0, 255).astype(np.uint8)


def picture_interim(
    name: str,
    config: Config,
    data: ConfigDict,
    prompt: Path,
    out: Path,
    count: int,
    device: str,
    widest: int,
) -> list[Path]:
    """Draw test images with their truth, the map before each prompt, and the result.

    A map M_i is painted by `mix_colours`, so that unsure places look unsure. It is enlarged as its
    loss enlarges it. Images go through the network whole, whatever ``test_cfg`` says.

    Args:
        name: of the run, in the name of the picture.
        config: of the run.
        data: config of the test data, without wrappers.
        prompt: file of what was learned.
        out: folder of the picture.
        count: images, spread evenly over the data.
        device: where the network runs.
        widest: pixels of an image's longer side in the picture.

    Returns:
        The file; none without prompts.
    """
    segment = Inferencer(config, prompt, device)
    if not segment.model.backbone.prompt_at:
        return []
    segment.model.test_cfg = ConfigDict(mode='whole')
    dataset = build_dataset(data)
    indices = np.linspace(0, len(dataset) - 1, min(count, len(dataset))).round().astype(int)
    scenes = [_scene(dataset, int(index), segment, widest) for index in indices]
    draw_scenes(scenes, out / f'interim_{name}.png')
    return [out / f'interim_{name}.png']


def _scene(dataset, index: int, segment: Inferencer, widest: int) -> dict[str, np.ndarray]:
    sample, palette = dataset[index]['data_samples'], dataset.metainfo['palette']
    with segment.model.backbone.recording() as interim:
        found = segment(sample.img_path)
    columns = {'image': read_picture(sample.img_path)}
    height, width = columns['image'].shape[:2]
    truth = sample.gt_sem_seg.data[0].numpy()
    columns['truth'] = colour_labels(truth, palette)
    for place, logits in zip(segment.model.backbone.prompt_at, interim, strict=True):
        probs = enlarged(logits, found.metainfo, (height, width))
        title = 'before the head' if place == OUT else f'before {place}'
        columns[title] = mix_colours(probs.numpy(), palette)
    columns['result'] = colour_labels(found.pred_sem_seg.data[0].cpu().numpy(), palette)
    return shrink(columns, widest)


def enlarged(logits: Tensor, metainfo: dict, size: tuple[int, int]) -> Tensor:
    """Probabilities (C, H, W) of an image from logits (1, C, h, w) of what the network saw of it.

    Args:
        logits: of one map.
        metainfo: of the data sample; the network saw ``img_shape``, padded at the bottom and on the
            right to ``pad_shape``.
        size: (H, W) of the image itself.
    """
    shown = metainfo['img_shape'][:2]
    padded = metainfo.get('pad_shape', shown)[:2]

    def resize(values: Tensor, to: tuple[int, int]) -> Tensor:
        return F.interpolate(values, size=tuple(to), mode='bilinear', align_corners=False)

    probs = resize(logits.float(), padded).softmax(dim=1)
    return resize(probs[..., : shown[0], : shown[1]], size)[0].cpu()

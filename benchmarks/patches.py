"""Our everything mode beside the transformers library's: one model, the same points and thresholds.

Both generate the patches of the same picture with one `SamModel` of random weights, in turns, each
in a process of its own. Quality and stability of a random model mean nothing, so no mask is dropped
for them: this is the case in which ours has the least to save.

    python benchmarks/patches.py [--device cuda] [--out PATH]
    python benchmarks/patches.py --threads 1 --clock processor --repeats 3   # on a busy machine

With `--mobile-sam FILE` ours is compared with Meta's own generator (package segment-anything), both
on MobileSAM with the published thresholds.
"""

import argparse
import statistics
import sys
from functools import partial
from pathlib import Path

import numpy as np
import torch
from measure import Worker  # beside this file
from PIL import Image

import mmprompt  # noqa: F401, registers the models
from mmprompt.common.files import atomic_file
from mmprompt.foundation.sam.everything import EverythingSettings, everything
from mmprompt.foundation.sam.hugging_face import SamPrompter
from mmprompt.foundation.sam.prompter import SAMPrompter
from mmprompt.foundation.sam.sam import SAM

ARMS = ('library', 'mmprompt')


def picture(height: int, width: int) -> np.ndarray:
    """Rectangles of one colour each and some noise, RGB (H, W, 3) uint8."""
    random = np.random.default_rng(0)
    image = random.integers(0, 30, (height, width, 3))
    for _ in range(40):
        y, x = random.integers(0, height), random.integers(0, width)
        h, w = random.integers(8, height // 2), random.integers(8, width // 2)
        image[y : y + h, x : x + w] = random.integers(0, 220, 3) + random.integers(0, 30)
    return image.clip(0, 255).astype(np.uint8)


def tiny_sam(side: int):
    """A `SamModel` of transformers with a small image encoder and SAM's own mask decoder."""
    import transformers

    vision = transformers.SamVisionConfig(
        hidden_size=32, num_hidden_layers=2, num_attention_heads=2, mlp_dim=64, image_size=side,
        window_size=8, global_attn_indexes=[1],
    )  # fmt: skip
    prompt = transformers.SamPromptEncoderConfig(image_size=side)
    config = transformers.SamConfig(
        vision_config=vision.to_dict(), prompt_encoder_config=prompt.to_dict()
    )
    torch.manual_seed(0)
    return transformers.SamModel(config).eval()


def build(arm: str, options: argparse.Namespace) -> tuple[dict, dict]:
    """One arm: (parameters, {'image': call})."""
    image, side = picture(*options.size), options.points_per_side
    if options.mobile_sam:
        settings = EverythingSettings(points_per_side=side, crops='none')
        model = SAM.from_checkpoint(options.mobile_sam).to(options.device)
        ours = partial(everything, SAMPrompter(model), image, settings, options.batch)
        theirs = None if arm == 'mmprompt' else _meta(model, settings, options)
        call = ours if theirs is None else lambda: theirs.generate(image)
    else:
        settings = EverythingSettings(
            points_per_side=side, min_quality=0.0, min_stability=0.0, crops='none'
        )
        model = tiny_sam(options.side).to(options.device)
        if arm == 'mmprompt':
            call = partial(everything, SamPrompter(model), image, settings, options.batch)
        else:
            call = _pipeline(model, image, settings, options)
    print(f'{arm}: {_number(call())} patches', file=sys.stderr)
    return dict(total=sum(p.numel() for p in model.parameters())), dict(image=call)


def _number(found) -> int:
    return len(found['masks'] if isinstance(found, dict) else found)


def _pipeline(model, image: np.ndarray, settings: EverythingSettings, options):
    from transformers import SamImageProcessor, pipeline

    size = dict(longest_edge=options.side)
    pad = dict(height=options.side, width=options.side)
    generate = pipeline(
        'mask-generation',
        model=model,
        image_processor=SamImageProcessor(size=size, pad_size=pad),
        device=options.device,
    )
    return partial(
        generate,
        Image.fromarray(image),
        points_per_batch=options.batch,
        points_per_crop=settings.points_per_side,
        pred_iou_thresh=settings.min_quality,
        stability_score_thresh=settings.min_stability,
        crops_nms_thresh=settings.nms_iou,
    )


def _meta(model: SAM, settings: EverythingSettings, options: argparse.Namespace):
    from segment_anything import SamAutomaticMaskGenerator, modeling

    class Encoder(torch.nn.Module):
        img_size = 1024

        def __init__(self) -> None:
            super().__init__()
            self.inner = model.image_encoder

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.inner(x)

    transformer = modeling.TwoWayTransformer(depth=2, embedding_dim=256, mlp_dim=2048, num_heads=8)
    sam = modeling.Sam(
        Encoder(),
        modeling.PromptEncoder(256, (64, 64), (1024, 1024), 16),
        modeling.MaskDecoder(transformer_dim=256, transformer=transformer),
    ).eval()
    own = {k: v for k, v in model.state_dict().items() if not k.startswith('image_encoder')}
    sam.load_state_dict(own, strict=False)
    return SamAutomaticMaskGenerator(
        sam.to(options.device),
        points_per_side=settings.points_per_side,
        points_per_batch=options.batch,
        pred_iou_thresh=settings.min_quality,
        stability_score_thresh=settings.min_stability,
        box_nms_thresh=settings.nms_iou,
    )


def table(options: argparse.Namespace) -> str:
    """Measure both arms in turns; a Markdown table."""
    workers = [Worker(build, (arm, options), options.device, options.threads) for arm in ARMS]
    times = [[] for _ in workers]
    for repeat in range(options.repeats):
        turns = list(zip(workers, times))
        for worker, seconds in turns if repeat % 2 else reversed(turns):
            seconds.append(worker.run('image', options.clock))
    for worker in workers:
        worker.__exit__()
    ratio = statistics.median(theirs / ours for theirs, ours in zip(*times))
    model = 'MobileSAM, published thresholds' if options.mobile_sam else 'small SamModel'
    theirs, ours = (statistics.median(seconds) for seconds in times)
    points = f'{options.points_per_side} x {options.points_per_side}'
    return (
        f'{options.device}, {options.threads or "all"} threads, {options.clock}, median of '
        f'{options.repeats}\n\n'
        '| model | points | image | library (s) | mmprompt (s) | times as fast |\n'
        '|---|---|---|---|---|---|\n'
        f'| {model} | {points} | {options.size[1]}x{options.size[0]} | {theirs:.3f} | {ours:.3f} | '
        f'{ratio:.2f} |\n'
    )


def main(argv: list[str] | None = None) -> int:
    """Run the command line; return its exit status."""
    parser = argparse.ArgumentParser(description=__doc__.split('\n\n')[0])
    add = parser.add_argument
    add('--points-per-side', type=int, default=48)
    add('--batch', type=int, default=64, help='points decoded at once, in both')
    add('--size', type=int, nargs=2, default=[480, 640], metavar=('H', 'W'))
    add('--side', type=int, default=1024, help='of the square that the small SamModel sees')
    add('--mobile-sam', metavar='FILE', help='compare on mobile_sam.pt')
    add('--device', default='cpu')
    add('--threads', type=int)
    add('--clock', choices=('seconds', 'processor'), default='seconds')
    add('--repeats', type=int, default=5)
    add('--out', type=Path, help='Markdown file to write')
    options = parser.parse_args(argv)
    text = table(options)
    print(text, end='')
    if options.out:
        with atomic_file(options.out) as stream:
            stream.write(text.encode())
    return 0


if __name__ == '__main__':
    sys.exit(main())

"""Everything mode against Meta's own generator, and what the paper adds to it."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from toy_sam import SAM_DIM, stirred_sam

from mmprompt.foundation.sam.crops import views
from mmprompt.foundation.sam.everything import EverythingSettings, everything, mask_boxes
from mmprompt.foundation.sam.folded import folded
from mmprompt.foundation.sam.prompter import SAMPrompter, Seen, enlarge, square_input
from mmprompt.foundation.sam.sam import SAM, point_grid

SIDE = 128
#: A toy's quality means nothing: all masks are looked at, and few are dropped as unstable.
LOOSE = dict(points_per_side=3, min_quality=0.0, min_stability=0.3, crops='none')


def picture(height=60, width=80, seed=0):
    random = np.random.default_rng(seed)
    image = random.integers(0, 60, (height, width, 3)).astype(np.uint8)
    image[height // 5 : height // 2, width // 8 : width // 3] += 150
    image[height // 2 :, width // 2 :, 1] += 120
    return image


TOY = dict(side=SIDE, dim=SAM_DIM, mask_channels=8, heads=2, ffn_dim=16)


def their_generator(model, sizes=TOY, **settings):
    """Meta's generator over the same weights and our image encoder."""
    modeling = pytest.importorskip('segment_anything.modeling')
    from segment_anything import SamAutomaticMaskGenerator

    class Encoder(torch.nn.Module):
        img_size = sizes['side']

        def __init__(self):
            super().__init__()
            self.inner = model.image_encoder

        def forward(self, x):
            return self.inner(x)

    side, dim = sizes['side'], sizes['dim']
    sam = modeling.Sam(
        Encoder(),
        modeling.PromptEncoder(
            embed_dim=dim,
            image_embedding_size=(side // 16, side // 16),
            input_image_size=(side, side),
            mask_in_chans=sizes['mask_channels'],
        ),
        modeling.MaskDecoder(
            num_multimask_outputs=3,
            transformer=modeling.TwoWayTransformer(
                depth=2,
                embedding_dim=dim,
                mlp_dim=sizes['ffn_dim'],
                num_heads=sizes['heads'],
            ),
            transformer_dim=dim,
            iou_head_depth=3,
            iou_head_hidden_dim=dim,
        ),
    ).eval()
    own = {k: v for k, v in model.state_dict().items() if not k.startswith('image_encoder')}
    assert not sam.load_state_dict(own, strict=False).unexpected_keys
    return SamAutomaticMaskGenerator(sam, **settings)


@pytest.mark.parametrize('crops', ['none', 'grid'])
@pytest.mark.parametrize('size', [(60, 80), (70, 70), (90, 50)])
def test_patches_are_those_of_the_published_generator(size, crops):
    model, image = stirred_sam(), picture(*size)
    quality = 0.2
    theirs = their_generator(
        model,
        points_per_side=4,
        points_per_batch=5,
        pred_iou_thresh=quality,
        stability_score_thresh=0.6,
        box_nms_thresh=1.0,  # a toy's masks are noise all over the image
        crop_nms_thresh=1.0,
        crop_n_layers=int(crops == 'grid'),
    ).generate(image)
    settings = EverythingSettings(4, quality, 0.6, crops=crops, nms_iou=1.0, crop_nms_iou=1.0)
    found = everything(SAMPrompter(model, SIDE), image, settings, batch=7)
    assert len(found) == len(theirs) > 3
    same_patches(found, theirs)


def same_patches(found, theirs):
    """But for single pixels, whose logits are zero up to rounding."""
    order = np.argsort([-each['predicted_iou'] for each in theirs], kind='stable')
    expected = np.stack([theirs[i]['segmentation'] for i in order])
    scores = [theirs[i]['predicted_iou'] for i in order]
    np.testing.assert_allclose(found.scores, scores, atol=1e-5)
    assert (found.decode() != expected).mean() < 1e-4


def test_mobile_sam_gives_the_published_patches():
    path = Path(os.environ.get('MMPROMPT_WEIGHTS', '')) / 'mobile_sam.pt'
    if not path.is_file():
        pytest.skip('MMPROMPT_WEIGHTS names no folder with mobile_sam.pt')
    model, image = SAM.from_checkpoint(path), picture(150, 200)
    sizes = dict(side=1024, dim=256, mask_channels=16, heads=8, ffn_dim=2048)
    theirs = their_generator(
        model, sizes, points_per_side=4, pred_iou_thresh=0.8, stability_score_thresh=0.9
    ).generate(image)
    found = everything(SAMPrompter(model), image, EverythingSettings(points_per_side=4), batch=4)
    assert len(found) == len(theirs) > 1
    same_patches(found, theirs)


def test_batches_change_nothing():
    image, settings = picture(), EverythingSettings(**LOOSE)
    first, second = (
        everything(SAMPrompter(stirred_sam(), SIDE), image, settings, batch=n) for n in (1, 64)
    )
    assert first.rles == second.rles and len(first)


@torch.no_grad()
def test_folded_attention_is_attention():
    model = stirred_sam()
    cells, places = torch.randn(1, 24, SAM_DIM), torch.randn(1, 24, SAM_DIM)
    tokens = torch.randn(5, 7, SAM_DIM)
    transformer = model.mask_decoder.transformer
    for found, expected in zip(
        folded(transformer, tokens, cells, places), transformer(tokens, cells, places)
    ):
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_only_good_masks_are_drawn(monkeypatch):
    from mmprompt.foundation.sam import prompter

    drawn = []
    draw = prompter._SAMAnswers.draw
    monkeypatch.setattr(
        prompter._SAMAnswers, 'draw', lambda self, i: drawn.append((len(i), self)) or draw(self, i)
    )
    settings = EverythingSettings(**{**LOOSE, 'min_quality': 0.3})
    everything(SAMPrompter(stirred_sam(), SIDE), picture(), settings, batch=9)
    ((number, answers),) = drawn
    assert 0 < number < 27 and number == (answers.quality > 0.3).sum()


def test_nothing_is_found_where_nothing_is_good():
    settings = EverythingSettings(
        **{**LOOSE, 'min_quality': 1.0, 'min_stability': 1.0, 'denser': 1}
    )
    found = everything(SAMPrompter(stirred_sam(), SIDE), picture(), settings)
    assert len(found) == 0 and found.size == (60, 80)


@pytest.mark.parametrize('size', [(30, 90), (90, 30)])
def test_wide_images_are_cropped_along_the_long_side(size):
    long = views(size, 'long-side')
    expected = [(0, 0, 90, 30), *((x, 0, x + 30, 30) for x in (0, 15, 30, 45, 60))]
    if size[0] > size[1]:
        expected = [(y1, x1, y2, x2) for x1, y1, x2, y2 in expected]
    assert long == expected


def test_crops_of_the_paper_and_of_its_code():
    # Cityscapes: the whole image and squares at 0, 512 and 1024.
    paper = views((1024, 2048))
    assert paper[1:] == [(x, 0, x + 1024, 1024) for x in (0, 512, 1024)]
    assert views((1024, 2047)) == [(0, 0, 2047, 1024)]
    assert len(views((1024, 2047), wide=1.5)) == 4
    amg = pytest.importorskip('segment_anything.utils.amg')
    for size in ((1024, 2048), (427, 640), (33, 21)):
        boxes, _ = amg.generate_crop_boxes(size, 1, 512 / 1500)
        assert views(size, 'grid') == [tuple(box) for box in boxes]
    with pytest.raises(ValueError, match='none, long-side, grid'):
        views((3, 4), 'middle')


class Circles:
    """Answers each point by the disc that it lies in: a large one, a small one, or none."""

    device = torch.device('cpu')
    side = 128

    def __init__(self):
        self.asked = []

    def see(self, image):
        y, x = np.mgrid[:32, :32]
        discs = [(x - 8) ** 2 + (y - 8) ** 2 < 49, (x - 25) ** 2 + (y - 25) ** 2 < 3]
        return Seen(image.shape[:2], (128, 128), 128, np.stack(discs))

    def ask(self, seen, points):
        self.asked.append(points)
        at = (points.numpy() * 32).astype(int)
        inside = torch.from_numpy(seen.features[:, at[:, 1], at[:, 0]].T.copy())  # (n, 2)

        class Answers:
            quality = inside.float()

            def draw(self, index):
                masks = torch.from_numpy(seen.features)[index % 2].float()
                return 20 * masks - 10

        return Answers()


def test_denser_points_where_patches_are_small_or_missing():
    image = np.zeros((128, 128, 3), np.uint8)
    coarse, fine = Circles(), Circles()
    settings = dict(points_per_side=4, min_quality=0.5, crops='none', small_area=0.01)
    assert len(everything(coarse, image, EverythingSettings(**settings))) == 1
    assert len(everything(fine, image, EverythingSettings(**settings, denser=3))) == 2
    rounds = [len(points) for points in fine.asked]
    # Never again inside the large disc, which is no small patch.
    y, x = (torch.cat(fine.asked[1:]) * 32).long().T[[1, 0]]
    assert not fine.see(image).features[0][y, x].any()
    assert rounds[0] == 16 and all(16 < n < 32**2 for n in rounds[1:])
    # Once there, the small disc is asked again: there may be something smaller in it.
    assert fine.see(image).features[1][y, x].any()


def test_crops_give_patches_in_the_frame_of_the_image():
    image = np.zeros((128, 384, 3), np.uint8)
    settings = EverythingSettings(points_per_side=16, min_quality=0.5)
    found = everything(Circles(), image, settings)
    centres = (found.boxes[:, :2] + found.boxes[:, 2:]) / 2
    for x in (0, 64, 128, 192, 256):
        # The small disc of each square; its large disc ends at the edge and may go on beyond it.
        assert np.abs(centres - [x + 102, 102]).sum(1).min() < 2
    assert found.size == (128, 384)
    large = found.areas > 1500
    assert (found.boxes[large, 0] < 30).all() and large.any()


def test_boxes_of_masks():
    masks = torch.zeros(3, 5, 7, dtype=torch.bool)
    masks[0, 1:4, 2:6] = True
    masks[2, 4, 0] = True
    boxes, some = mask_boxes(masks)
    assert boxes.tolist() == [[2, 1, 5, 3], [0, 0, 6, 4], [0, 4, 0, 4]]
    assert some.tolist() == [True, False, True]


def test_enlarging_is_that_of_the_whole_square():
    logits = torch.randn(2, 32, 32)
    for inside, size in (((75, 128), (33, 57)), ((128, 128), (50, 50)), ((128, 9), (64, 5))):
        seen = Seen(size, inside, 128, None)
        square = torch.nn.functional.interpolate(logits[None], (128, 128), mode='bilinear')[0]
        square = square[:, : inside[0], : inside[1]]
        expected = torch.nn.functional.interpolate(square[None], size, mode='bilinear')[0]
        torch.testing.assert_close(enlarge(logits, seen), expected)


def test_input_is_padded_or_stretched():
    image = picture(30, 60)
    pixels, inside = square_input(image, 64)
    assert pixels.shape == (1, 3, 64, 64) and inside == (32, 64)
    assert pixels[..., :32, :].abs().min() > 0 and not pixels[..., 32:, :].any()
    assert square_input(image, 64, stretch=True)[1] == (64, 64)


@pytest.mark.parametrize(
    'wrong', [dict(min_quality=1.5), dict(points_per_side=0), dict(crops='all'), dict(denser=-1)]
)
def test_settings_that_mean_nothing(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        EverythingSettings(**wrong)


def test_published_settings():
    own = EverythingSettings()
    assert (own.points_per_side, own.min_quality, own.min_stability) == (48, 0.8, 0.9)
    assert (own.nms_iou, own.stability_offset, own.denser) == (0.7, 1.0, 0)
    assert len(point_grid(own.points_per_side)) == 2304

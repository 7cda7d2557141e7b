"""`SEEM.segment`: any size, any batch, whatever a user may hand over."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from toy import DIM, stir, toy_seem

from mmprompt.common.errors import UserError
from mmprompt.foundation.seem import SEEM, Strokes
from mmprompt.foundation.seem import seem as seem_module
from mmprompt.foundation.seem.inputs import place_strokes, resized_size

SIZES = [(31, 33), (1, 45), (32, 64), (45, 1), (1, 1), (64, 33), (32, 33)]
NAMES = ('road', 'car')


@pytest.fixture(scope='module')
def model():
    torch.manual_seed(0)
    model = SEEM(**toy_seem()).double().eval()
    stir(model.decoder)
    return model


@pytest.fixture(scope='module')
def semantic():
    rows = torch.randn(6, DIM, generator=torch.Generator().manual_seed(1)).double()
    return F.normalize(rows, dim=1)


def picture(size, seed=0, dtype=torch.uint8):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (3, *size), generator=generator).to(dtype)


def pictures():
    return [picture(size, seed) for seed, size in enumerate(SIZES)]


def tensors(result):
    return list(result) if isinstance(result, tuple) else [result]


def assert_same(found, expected):
    for mine, theirs in zip(tensors(found), tensors(expected)):
        torch.testing.assert_close(mine, theirs, rtol=1e-10, atol=1e-10)


TASKS = dict(
    semantic={},
    panoptic=dict(things=(0, 1), score_threshold=0.1, overlap_threshold=0.1),
    instance=dict(top_k=7),
    stroke={},
)


def drawn_on(images):
    hints = []
    for index, image in enumerate(images):
        mask = torch.zeros(image.shape[1:], dtype=torch.bool)
        mask[image.shape[1] // 2, :] = True
        hints.append(Strokes(mask, mask.flip(0) if index % 2 else None))
    return hints


@pytest.mark.parametrize('task', TASKS)
@pytest.mark.parametrize('short_side', [None, 40])
def test_a_list_gives_what_each_image_gives_alone(model, semantic, task, short_side, monkeypatch):
    images = pictures()
    options = dict(task=task, classes=semantic, short_side=short_side, **TASKS[task])
    hints = drawn_on(images) if task == 'stroke' else [None] * len(images)
    alone = [model.segment(image, strokes=hint, **options) for image, hint in zip(images, hints)]
    for image, result in zip(images, alone):
        answer = dict(panoptic=lambda r: r.seg_map, instance=lambda r: r.masks[0])
        assert answer.get(task, lambda r: r)(result).shape == image.shape[1:]
    if task == 'semantic':
        assert max(len(result.unique()) for result in alone) > 2
    batches = []
    encode = model.encode_image
    monkeypatch.setattr(model, 'encode_image', lambda x: (batches.append(len(x)), encode(x))[1])
    for order in (range(len(images)), [6, 2, 5, 0, 4, 3, 1]):
        strokes = [hints[i] for i in order] if task == 'stroke' else None
        found = model.segment([images[i] for i in order], strokes=strokes, **options)
        for index, result in zip(order, found):
            assert_same(result, alone[index])
    assert max(batches) > 1
    assert model.segment([], classes=semantic) == []


def test_large_groups_run_in_parts(model, semantic, monkeypatch):
    images = [picture((32, 32), seed) for seed in range(5)]
    whole = model.segment(images, classes=semantic)
    monkeypatch.setattr(seem_module, 'BATCH_PIXELS', 2 * 32 * 32)
    encode, seen = model.encode_image, []
    monkeypatch.setattr(model, 'encode_image', lambda x: (seen.append(len(x)), encode(x))[1])
    for mine, theirs in zip(model.segment(images, classes=semantic), whole):
        assert torch.equal(mine, theirs)
    assert seen == [2, 2, 1]


def test_every_kind_of_image_is_read_alike(model, semantic):
    rgb = picture((40, 50))
    array = rgb.permute(1, 2, 0).numpy()
    expected = model.segment(rgb, classes=semantic)
    kinds = (
        *(rgb.to(dtype) for dtype in (torch.int64, torch.float32, torch.float64)),
        *(array, array.astype(np.uint16), array.astype('>i4'), array.astype(np.float64)),
        *(np.asfortranarray(array), Image.fromarray(array)),
    )
    for image in kinds:
        assert torch.equal(model.segment(image, classes=semantic), expected)


def test_arrays_of_embeddings_and_of_names(model, semantic):
    rgb = picture((40, 50))
    expected = model.segment(rgb, classes=semantic)
    for kind in (np.float64, '>f8'):
        assert torch.equal(model.segment(rgb, classes=semantic.numpy().astype(kind)), expected)
    assert torch.equal(model.embed_classes(semantic.numpy()), semantic)
    assert model.segment(rgb, classes=semantic.numpy().astype(np.float16)).shape == (40, 50)
    named = model.segment(rgb, classes=NAMES)
    assert torch.equal(model.segment(rgb, classes=np.array(NAMES)), named)


BAD_IMAGES = [
    (torch.zeros(40, 50), 'grey'),
    (torch.zeros(1, 40, 50), 'grey'),
    (np.zeros((40, 50, 4), np.uint8), 'transparency'),
    (torch.zeros(4, 40, 50), 'transparency'),
    (torch.zeros(1, 3, 40, 50), 'list'),
    (torch.zeros(40, 50, 3), 'channels last'),
    (np.zeros((3, 40, 50), np.uint8), 'channels first'),
    (Image.new('L', (50, 40)), 'mode L'),
    (Image.new('RGBA', (50, 40)), 'mode RGBA'),
    (torch.zeros(3, 40, 50, dtype=torch.bool), 'torch.bool'),
    (np.zeros((40, 50, 3), bool), 'array of bool'),
    (np.zeros((40, 50, 3), complex), 'array of complex128'),
    (torch.full((3, 40, 50), 256), 'to 256'),
    (np.full((40, 50, 3), 2**32 + 5, np.uint64), '4.29497e.09'),
    (torch.full((3, 40, 50), -1.0), '-1'),
    (torch.full((3, 40, 50), 0.5), 'by 255'),
    (torch.full((3, 40, 50), float('nan')), 'not finite'),
    (np.full((40, 50, 3), np.inf), 'not finite'),
    (torch.zeros(3, 0, 50), 'without pixels'),
    ('street.png', 'found str'),
]


@pytest.mark.parametrize('image, words', BAD_IMAGES, ids=[words for _, words in BAD_IMAGES])
def test_what_is_no_image_is_refused(model, semantic, image, words):
    with pytest.raises(UserError, match=words):
        model.segment(image, classes=semantic)
    with pytest.raises(UserError, match=words):
        model.segment([picture((4, 4)), image], classes=semantic)


@pytest.mark.parametrize(
    'options, words',
    [
        (dict(classes=()), 'classes must be'),
        (dict(classes='road'), r'Give e\.g\. classes='),
        (dict(classes=torch.zeros(6, DIM + 1)), rf'\(C\+1, {DIM}\).*\(6, {DIM + 1}\)'),
        (dict(classes=torch.zeros(DIM)), 'class embeddings'),
        (dict(classes=np.zeros((6, DIM + 1))), rf'\(6, {DIM + 1}\)'),
        (dict(classes=np.arange(6)), r'array of int64 of shape \(6,\)'),
        (dict(classes=np.array([])), 'class embeddings'),
        (dict(classes=torch.full((6, DIM), float('nan'))), 'finite'),
        (dict(task='panoptic', things=(5,)), 'from 0 to 4, found 5'),
        (dict(task='instance', things=(-1,)), 'found -1'),
        (dict(task='panoptic', things=('car',)), "found 'car'"),
        (dict(threshold=0.5), r"task 'semantic' takes the thresholds \[\]"),
        (dict(task='panoptic', top_k=5), 'overlap_threshold'),
        (dict(task='panoptic', score_threshold=2), 'score_threshold must lie'),
        (dict(task='instance', score_threshold=0.5), r"\['top_k'\]"),
        (dict(task='instance', top_k=0), 'top_k must be'),
        (dict(short_side=0), 'short_side'),
        (dict(short_side=12.5), 'short_side'),
        (dict(output_size=(0, 5)), 'output_size'),
        (dict(output_size=12), 'output_size'),
        (dict(task='stroke'), 'needs strokes'),
        (dict(task='stroke', strokes=torch.zeros(5, 5)), r'\(40, 50\).*\(64, 64\).*\(5, 5\)'),
        (dict(task='stroke', strokes=torch.zeros(40, 50)), 'positive is empty'),
        (dict(task='depth'), "found 'depth'"),
    ],
)
def test_what_cannot_be_meant_is_refused(model, semantic, options, words):
    with pytest.raises(UserError, match=words):
        model.segment(picture((40, 50)), **{'classes': semantic, **options})


def test_strokes_of_a_list_are_a_list(model):
    images = [picture((40, 50))] * 2
    with pytest.raises(UserError, match='list of 2 images'):
        model.segment(images, 'stroke', strokes=Strokes(torch.ones(40, 50)))
    with pytest.raises(UserError, match='every image'):
        model.segment(images, 'stroke', strokes=[torch.ones(40, 50), None])


@pytest.mark.parametrize(
    'size, short_side, expected',
    [
        ((1024, 2048), 512, (512, 1024)),
        ((4000, 5000), 512, (512, 640)),
        ((480, 360), None, (480, 360)),
        ((100, 800), 50, (50, 400)),
        ((100, 1600), 50, (25, 400)),  # 50 x 800 without the limit
        ((1, 5000), 512, (1, 4096)),
        ((9000, 1), 32, (256, 1)),
    ],
)
def test_resized_sizes(size, short_side, expected):
    assert resized_size(size, short_side) == expected


@pytest.mark.parametrize(
    'size, resized', [((400, 500), (40, 50)), ((40, 50), (40, 50)), ((21, 34), (77, 93))]
)
def test_no_thin_stroke_is_lost(size, resized):
    """Every drawn pixel is still drawn where it went, and nothing far from one is."""
    generator = torch.Generator().manual_seed(0)
    mask = torch.zeros(size, dtype=torch.bool)
    mask[torch.randint(size[0], (9,), generator=generator), torch.arange(9) * 3] = True
    placed = place_strokes(mask, torch.zeros(3, *size), resized).positive
    assert placed.shape == (1, *(side + -side % 32 for side in resized))
    assert not placed[:, resized[0] :].any() and not placed[:, :, resized[1] :].any()
    scale = torch.tensor(resized) / torch.tensor(size)
    went = (mask.nonzero() + 0.5) * scale
    there = placed[0].nonzero() + 0.5
    distance = (went[:, None] - there).abs() / scale.clamp(min=1)
    assert (distance.amax(-1).amin(1) <= 1).all() and (distance.amax(-1).amin(0) <= 1).all()


def test_strokes_on_the_image_and_in_the_frame_are_the_same(model):
    rgb = picture((80, 120))
    mask = torch.zeros(80, 120, dtype=torch.bool)
    mask[20:24, 30:90] = True
    frame = torch.zeros(1, 64, 64, dtype=torch.bool)
    frame[0, :40, :60] = mask[::2, ::2]
    drawn = model.segment(rgb, 'stroke', strokes=mask, short_side=40)
    framed = model.segment(rgb, 'stroke', NAMES, strokes=Strokes(frame), short_side=40)
    assert drawn.shape == (80, 120) and torch.equal(drawn, framed)
    other = model.segment(rgb, 'stroke', strokes=mask.flip(0), short_side=40)
    assert not torch.equal(drawn, other)


def test_strokes_steer_other_tasks_where_queries_see_them(semantic):
    torch.manual_seed(0)
    model = SEEM(**toy_seem(object_tokens=True)).double().eval()
    images = pictures()
    hints = [hint if index % 3 else None for index, hint in enumerate(drawn_on(images))]
    options = dict(task='instance', classes=semantic, short_side=40)
    found = model.segment(images, strokes=hints, **options)
    for image, hint, result in zip(images, hints, found):
        assert_same(result, model.segment(image, strokes=hint, **options))
    for hint, result, plain in zip(hints, found, model.segment(images, **options)):
        if hint is None:
            assert_same(result, plain)
        else:
            assert not torch.allclose(result.scores, plain.scores)

"""Every public data set's config, unchanged, on a two-image miniature in its official folders."""

from pathlib import Path

import mmseg.datasets
import numpy as np
import pytest
import torch
from layouts import CHOI, HUANG, LAYOUTS, VISTAS_IDS, write
from mmdet.datasets import ADE20KPanopticDataset
from mmdet.datasets import CityscapesDataset as CityscapesInstances
from mmengine.config import Config
from mmengine.registry import DATASETS, DefaultScope
from mmengine.structures import PixelData
from mmseg.datasets.transforms import Resize
from mmseg.evaluation import IoUMetric
from PIL import Image

from mmprompt.apis.prepare.few_shot import main as make_split
from mmprompt.common.errors import UserError
from mmprompt.datasets.mapillary import MAPPINGS, Mapillary19Dataset

CONFIGS = Path(__file__).resolve().parents[2] / 'configs'
BASES = {
    'cityscapes': mmseg.datasets.CityscapesDataset,
    'bdd100k': mmseg.datasets.BDD100KDataset,
    'mapillary': Mapillary19Dataset,
    'ade20k': mmseg.datasets.ADE20KDataset,
    'pascal-context': mmseg.datasets.PascalContextDataset59,
    **{f'acdc-{c}': mmseg.datasets.CityscapesDataset for c in ('fog', 'night', 'rain', 'snow')},
}
SIZES = [(64, 88), (108, 60)]  # (H, W): landscape and portrait
every_base = pytest.mark.parametrize('base', BASES)


@pytest.fixture
def data(tmp_path, monkeypatch):
    """The folder that configs read data sets from."""
    monkeypatch.setenv('MMPROMPT_DATA', str(tmp_path))
    return tmp_path


def read(base: str) -> Config:
    return Config.fromfile(str(CONFIGS / f'_base_/datasets/{base}.py'))


def guarded(cfg: dict):
    return DATASETS.build(dict(type='GuardedDataset', dataset=cfg))


def mapped(label: np.ndarray, ids: dict[int, int]) -> np.ndarray:
    """Pixel by pixel what the label's values stand for."""
    return np.array([[ids[value] for value in row] for row in label.tolist()])


def mean_iou(predicted: list[np.ndarray], truth: list[np.ndarray], classes: int) -> float:
    """Mean over the classes that occur, of all images together; 255 is not counted."""
    pairs = [
        (p, t)
        for a, b in zip(predicted, truth)
        for p, t in zip(a.ravel().tolist(), b.ravel().tolist())
        if t != 255
    ]
    ious = []
    for c in range(classes):
        union = sum(c in pair for pair in pairs)
        if union:
            ious.append(sum(pair == (c, c) for pair in pairs) / union)
    return 100 * sum(ious) / len(ious)


@every_base
def test_labels_are_mapped_pixel_by_pixel_and_keep_their_size(base, data):
    layout = LAYOUTS[base]
    labels = write(data, layout, SIZES)[layout.splits[1]]
    cfg = read(base)
    dataset = guarded(cfg.test_dataloader.dataset)
    assert type(dataset.dataset) is BASES[base]
    assert len(dataset) == 2
    seen = set()
    for sample, label, (height, width) in zip(dataset, labels, SIZES):
        truth = mapped(label, layout.ids)
        found = sample['data_samples'].gt_sem_seg.data.numpy()
        assert found.shape == (1, height, width)
        np.testing.assert_array_equal(found[0], truth)
        assert sample['data_samples'].ori_shape == (height, width)
        short = min(height, width)
        rounded = [512 if side == short else round(side * 512 / short) for side in (height, width)]
        assert list(sample['inputs'].shape) == [3, *rounded]
        seen |= set(np.unique(truth).tolist())
    assert seen == {*range(len(cfg.class_names)), 255}, 'the miniature shows every class and void'


@every_base
def test_miou_counts_what_it_should(base, data):
    layout = LAYOUTS[base]
    write(data, layout, SIZES)
    cfg = read(base)
    dataset = guarded(cfg.test_dataloader.dataset)
    truth = [s['data_samples'].gt_sem_seg.data[0].numpy() for s in dataset]
    classes = len(cfg.class_names)
    # One row down; a void pixel never is a prediction.
    shifted = [np.where(t == 255, 0, t) for t in (np.roll(t, 1, axis=0) for t in truth)]
    evaluator = dict(cfg.test_evaluator)
    assert evaluator.pop('type') == 'mmseg.IoUMetric'
    for predictions, expected in (
        (truth, 100.0),
        (shifted, mean_iou(shifted, truth, classes)),
    ):
        metric = IoUMetric(**evaluator)
        metric.dataset_meta = dataset.metainfo
        for sample, prediction in zip(dataset, predictions):
            data_sample = sample['data_samples']
            data_sample.pred_sem_seg = PixelData(data=torch.from_numpy(prediction)[None])
            metric.process({}, [data_sample.to_dict()])
        assert metric.evaluate(2)['mIoU'] == pytest.approx(expected, abs=0.006)  # two digits
    assert expected < 90, 'the shift is seen'


@every_base
def test_names_are_those_of_the_dataset(base, data):
    cfg = read(base)
    assert cfg.class_names == BASES[base].METAINFO['classes']
    texts = cfg.get('class_texts', cfg.class_names)
    changed = {a: b for a, b in zip(cfg.class_names, texts) if a != b}
    assert len(texts) == len(cfg.class_names)
    assert changed == {
        'ade20k': {'bed ': 'bed'},
        'pascal-context': {'pottedplant': 'potted plant', 'tvmonitor': 'tv monitor'},
    }.get(base, {})


@every_base
def test_few_shot_sets_are_drawn_and_read(base, data, capsys):
    layout = LAYOUTS[base]
    labels = write(data, layout, SIZES)[layout.splits[0]]
    assert make_split([str(CONFIGS / f'_base_/datasets/{base}.py'), '--k', '1']) == 0
    cfg = read(base)
    dataset = DATASETS.build(cfg.train_dataloader.dataset)
    assert Path(cfg.manifest).is_relative_to(data / layout.root) and Path(cfg.manifest).is_file()
    # Few labels show all classes of ADE20K, so that both images are needed, in order of choice.
    for index in range(len(dataset)):
        sample = dataset[index]
        name = Path(dataset.get_data_info(index)['img_path'])
        place = [n for n, _ in enumerate(SIZES) if name == _image(data, layout, n)]
        truth = mapped(labels[place[0]], layout.ids)
        found = sample['data_samples'].gt_sem_seg.data
        assert found.shape[1:] == sample['inputs'].shape[1:] and min(found.shape[1:]) == 512
        assert set(found.unique().tolist()) == set(np.unique(truth).tolist())
    assert 'chosen' in capsys.readouterr().out


def _image(data: Path, layout, number: int) -> Path:
    return data / layout.root / layout.image.format(split=layout.splits[0], i=number)


@every_base
@pytest.mark.parametrize('missing', ['folder', 'images'])
def test_missing_data_is_said(base, data, missing):
    layout = LAYOUTS[base]
    if missing == 'images':
        write(data, layout, SIZES)
        for path in (data / layout.root).rglob('*.*g'):
            path.unlink()
        if layout.listing:
            (data / layout.root / layout.listing.format(split=layout.splits[1])).write_text('')
    wanted = 'data_root of the dataset' if missing == 'folder' else 'expected images whose names'
    with pytest.raises(UserError, match=wanted):
        guarded(read(base).test_dataloader.dataset)


@pytest.mark.parametrize(
    ('size', 'resized'),
    [
        ((1024, 2048), (512, 1024)),
        ((720, 1280), (512, 910)),
        ((5000, 4000), (640, 512)),
        ((600, 600), (512, 512)),
        ((30, 3000), (512, 51200)),
        ((4001, 33), (62076, 512)),
    ],
)
def test_the_short_side_is_512_at_any_aspect_ratio(size, resized):
    resize = read('short-side-512').test_pipeline[1]
    assert resize.pop('type') == 'mmseg.Resize'
    result = Resize(**resize)(dict(img=np.zeros(size, np.uint8), img_shape=size))
    assert result['img'].shape == result['img_shape'] == resized


def test_streets_count_the_things_of_cityscapes(data):
    for base in BASES:
        cfg = read(base)
        if len(cfg.class_names) == 19:
            names = [cfg.class_names[i] for i in cfg.thing_classes]
            assert names == list(CityscapesInstances.METAINFO['classes'])


def test_ade_counts_the_things_of_its_panoptic_set(data):
    """mmdet lists synonyms, and a few classes under another of their names."""
    other = {
        'windowpane': 'window',
        'bathtub': 'tub',
        'railing': 'rail',
        'streetlight': 'street lamp',
        'television receiver': 'tv',
        'apparel': 'clothes',
        'ashcan': 'trash can',
    }
    cfg = read('ade20k')
    things = [cfg.class_names[i].strip() for i in cfg.thing_classes]
    panoptic = [n.split(',')[0] for n in ADE20KPanopticDataset.METAINFO['thing_classes']]
    assert [other.get(name, name) for name in things] == panoptic and len(things) == 100


def test_pascal_context_counts_the_objects_of_voc(data):
    voc = mmseg.datasets.PascalVOCDataset.METAINFO['classes'][1:]
    cfg = read('pascal-context')
    things = {cfg.class_names[i] for i in cfg.thing_classes}
    assert things == {'table' if name == 'diningtable' else name for name in voc}


@pytest.mark.parametrize(('mapping', 'ids'), [('huang2021', HUANG), ('choi2021', CHOI)])
def test_mapillary_is_mapped_by_name_as_published(mapping, ids):
    vistas = mmseg.datasets.MapillaryDataset_v1.METAINFO['classes']
    streets = mmseg.datasets.CityscapesDataset.METAINFO['classes']
    assert len(vistas) == 66 and len(set(vistas)) == 66
    assert MAPPINGS[mapping] == {vistas[i]: streets[c] for i, c in ids.items()}


def test_mapillary_by_another_mapping(data):
    layout = LAYOUTS['mapillary']
    label = write(data, layout, SIZES)['validation'][0]
    cfg = read('mapillary').test_dataloader.dataset
    found = guarded({**cfg, 'mapping': 'choi2021'})[0]['data_samples'].gt_sem_seg.data[0]
    wanted = {i: CHOI.get(i, 255) for i in VISTAS_IDS}
    np.testing.assert_array_equal(found.numpy(), mapped(label, wanted))
    with pytest.raises(UserError, match=r"huang2021.*found 'other'"):
        guarded({**cfg, 'mapping': 'other'})


def test_mapillary_restricted_to_two_classes(data):
    layout = LAYOUTS['mapillary']
    label = write(data, layout, SIZES)['validation'][1]
    cfg = read('mapillary').test_dataloader.dataset
    dataset = guarded({**cfg, 'metainfo': dict(classes=('car', 'road'))})
    wanted = {i: {0: 1, 13: 0}.get(c, 255) for i, c in VISTAS_IDS.items()}
    found = dataset[1]['data_samples'].gt_sem_seg.data[0].numpy()
    np.testing.assert_array_equal(found, mapped(label, wanted))
    assert dataset.metainfo['palette'] == [[0, 0, 142], [128, 64, 128]]


def test_mapillary_refuses_labels_of_the_second_version(data):
    root = data / 'mapillary/validation'
    write(data, LAYOUTS['mapillary'], SIZES)
    (root / 'v1.2').rename(root / 'v2.0')
    cfg = read('mapillary').test_dataloader.dataset
    cfg.data_prefix.seg_map_path = 'validation/v2.0/labels'
    with pytest.raises(UserError, match=r'v2\.0/labels: expected the labels of .* v1\.2'):
        guarded(cfg)
    (root / 'v2.0').rename(root / 'v1.2')
    label = next((root / 'v1.2/labels').iterdir())
    Image.fromarray(np.full(SIZES[0], 108, np.uint8)).save(label)
    cfg.data_prefix.seg_map_path = 'validation/v1.2/labels'
    with pytest.raises(UserError, match=r'found 108 \(5632 pixels\)'):
        list(guarded(cfg))


@pytest.mark.parametrize('loader', ['train_dataloader', 'test_dataloader'])
def test_an_image_turned_by_its_exif_tag_is_noticed(data, loader):
    """cv2 turns the image, nothing turns its label: they would be compared crosswise."""
    layout = LAYOUTS['ade20k']
    write(data, layout, SIZES)
    cfg = read('ade20k')[loader].dataset
    cfg = cfg.get('dataset', cfg)
    split = layout.splits[0 if loader == 'train_dataloader' else 1]
    path = data / layout.root / layout.image.format(split=split, i=0)
    with Image.open(path) as image:
        tag = image.getexif()
        tag[274] = 6
        image.save(path, exif=tag)
    with pytest.raises(UserError, match='found EXIF orientation 6.*color_ignore_orientation'):
        guarded(cfg)[0]
    cfg.pipeline[0].color_type = 'color_ignore_orientation'
    sample = guarded(cfg)[0]['data_samples']
    assert sample.ori_shape == SIZES[0]
    assert sample.gt_sem_seg.shape in (SIZES[0], sample.img_shape)


def expand(text: str) -> list[str]:
    """'a/{b,c}' -> ['a/b', 'a/c'], as a shell does."""
    head, brace, rest = text.partition('{')
    if not brace:
        return [text]
    words, _, tail = rest.partition('}')
    return [f'{head}{word}{end}' for word in words.split(',') for end in expand(tail)]


@every_base
def test_the_page_shows_the_folders_that_the_config_reads(base, data):
    page = (CONFIGS.parent / 'docs/datasets.md').read_text()
    tree = page.split(f'\ndata/{LAYOUTS[base].root}/\n')[1].split('\n```')[0]
    shown = [path for line in tree.splitlines() for path in expand(line.split()[0])]
    cfg = read(base)
    for dataset in (cfg.train_dataloader.dataset.dataset, cfg.test_dataloader.dataset):
        for folder in dataset.data_prefix.values():
            assert any(path.startswith(f'{folder}/') for path in shown)


def test_base_files_name_their_command(data):
    for base in BASES:
        text = (CONFIGS / f'_base_/datasets/{base}.py').read_text()
        assert '#   python tools/make_few_shot_split.py configs/' in text.split('_base_ =')[0]


def test_nothing_is_left_to_the_default_scope(data):
    """The types name their package, so that the files serve in a user's own config too."""
    write(data, LAYOUTS['bdd100k'], SIZES)
    with DefaultScope.overwrite_default_scope('mmseg'):
        assert len(guarded(read('bdd100k').test_dataloader.dataset)) == 2

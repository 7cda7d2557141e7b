"""Lists of classes in configs: names in several words, and what is counted one by one."""

from collections import Counter
from pathlib import Path

import pytest
from mmengine.config import Config

from mmprompt.datasets.cod10k import COD10K_CLASSES
from mmprompt.foundation.seem.name_files import read_name_file

CONFIGS = Path(__file__).resolve().parent.parent / 'configs'
NAMES = CONFIGS / '_base_/class_names'
#: Classes of ADE20K that its panoptic annotations do not count one by one, by label.
ADE20K_STUFF = {
    *(0, 1, 2, 3, 4, 5, 6, 9, 11, 13, 16, 17, 21, 25, 26, 28, 29, 34, 40, 46, 48, 51, 52, 54, 59),
    *(60, 61, 63, 68, 77, 79, 84, 91, 94, 96, 99, 100, 101, 105, 106, 109, 113, 114, 117, 122, 128),
    *(131, 140, 141, 145),
}
#: Data set of a file of names, and how many classes and things it has.
LISTS = {
    'ade20k': ('samcp_ade20k', 150, 100),
    'cityscapes': ('samcp_cityscapes', 19, 8),
    'coco-panoptic': ('samcp_coco-panoptic', 133, 80),
    'cod10k': ('samcp_cod10k', 69, 69),
}


def read(name: str) -> Config:
    return Config.fromfile(str(CONFIGS / f'{name}.py'))


def test_every_list_is_checked_here():
    assert {path.stem for path in NAMES.iterdir()} == set(LISTS)


@pytest.mark.parametrize('name', LISTS)
def test_the_first_name_is_the_class_and_no_name_means_two_classes(name):
    base, classes, things = LISTS[name]
    cfg, names = read(f'_base_/datasets/{base}'), read_name_file(NAMES / f'{name}.txt')
    assert tuple(group[0] for group in names) == tuple(cfg.get('class_texts', cfg.class_names))
    assert (len(names), len(cfg.thing_classes)) == (classes, things)
    assert Counter(word for group in names for word in group).most_common(1)[0][1] == 1


def test_the_things_of_ade20k_are_those_of_its_annotations():
    things = set(read('_base_/datasets/samcp_ade20k').thing_classes)
    assert things == set(range(150)) - ADE20K_STUFF and len(ADE20K_STUFF) == 50


def test_the_sub_classes_of_cod10k_are_those_of_its_data_set():
    assert read('_base_/datasets/samcp_cod10k').class_names == COD10K_CLASSES


@pytest.mark.parametrize(
    ('leaf', 'names'),
    [
        ('coco-to-ade20k', 'ade20k'),
        ('ade20k-to-coco', 'coco-panoptic'),
        ('coco-to-cityscapes', 'cityscapes'),
        ('cod10k', 'cod10k'),
    ],
)
def test_a_test_on_other_data_reads_all_names_of_its_classes(leaf, names):
    cfg = read(f'samcp/samcp_clip-convnext-l_{leaf}')
    base = read(f'_base_/datasets/{LISTS[names][0]}')
    assert Path(cfg.model.head.text.names).samefile(NAMES / f'{names}.txt')
    assert cfg.test_dataloader == base.test_dataloader
    assert cfg.test_evaluator == base.test_evaluator
    assert cfg.model.classes == base.class_names
    assert tuple(cfg.model.head.thing_classes) == tuple(base.thing_classes)
    assert not any(cfg.get(key) for key in ('train_dataloader', 'val_dataloader', 'train_cfg'))

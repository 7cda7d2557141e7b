"""docs/ambiguities.md against the code: every key exists and every default is the real one."""

import ast
import copy
import functools
import importlib
import inspect
import re
from pathlib import Path

import pytest
from mmengine.config import Config

from mmprompt.apis.patches.generate import parse as parse_options
from mmprompt.foundation.seem.decoder import MAX_POINTS
from mmprompt.methods.ssprompt.methods import choose

ROOT = Path(__file__).resolve().parent.parent
ROW = re.compile(
    r'^\| `(?P<key>[^`]+)` \| `(?P<default>[^`]+)` \| (?P<why>.+) \| `(?P<where>[^`]+)` \|$'
)


def rows() -> list[dict]:
    lines = (ROOT / 'docs' / 'ambiguities.md').read_text().splitlines()
    table = [line for line in lines if line.startswith('|')]
    found = [ROW.match(line) for line in table]
    heads = [line for line, match in zip(table, found) if match is None]
    assert all(line.startswith(('| key |', '|---')) for line in heads), heads
    return [match.groupdict() for match in found if match is not None]


def literal(text: str):
    """A Python value as written in a table; `dict(key=value)` too."""
    node = ast.parse(text, mode='eval').body
    if isinstance(node, ast.Call):
        return {part.arg: ast.literal_eval(part.value) for part in node.keywords}
    return ast.literal_eval(node)


def value_at(tree, path: str):
    for part in path.split('.'):
        tree = tree[int(part) if part.isdecimal() and not isinstance(tree, dict) else part]
    return tree


@functools.cache
def read(path: Path) -> Config:
    """A config as it is built: with the prompts that its method chooses."""
    cfg = Config.fromfile(str(path))
    model = cfg.get('model') or {}
    if model.get('method'):
        for key, value in choose(model.method, model.to_dict()).items():
            model[key] = value  # ConfigDict.update would mix two prompts
    return cfg


def argument_of(key: str) -> str:
    """`a.b.c` -> `c`; of tools/generate_patches.py `--name` -> `name`, `--options name` too."""
    return key.removeprefix('--').split()[-1].split('.')[-1]


def component(where: str):
    module, _, name = where.rpartition('.')
    return getattr(importlib.import_module(module), name)


def configs_with(name: str, key: str):
    """(leaf, config) of every config in which a component of that class stands above `key`."""
    owner = key.rpartition('.')[0]
    for path in sorted((ROOT / 'configs').glob('[!_]*/*.py')):
        try:
            part = value_at(read(path), owner)
        except (LookupError, TypeError, AttributeError):
            continue
        if isinstance(part, dict) and str(part.get('type')).split('.')[-1] == name:
            yield path, part


@pytest.mark.parametrize('row', rows(), ids=lambda row: f'{row["key"]}={row["default"]}')
def test_key_and_default(row):
    default, argument = ast.literal_eval(row['default']), argument_of(row['key'])
    if row['where'].endswith('.py'):
        assert value_at(read(ROOT / row['where']), row['key']) == default
        return
    owner = component(row['where'])
    assert inspect.signature(owner).parameters[argument].default == default
    assert argument in inspect.getdoc(owner)
    if row['key'].startswith('--'):
        _, *name = row['key'].split()
        typed = f'{argument}={default}' if name else str(default)
        given = vars(parse_options(['CONFIG', row['key'].split()[0], typed]))
        assert (given['options'] if name else given)[argument] == default
        return
    used = list(configs_with(owner.__name__, row['key']))
    assert used, f'no config has a {owner.__name__} above {row["key"]}'
    for path, part in used:
        subject = [v for word, v in SUBJECTS.get(argument, {}).items() if word in path.stem]
        assert part.get(argument, default) == (subject or [default])[0], path


DATASETS = ROOT / 'configs' / '_base_' / 'datasets'
#: Argument -> part of the names of leaves whose very subject it is -> its value in those.
SUBJECTS = dict(
    weight={'embedding-only': 'fixed'},
    source={'grid': 'grid', 'mobile-sam': 'points'},
    num_tokens={'coop-m4': 4},
    init={'coop-m4': 'a photo of a'},
    class_specific={'coop-csc': True},
    num_prompts={'16shot_full': 0},  # nothing stands in for a query
    templates={'zero-shot_bare': ('{}',)},
    allow_missing={'camvid-dusk': True},
    grid={'nano': 'native'},
    matcher={'nano': dict(grid=(32, 64))},
    norm_cfg={word: dict(type='SyncBN') for word in ('r101', 'ade20k')},  # for several GPUs
    **dict.fromkeys(('cls', 'cls_weight'), {'ade20k_160k': 4.0}),
    num_queries={'samcp_nano': 100, 'coco128': 100},  # few instances in small pictures
    max_patches={'coco128': 100},
    instance_top_k={'part_general': 300},  # parts and wholes at once
    texts={d: read(DATASETS / f'{d}.py').class_texts for d in ('ade20k', 'pascal-context')},
)
#: Key -> value that gives the reading of SAM-CP's research code, as the rows say it.
RELEASED = {
    row['key']: literal(found[1])
    for row in rows()
    if (found := re.search(r'\(code: `(.+?)`\)', row['why']))
}
SUBJECTS |= {argument_of(key): {'released': value} for key, value in RELEASED.items()}
SUBJECTS['cls_normaliser'] |= dict.fromkeys(('samcp_nano', 'coco128'), 'positives')
#: Arguments that leave open nothing: sizes, places, names, and parts with rows of their own.
PLAIN = dict(
    SpaPrompt={'dim', 'init_cfg'},
    SemPrompt={'dim', 'init_cfg'},
    DefaultPrompt={'dim', 'init_cfg'},
    CoOp={'init_cfg'},
    LOCN={'init_cfg'},
    VSPL={'dim', 'init_cfg'},
    SSPromptSemanticLoss={'loss_name'},
    SSPromptMaskLoss=set(),
    SEEMPromptHead={
        *('init_cfg', 'text_bank', 'loss_decode', 'mask_loss', 'task', 'thing_classes'),
        *('tune', 'text_encoder'),
    },
    SSPromptSegmentor={
        *('base_address', 'method', 'feature_cache', 'expected_parameters'),
        *('data_preprocessor', 'train_cfg', 'test_cfg', 'init_cfg'),
    },
    SAMPointDecoder={'area', 'chunk', 'init_cfg'},
    SAMPromptHead={'pixel_decoder'},
    SSPromptSAM={'method'},
    FewShotDataset={'manifest', 'k'},
    SPM={'init_cfg'},
    # What is trained and where, with rows of the configs that choose.
    SPMBackbone={
        *('class_prior', 'prompter', 'tuning', 'adapter', 'in_channels', 'probe_size'),
        *('pretrained', 'init_cfg'),
    },
    SPMSegmentor={'classes', 'expected_parameters', 'paper_parameters'},
    SAMCPHead={
        *('text', 'text_dim', 'in_channels', 'dim', 'patch_encoder', 'decoder', 'classifier'),
        *('denoising', 'loss'),
    },
    SAMCPPatchEncoder={
        *('in_channels', 'dim', 'hidden', 'num_layers', 'num_heads', 'ffn_dim', 'strides'),
        'mask_roi',  # published
    },
    SAMCPAffinityDecoder={
        *('dim', 'num_layers', 'num_heads', 'ffn_dim', 'in_channels', 'num_levels'),
        'affinity_refinement',  # published
    },
    SAMCPClassifier=set(),
    SAMCPDenoising=set(),
    SAMCPPartAssigner=set(),
    SAMCPLoss={'part_assigner', 'assigner', 'mfl_weight', 'dice_weight'},
    SAMCPHungarianAssigner={'mfl', 'dice', 'bbox', 'giou', 'extra'},
    SAMCPPredictor={'semantic', 'instances', 'panoptic'},
    OpenVocabularyScores=set(),
    LoadPatches={'check_image'},  # a check of the data
)
ROOMS = (
    dict(FewShotDataset='datasets.few_shot', LoadPatches='datasets.patches')
    | dict.fromkeys(('SPM', 'SPMBackbone', 'SPMSegmentor'), 'methods.spm')
    | {name: 'methods.samcp' for name in PLAIN if name.startswith('SAMCP')}
    | dict(SAMCPHungarianAssigner='methods.samcp.matching_costs')
    | dict(OpenVocabularyScores='methods.samcp')
)


def test_there_are_rows_and_no_row_twice():
    found = [(row['key'], row['where']) for row in rows()]
    assert len(found) > 20 and len(set(found)) == len(found)


def test_the_released_leaf_has_all_readings_of_the_code_and_differs_in_nothing_else():
    leaf = ROOT / 'configs/samcp/samcp_r50_coco-panoptic_12e.py'
    theirs = read(leaf.with_name(f'{leaf.stem}_released.py')).to_dict()
    ours = copy.deepcopy(read(leaf).to_dict())
    assert len(RELEASED) > 10
    for key, value in RELEASED.items():
        owner, name = value_at(ours, key.rpartition('.')[0]), argument_of(key)
        assert owner[name] != value
        owner[name] = value
    assert ours == theirs


@pytest.mark.parametrize('name', PLAIN)
def test_every_open_choice_of_the_components_is_listed(name):
    """An argument with a default that changes what is learned may not go unexplained."""
    listed = {row['key'].split('.')[-1] for row in rows() if row['where'].endswith(f'.{name}')}
    room = ROOMS.get(name, 'methods.ssprompt')
    parameters = inspect.signature(component(f'mmprompt.{room}.{name}')).parameters.values()
    optional = {p.name for p in parameters if p.default is not p.empty}
    assert optional - PLAIN[name] == listed


def test_the_limit_of_stroke_points_is_the_one_told():
    text = (ROOT / 'docs' / 'ambiguities.md').read_text()
    assert f'{MAX_POINTS} evenly spread ones' in text

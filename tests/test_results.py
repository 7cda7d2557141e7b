"""Every config of SSPrompt that fits this machine was run to its end, and its row is kept.

The rows of SAM-CP are those of its CSV file.
"""

import re
from pathlib import Path

import pytest
from mmengine.config import Config

from mmprompt.apis.csv_rows import read_csv
from mmprompt.apis.markdown import grid
from mmprompt.apis.reproduce.ssprompt_cells import VARIANTS, Cell
from mmprompt.apis.reproduce.ssprompt_rows import cell_of, read_rows
from mmprompt.apis.reproduce.ssprompt_suites import INSTANCE, PANOPTIC, SEMANTIC, SUITES
from mmprompt.apis.task_table import TASK_COLUMNS, number

ROOT = Path(__file__).resolve().parent.parent
BASES = ('nano', 'r50', 'mobile-sam')
LEAVES = sorted(leaf for base in BASES for leaf in (ROOT / 'configs/ssprompt').glob(f'{base}_*.py'))
#: base, data, task, shots, and what sets a leaf apart from the plain one.
NAME = re.compile(
    r'([\w-]+?)_(\w+-[a-z]+)(?:-(instance|panoptic))?_(?:(\d+)shot|zero-shot)(?:_(.+))?'
)
#: Rows of leaves that are called otherwise.
METHODS = {'': 'ssprompt'} | {
    name.removeprefix('ssprompt-').replace('-', '_'): name for name in VARIANTS
}


def cell_of_leaf(leaf: Path) -> Cell:
    """The cell that stands for a leaf; its recipe is read from the leaf itself."""
    base, data, task, shots, kind = NAME.fullmatch(leaf.stem).groups(default='')
    if not shots:
        method = f'zero-shot-{kind}' if kind else 'zero-shot'
        frozen = PANOPTIC if task == INSTANCE else task or SEMANTIC  # one run measures both
        return Cell(base, data, method, frozen, 0, 0, '-')
    cfg = Config.fromfile(str(leaf), format_python_code=False)
    optimizer, batch = cfg.optim_wrapper.optimizer, cfg.train_dataloader.batch_size
    recipe = f'{optimizer.type} {optimizer.lr:g}, {cfg.train_cfg.max_iters} steps of {batch}'
    method = METHODS.get(kind, kind.replace('_', '-'))
    return Cell(base, data, method, task or SEMANTIC, int(shots), cfg.randomness.seed, recipe)


@pytest.fixture(scope='module')
def rows():
    folders = [ROOT / 'docs/results' / f'{base}_{data}' for base, data in SUITES]
    return {cell_of(row): row for folder in folders for row in read_rows(folder / 'cells.csv')}


@pytest.mark.parametrize('leaf', LEAVES, ids=lambda leaf: leaf.stem)
def test_a_leaf_was_run_to_its_end(leaf, rows):
    row = rows[cell_of_leaf(leaf)]
    measured = {'instance': 'AP50', 'panoptic': 'PQ'}.get(row['task'], 'mIoU')
    assert 0 < float(row[measured]) < 100 and float(row['seconds']) > 0


@pytest.mark.parametrize('data', ['streets', 'coco128'])
def test_tables_of_samcp_are_those_of_their_file(data):
    heads = ('split', 'row', *TASK_COLUMNS)
    rows = [row for row in read_csv(ROOT / 'docs/results/samcp.csv', heads, others=True)]
    lines = [
        (
            row['split'],
            row['row'],
            *(number(float(row[c]) if row[c] else None) for c in TASK_COLUMNS),
        )
        for row in rows
        if row['data'] == data
    ]
    block = f'<!-- begin table samcp {data} -->\n\n{grid(heads, lines)}\n\n<!-- end'
    assert lines and block in (ROOT / 'docs/results.md').read_text()

"""One line per run with what the paper's tables report of all three tasks."""

import math
from collections.abc import Mapping, Sequence

#: Column -> the metric's name: of `PanopticQuality`, `InstanceAP` and MMSegmentation's IoUMetric.
TASK_COLUMNS = {
    'PQ': 'PQ',
    'PQ-th': 'PQ_th',
    'PQ-st': 'PQ_st',
    'SQ': 'SQ',
    'RQ': 'RQ',
    'AP-det': 'AP_det',
    'AP': 'AP',
    'AP50': 'AP50',
    'mIoU': 'mIoU',
}


def number(value: float | None) -> str:
    """One digit behind the point; '-' for what was not measured or is undefined."""
    return '-' if value is None or math.isnan(float(value)) else f'{float(value):.1f}'


def aligned_table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table for the terminal too: the first column to the left, numbers to the right."""
    lines = [heads, *rows]
    widths = [max(3, *map(len, column)) for column in zip(*lines, strict=True)]
    text = [
        '| ' + ' | '.join([line[0].ljust(widths[0]), *map(str.rjust, line[1:], widths[1:])]) + ' |'
        for line in lines
    ]
    rule = '|' + '|'.join(['-' * (widths[0] + 2), *('-' * (w + 1) + ':' for w in widths[1:])]) + '|'
    return '\n'.join([text[0], rule, *text[1:]])


def task_table(runs: Mapping[str, Mapping[str, float]]) -> str:
    """One line per run.

    Args:
        runs: metrics by the name of the run; a metric's name may have a prefix, as `panoptic/PQ`.
    """
    rows = []
    for name, metrics in runs.items():
        values = {str(key).rpartition('/')[2]: value for key, value in metrics.items()}
        rows.append([name, *(number(values.get(key)) for key in TASK_COLUMNS.values())])
    return aligned_table(['run', *TASK_COLUMNS], rows)


def has_tasks(metrics: Mapping[str, float]) -> bool:
    """Whether a run measured more than one of the three tasks, so that a table says more."""
    names = {str(name).rpartition('/')[2] for name in metrics}
    return sum(name in names for name in ('PQ', 'AP', 'mIoU')) > 1

"""Tables of metrics: mean and deviation over seeds, the best and second-best marked, a paper's values below ours.

Each can be sorted by any column; without a script it stands in the order in which it was made.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from html import escape
from itertools import groupby
from typing import TYPE_CHECKING, Any

from ..catalog import Metric
from .markup import hidden, scroll

if TYPE_CHECKING:
    from ..intervals.findings import MeasuredRow

# metric -> value, once per seed of a row
Measured = Mapping[str, Sequence[Mapping[str, float]]]

MISSING = "—"
_MARKS = {0: "{}", 1: f"<strong>{{}}</strong>{hidden(' best')}", 2: f"<u>{{}}</u>{hidden(' second-best')}"}


def mean_and_deviation(values: Sequence[float]) -> tuple[float, float | None]:
    """Mean (NaN of nothing) and sample standard deviation, None of a single value or where it is undefined."""
    mean = sum(values) / len(values) if values else math.nan
    spread = statistics.stdev(values) if len(values) > 1 and math.isfinite(mean) else None
    return mean, spread


def places(means: Sequence[float], metric: Metric) -> list[int]:
    """1 for the best, 2 for the second-best, 0 for all others; of values that print alike, all share a place."""
    printed = [round(metric.factor * mean, metric.digits) if math.isfinite(mean) else None for mean in means]
    ranked = sorted({value for value in printed if value is not None}, reverse=metric.better == "higher")
    if metric.better is None or len(ranked) < 2:
        return [0] * len(means)
    return [1 + ranked.index(value) if value in ranked[:2] else 0 for value in printed]


def metric_table(
    columns: Sequence[Metric],
    rows: Measured,
    label: str,
    paper: Mapping[str, Mapping[str, float]] | None = None,
    corner: str = "predictor",
    measured: Mapping[str, MeasuredRow] | None = None,
) -> str:
    """A table with a row for each predictor, followed by those that only the paper has.

    Args:
        columns: what to print.
        rows: measurements by row, one per seed.
        label: the name of the table, for screen readers.
        paper: row -> metric -> the value that a paper prints, shown below ours.
        corner: what the rows are, for screen readers.
        measured: rows on resampled images: these have intervals, and decide what is best; else the values alone do.
    """
    paper, measured = paper or {}, measured or {}
    names = [*rows, *(name for name in paper if name not in rows)]
    printed = []
    for column in columns:
        ours = [[m[column.key] for m in rows.get(name, ()) if column.key in m] for name in names]
        theirs = [paper.get(name, {}).get(column.key) for name in names]
        if measured:
            from ..intervals import findings  # which needs torch

            known = findings.places(column, measured)
            marks = [known.get(name, 0) for name in names]
        else:
            marks = places([mean_and_deviation(values)[0] for values in ours], column)
        ends = [_interval(column, measured.get(name)) for name in names]
        printed.append([_cell(column, *cell) for cell in zip(ours, marks, theirs, ends, strict=True)])
    heads = [escape(name) + _repetitions(rows.get(name, ())) for name in names]
    cells = ["".join(row) for row in zip(*printed, strict=True)]
    return _table(_head(columns, corner), list(zip(heads, cells, strict=True)), label)


def class_table(metric: Metric, rows: Measured, paper: Mapping[str, Mapping[str, float]], label: str) -> str:
    """A table of one metric with a row for each class and a column for each predictor; the best of a class is marked.

    Args:
        metric: what to print.
        rows: for each predictor class -> value, one per seed.
        paper: for each predictor class -> the value that a paper prints.
        label: the name of the table, for screen readers.
    """
    classes = list(dict.fromkeys(name for seeds in rows.values() for values in seeds for name in values))
    printed = []
    for name in classes:
        ours = [[values[name] for values in seeds if name in values] for seeds in rows.values()]
        marks = places([mean_and_deviation(values)[0] for values in ours], metric)
        theirs = [paper.get(row, {}).get(name) for row in rows]
        cells = "".join(_cell(metric, *cell) for cell in zip(ours, marks, theirs, strict=True))
        printed.append((escape(name), cells))
    heads = "".join(f'<th scope="col">{_button(escape(row), metric)}</th>' for row in rows)
    return _table(f"<tr>{_corner('class')}{heads}</tr>\n", printed, label)


def _table(head: str, rows: Sequence[tuple[str, str]], label: str) -> str:
    body = "".join(f'<tr><th scope="row">{name}</th>{cells}</tr>\n' for name, cells in rows)
    return scroll(f'<table class="sortable">\n<thead>\n{head}</thead>\n<tbody>\n{body}</tbody>\n</table>\n', label)


def _head(columns: Sequence[Metric], corner: str) -> str:
    groups = ""
    if any(column.group for column in columns):
        spans = [(name, len(list(members))) for name, members in groupby(columns, lambda column: column.group)]
        cells = "".join(f'<th scope="colgroup" colspan="{span}">{escape(name)}</th>' for name, span in spans)
        groups = f"<tr><td></td>{cells}</tr>\n"
    return f"{groups}<tr>{_corner(corner)}{''.join(_column_head(column) for column in columns)}</tr>\n"


def _corner(name: str) -> str:
    return f'<th scope="col"><button type="button">{escape(name)}</button></th>'


def _column_head(column: Metric) -> str:
    arrow = ""
    if column.better is not None:
        arrow = f"\N{NO-BREAK SPACE}{sign(column)}{hidden(f', {column.better} is better')}"
    unit = f'<span class="small">{escape(column.unit)}</span>' if column.unit else ""
    return f'<th scope="col">{_button(escape(column.label) + arrow, column)}{unit}</th>'


def sign(metric: Metric) -> str:
    """The arrow of its direction, for eyes alone."""
    return f'<span aria-hidden="true">{"↑" if metric.better == "higher" else "↓"}</span>' if metric.better else ""


def _button(content: str, metric: Metric) -> str:
    """Sorts by this column, the best first."""
    title = f' title="{escape(metric.definition)}"' if metric.definition else ""
    best = ' data-first="descending"' if metric.better == "higher" else ""
    return f'<button type="button"{title}{best}>{content}</button>'


def _interval(metric: Metric, measured: MeasuredRow | None) -> str:
    """[0.052, 0.066], "" where it is unknown."""
    if measured is None or metric.key not in measured.metrics.values:
        return ""
    found = measured.metrics.interval(metric.key)
    return "" if math.isnan(found.low) else f"[{', '.join(metric.text(end) for end in found)}]"


def _cell(metric: Metric, ours: Sequence[float], place: int, theirs: float | None, ends: str = "") -> str:
    mean, deviation = mean_and_deviation(ours)
    content, value = MISSING, ""
    if ours:
        content = _MARKS[place].format(metric.text(mean))
        value = "" if math.isnan(mean) else f' data-value="{_number(mean)}"'
        if deviation is not None and metric.digits:
            content += f'<span class="small">± {metric.text(deviation)}</span>'
        content += f'<span class="small">{ends}</span>' if ends else ""
    if theirs is not None:
        content += f'<span class="small paper">paper {metric.text(theirs)}</span>'
    return f"<td{value}>{content}</td>"


def _number(value: float) -> str:
    """As a script reads it."""
    return repr(value).replace("inf", "Infinity")


def _repetitions(seeds: Sequence[Any]) -> str:
    return f'<span class="small">n = {len(seeds)}</span>' if len(seeds) > 1 else ""

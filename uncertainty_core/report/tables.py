"""Tables of metrics: mean and deviation over seeds, what is known to be best marked, a paper's values below ours.

Each can be sorted by any column; without a script it stands in the order in which it was made.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from html import escape
from itertools import groupby
from typing import TYPE_CHECKING

from ..catalog import Metric
from ..roles import meaning
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


def metric_table(
    columns: Sequence[Metric],
    rows: Measured,
    label: str,
    paper: Mapping[str, Mapping[str, float]] | None = None,
    measured: Mapping[str, MeasuredRow] | None = None,
) -> str:
    """A table with a row for each predictor, followed by those that only the paper has; one pass and several apart.

    Args:
        columns: what to print.
        rows: measurements by row, one per seed.
        label: the name of the table, for screen readers.
        paper: row -> metric -> the value that a paper prints, shown below ours.
        measured: rows on resampled images: these have intervals, and decide what is best.
    """
    paper, measured = paper or {}, measured or {}
    names = [*rows, *(name for name in paper if name not in rows)]
    marks: dict[str, Mapping[str, int]] = {}
    if measured:
        from ..intervals.findings import places  # which needs torch

        marks = {column.key: places(column, measured) for column in columns}
    bodies: dict[bool, list[tuple[str, str]]] = {}
    for name in names:
        seeds = rows.get(name, ())
        cells = [
            _cell(
                column,
                [measurement[column.key] for measurement in seeds if column.key in measurement],
                marks.get(column.key, {}).get(name, 0),
                paper.get(name, {}).get(column.key),
                _interval(column, measured.get(name)),
            )
            for column in columns
        ]
        passes = seeds[0].get("passes", 1) if seeds else 1
        bodies.setdefault(passes > 1, []).append((_row_head(name, seeds), "".join(cells)))
    return _table(_head(columns), list(bodies.values()), label)


def class_table(
    metric: Metric, classes: Sequence[str], rows: Measured, paper: Mapping[str, Mapping[str, float]], label: str
) -> str:
    """A table of one metric with a row for each class and a column for each predictor.

    Args:
        metric: what to print.
        classes: those to print.
        rows: for each predictor class -> value, one per seed.
        paper: for each predictor class -> the value that a paper prints.
        label: the name of the table, for screen readers.
    """
    printed = []
    for name in classes:
        ours = [[values[name] for values in seeds if name in values] for seeds in rows.values()]
        theirs = [paper.get(row, {}).get(name) for row in rows]
        cells = "".join(_cell(metric, values, 0, other) for values, other in zip(ours, theirs, strict=True))
        printed.append((escape(name), cells))
    heads = "".join(f'<th scope="col">{_button(escape(row), metric)}</th>' for row in rows)
    return _table(f"<tr>{_corner('class')}{heads}</tr>\n", [printed], label)


def _table(head: str, bodies: Sequence[Sequence[tuple[str, str]]], label: str) -> str:
    """Of rows (head, cells), in one or several bodies that are sorted apart."""
    body = "".join(
        "<tbody>\n" + "".join(f'<tr><th scope="row">{name}</th>{cells}</tr>\n' for name, cells in rows) + "</tbody>\n"
        for rows in bodies
    )
    return scroll(f'<table class="sortable">\n<thead>\n{head}</thead>\n{body}</table>\n', label)


def _row_head(name: str, seeds: Sequence[Mapping[str, float]]) -> str:
    """A predictor, what it is if its passes are known, and how many seeds it has."""
    said = [meaning(name, int(seeds[0]["passes"]))] if seeds and "passes" in seeds[0] else []
    said += [f"{len(seeds)} seeds"] * (len(seeds) > 1)
    return escape(name) + (f'<span class="small">{escape(", ".join(said))}</span>' if said else "")


def _head(columns: Sequence[Metric]) -> str:
    groups = ""
    if any(column.group for column in columns):
        spans = [(name, len(list(members))) for name, members in groupby(columns, lambda column: column.group)]
        cells = "".join(f'<th scope="colgroup" colspan="{span}">{escape(name)}</th>' for name, span in spans)
        groups = f"<tr><td></td>{cells}</tr>\n"
    return f"{groups}<tr>{_corner('predictor')}{''.join(_column_head(column) for column in columns)}</tr>\n"


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

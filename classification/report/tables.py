"""Tables of metrics: mean and deviation over seeds, the best and second-best marked, a paper's values beside ours."""

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from itertools import groupby
from typing import Any, Literal

from .markup import hidden, scroll

HUNDREDTHS = "\N{MULTIPLICATION SIGN} 100"  # as DDN's table I prints MSCE and MCE

# metric -> value, once per seed of a row
Measured = Mapping[str, Sequence[Mapping[str, float]]]


@dataclass(frozen=True)
class Column:
    """A metric as a table prints it; values are plain everywhere else."""

    key: str
    label: str
    better: Literal["higher", "lower"] | None = None  # None for a metric that is neither good nor bad
    unit: str = ""  # percent or hundredths: both multiply by a hundred
    digits: int = 4
    group: str = ""  # a heading over several columns

    def text(self, value: float) -> str:
        """The value in the unit of this column."""
        if not math.isfinite(value):
            return "undefined" if math.isnan(value) else "∞"
        return f"{100 * value if self.unit else value:.{self.digits}f}"


COLUMNS = (
    Column("passes", "Passes", digits=0),
    Column("train_accuracy", "Training acc.", unit="%", digits=2),
    Column("val_accuracy", "Validation acc.", "higher", "%", 2),
    Column("accuracy", "Test acc.", "higher", "%", 2),
    Column("risk", "Risk", "lower", "%", 2),
    Column("ece", "ECE", "lower"),
    Column("msce", "MSCE", "lower", HUNDREDTHS),
    Column("mce", "MCE", "lower", HUNDREDTHS),
    Column("nll_true", "NLL true", "lower"),
    Column("nll_pred", "NLL pred."),
    Column("entropy", "Entropy"),
    Column("brier", "Brier", "lower"),
    Column("aurc", "AURC", "lower"),
    Column("mupe", "MUPE", "lower"),
)

OUTLIER_METRICS = (
    ("auroc", "AUROC", "higher"),
    ("aupr", "AUPR", "higher"),
    ("fpr95", "FPR95", "lower"),
)


def measurements(record: Mapping[str, Any]) -> dict[str, float]:
    """All metrics of a record of `evaluate` by name."""
    values = {"passes": record["passes"], **record["calibration"]["metrics"], **record["metrics"]}
    if record["row"] == "baseline":
        del values["mupe"]  # its distance from itself
    return {name: float(value) for name, value in values.items()}


def outlier_measurements(record: Mapping[str, Any]) -> dict[str, float]:
    """Metrics of a record by "<data set> <metric>"."""
    return {f"{name} {key}": float(value) for name, found in record["ood"].items() for key, value in found.items()}


def outlier_columns(names: Sequence[str]) -> list[Column]:
    """The columns of a table of out-of-distribution data sets."""
    return [
        Column(f"{name} {key}", label, better, "%", 2, group=name)
        for name in names
        for key, label, better in OUTLIER_METRICS
    ]


def mean_and_deviation(values: Sequence[float]) -> tuple[float, float | None]:
    """Mean (NaN of nothing) and sample standard deviation, None of a single value or where it is undefined."""
    mean = sum(values) / len(values) if values else math.nan
    spread = statistics.stdev(values) if len(values) > 1 and math.isfinite(mean) else None
    return mean, spread


def places(means: Sequence[float], column: Column) -> list[int]:
    """1 for the best, 2 for the second-best, 0 for all others; of values that print alike, all share a place."""
    printed = [float(column.text(mean)) if math.isfinite(mean) else None for mean in means]
    ranked = sorted({value for value in printed if value is not None}, reverse=column.better == "higher")
    if column.better is None or len(ranked) < 2:
        return [0] * len(means)
    return [1 + ranked.index(value) if value in ranked[:2] else 0 for value in printed]


def metric_table(
    columns: Sequence[Column], rows: Measured, label: str, paper: Mapping[str, Mapping[str, float]] | None = None
) -> str:
    """A table with a row for each predictor, followed by those that only the paper has.

    Args:
        columns: what to print.
        rows: measurements by row, one per seed.
        label: the name of the table, for screen readers.
        paper: row -> metric -> the value that a paper prints, shown below ours.
    """
    paper = paper or {}
    names = [*rows, *(name for name in paper if name not in rows)]
    printed = []
    for column in columns:
        ours = [[m[column.key] for m in rows.get(name, ()) if column.key in m] for name in names]
        theirs = [paper.get(name, {}).get(column.key) for name in names]
        marks = places([mean_and_deviation(values)[0] for values in ours], column)
        printed.append([_cell(column, *cell) for cell in zip(ours, marks, theirs, strict=True)])
    body = "".join(
        f'<tr><th scope="row">{escape(name)}{_repetitions(rows.get(name, ()))}</th>{"".join(cells)}</tr>\n'
        for name, cells in zip(names, zip(*printed, strict=True), strict=True)
    )
    return scroll(f"<table>\n<thead>\n{_head(columns)}</thead>\n<tbody>\n{body}</tbody>\n</table>\n", label)


def _head(columns: Sequence[Column]) -> str:
    corner = f'<th scope="col">{hidden("predictor")}</th>'
    groups = ""
    if any(column.group for column in columns):
        spans = [(name, len(list(members))) for name, members in groupby(columns, lambda column: column.group)]
        cells = "".join(f'<th scope="colgroup" colspan="{span}">{escape(name)}</th>' for name, span in spans)
        groups = f"<tr><td></td>{cells}</tr>\n"
    return f"{groups}<tr>{corner}{''.join(_column_head(column) for column in columns)}</tr>\n"


def _column_head(column: Column) -> str:
    arrow = ""
    if column.better is not None:
        sign = "↑" if column.better == "higher" else "↓"
        arrow = f' <span aria-hidden="true">{sign}</span>{hidden(f", {column.better} is better")}'
    unit = f'<span class="small">{escape(column.unit)}</span>' if column.unit else ""
    return f'<th scope="col">{escape(column.label)}{arrow}{unit}</th>'


def _cell(column: Column, ours: Sequence[float], place: int, theirs: float | None) -> str:
    mean, deviation = mean_and_deviation(ours)
    content = ""
    if ours:
        text = column.text(mean)
        content = {0: text, 1: f"<strong>{text}</strong>", 2: f"<u>{text}</u>"}[place]
        if deviation is not None and column.digits:
            content += f'<span class="small">± {column.text(deviation)}</span>'
    if theirs is not None:
        content += f'<span class="small paper">{hidden("paper: ")}{column.text(theirs)}</span>'
    return f"<td>{content}</td>"


def _repetitions(seeds: Sequence[Any]) -> str:
    return f'<span class="small">n = {len(seeds)}</span>' if len(seeds) > 1 else ""

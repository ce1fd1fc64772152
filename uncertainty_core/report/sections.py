"""The sections of a page, each for the runs of one task on one data set; empty where there is nothing to show."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import astuple
from html import escape
from typing import TYPE_CHECKING

from ..catalog import curve_kind, in_order, metric
from ..colours import COLOURS
from ..errors import UserError
from ..intervals import FILE as IMAGES
from .charts import SPARSE, Style, curve_chart, reliability_chart
from .find import Run
from .markup import paragraph, picture, scroll, side_by_side
from .run_record import PaperRow, RunRecord
from .tables import class_table, metric_table, sign

if TYPE_CHECKING:
    from ..intervals.findings import MeasuredRow

# the runs of each name: one per seed
Rows = Mapping[str, Sequence[Run]]

_OF_VALUES = (
    "The best of all rows is bold on a tinted ground, the second-best underlined, with any number of forward passes."
)
_OF_INTERVALS = (
    "In brackets the 95 % interval over draws of the images. The best row with one forward pass is bold on a tinted "
    "ground, the second-best underlined, where the interval of its difference to the next one excludes 0."
)

MEDIA = {".png": "png", ".jpg": "jpeg", ".jpeg": "jpeg", ".gif": "gif", ".webp": "webp", ".svg": "svg+xml"}


def summary(rows: Rows, others: Mapping[str, PaperRow] | None = None) -> str:
    """Every metric of every predictor, below it what a paper prints of the same; `others` only a paper has."""
    papers = {name: runs[0].record.paper_row for name, runs in rows.items() if runs[0].record.paper_row}
    papers |= others or {}
    ours = {name: [run.record.row for run in runs] for name, runs in rows.items()}
    theirs = {name: row.metrics for name, row in papers.items()}
    held = dict.fromkeys(key for seeds in (*ours.values(), theirs.values()) for measured in seeds for key in measured)
    if "d_ece" in held:  # the same by definition
        held.pop("ece", None)
    measured = on_resamples(rows)
    notes = ["↑ higher is better, ↓ lower is better.", _OF_INTERVALS if measured else _OF_VALUES]
    if any(len(runs) > 1 for runs in rows.values()):
        notes.append("Rows of n seeds give mean ± sample standard deviation.")
    if papers:
        sources = dict.fromkeys(row.source for row in papers.values())
        notes.append(f"In italics what the paper prints: {'; '.join(sources)}.")
    table = metric_table(in_order(held), ours, "Results", theirs, measured=measured)
    return _findings(measured, rows) + table + paragraph(" ".join(notes), "note")


def _findings(measured: Mapping[str, MeasuredRow], rows: Rows) -> str:
    if not measured:
        return ""
    from ..intervals.findings import findings

    (task,) = {run.record.task for runs in rows.values() for run in runs}
    return "".join(map(paragraph, findings(task, measured)))


def on_resamples(rows: Rows) -> dict[str, MeasuredRow]:
    """The rows of which images were kept; none unless all of them did."""
    if not all((run.folder / IMAGES).is_file() for runs in rows.values() for run in runs):
        return {}
    # they need torch, which a page of records without images does not
    from ..intervals.comparing import over_seeds, resample
    from ..intervals.findings import MeasuredRow
    from ..intervals.storage import read_images

    found = {}
    for name, runs in rows.items():
        kept = [read_images(run.folder) for run in runs]
        seeds = [resample(images).around(run.record.metrics) for images, run in zip(kept, runs, strict=True)]
        found[name] = MeasuredRow(runs[0].record.passes, over_seeds(seeds, name))
    return found


def equal_count(rows: Rows) -> str:
    """The calibration of each detector's best n detections; a table for each n."""
    runs = [(name, run.record.equal_count) for name, seeds in rows.items() for run in seeds if run.record.equal_count]
    content = ""
    for n in dict.fromkeys(measured["n"] for _, measured in runs):
        ours: dict[str, list[Mapping[str, float]]] = {}
        for name, measured in runs:
            if measured["n"] == n:
                ours.setdefault(name, []).append(measured)
        columns = in_order(dict.fromkeys(key for seeds in ours.values() for measured in seeds for key in measured))
        content += metric_table(columns, ours, f"Results on the best {n:,.0f} detections")
    note = (
        "The detections of the highest scores, before any recalibration, over all images: of each row as many as the "
        "row with the fewest has. What a row gains here, it does not gain by more low scores."
    )
    return content and content + paragraph(note, "note")


def styles(rows: Rows, first: Sequence[str] = (), prefix: str = "run") -> dict[str, Style]:
    """How each run is drawn; those of `first` get the first colours, and as many as there are colours are drawn."""
    ordered = dict.fromkeys([*first, *rows])
    shown = len(first) or len(COLOURS)
    return {name: Style(f"{prefix}-{k}", k, k < min(shown, len(COLOURS))) for k, name in enumerate(ordered)}


def charts(rows: Rows, drawn: Mapping[str, Style]) -> str:
    """Reliability diagram and curves, of the first seed of each row."""
    firsts = {name: runs[0].record for name, runs in rows.items()}
    figures = []
    bins = {name: record.reliability for name, record in firsts.items() if record.reliability is not None}
    if bins:
        key = next((key for key in ("ece", "d_ece") if any(key in firsts[name].metrics for name in bins)), None)
        notes = {name: _said(key, firsts[name]) for name in bins}
        caption = f"What is below the diagonal is overconfident. Hollow: less than {SPARSE:.0%} of the samples."
        figures.append(reliability_chart(bins, drawn, notes, caption))
    for kind in dict.fromkeys(kind for record in firsts.values() for kind in record.curves):
        curves = {name: record.curves[kind] for name, record in firsts.items() if kind in record.curves}
        figures.append(curve_chart(curve_kind(kind), curves, drawn))
    if not figures:
        return ""
    several = any(len(runs) > 1 for runs in rows.values())
    return side_by_side(figures) + (paragraph("The first seed of each row is drawn.", "note") if several else "")


def _said(key: str | None, record: RunRecord) -> str:
    if key not in record.metrics:
        return ""
    return f"{metric(key).label} {metric(key).text(record.metrics[key])}"


def classes(rows: Rows) -> str:
    """A table for each metric that is known by class."""
    keys = dict.fromkeys(key for runs in rows.values() for run in runs for key in run.record.per_class)
    content = ""
    for found in in_order(keys):
        key = found.key
        held = {name: [run.record.per_class.get(key, {}) for run in runs] for name, runs in rows.items()}
        held = {name: seeds for name, seeds in held.items() if any(seeds)}
        papers = {name: rows[name][0].record.paper_row for name in held}
        theirs = {name: row.per_class.get(key, {}) for name, row in papers.items() if row}
        unit = f'<span class="value">, {escape(found.unit)}</span>' if found.unit else ""
        direction = f"{found.better} is better" if found.better else ""
        content += (
            f"<div>\n<h3>{escape(found.label)} {sign(found)}{unit}</h3>\n"
            f"{paragraph('; '.join(filter(None, [found.definition, direction])), 'note')}"
            f"{class_table(found, held, theirs, f'{found.label} of each class')}</div>\n"
        )
    return content and f'<div class="tables">\n{content}</div>\n'


def pictures(rows: Rows) -> str:
    """The strips of each row, of its first seed."""
    content = ""
    for name, (run, *_) in rows.items():
        if run.record.pictures:
            strip = "".join(_picture(run, each.path, each.caption) for each in run.record.pictures)
            content += f'<h3>{escape(name)}</h3>\n<div class="strip">\n{strip}</div>\n'
    return content


def _picture(run: Run, path: str, caption: str) -> str:
    place = run.folder / path
    if place.suffix.lower() not in MEDIA:
        raise UserError(f"{place} is no picture that a page can show: {', '.join(MEDIA)} are")
    try:
        content = place.read_bytes()
    except OSError:
        raise UserError(f"the picture {place} is gone: evaluate {run.record.name} again") from None
    return picture(content, f"image/{MEDIA[place.suffix.lower()]}", f"{run.name}: {caption}", caption)


def provenance(rows: Rows) -> str:
    """How to measure each run again; runs of one command share a box."""
    boxes: dict[tuple, list[Run]] = {}
    for runs in rows.values():
        for run in runs:
            source = run.record.provenance
            key = (source.command, tuple(source.versions.items()), astuple(source.data))
            boxes.setdefault(key, []).append(run)
    return "".join(_box(runs) for runs in boxes.values())


def _box(runs: Sequence[Run]) -> str:
    source = runs[0].record.provenance
    used = ", ".join(f"{name} {version}" for name, version in source.versions.items())
    body = "".join(_run_line(run) for run in runs)
    table = (
        '<table class="text">\n<thead><tr><th scope="col">Run</th><th scope="col">Seed</th>'
        '<th scope="col">Passes</th><th scope="col">Seconds</th></tr></thead>\n'
        f"<tbody>\n{body}</tbody>\n</table>\n"
    )
    return (
        '<div class="run">\n'
        f'<div class="command"><pre><code>{escape(source.command)}</code></pre>'
        '<button type="button" class="copy">Copy</button></div>\n'
        "<dl>\n"
        f"<dt>Data</dt><dd>{escape(source.data.name)}, {source.data.size:,} images</dd>\n"
        f"<dt>Fingerprint</dt><dd><code>{escape(source.data.fingerprint)}</code></dd>\n"
        f"<dt>Versions</dt><dd>{escape(used)}</dd>\n"
        f"</dl>\n{scroll(table, 'Runs of this command')}</div>\n"
    )


def _run_line(run: Run) -> str:
    source = run.record.provenance
    cells = ("none" if source.seed is None else source.seed, f"{run.record.passes:,}", f"{source.seconds:,.1f}")
    return f'<tr><th scope="row">{escape(run.name)}</th>{"".join(f"<td>{cell}</td>" for cell in cells)}</tr>\n'


def glossary(records: Sequence[RunRecord]) -> str:
    """What each metric of these records is, as far as it is known."""
    keys = dict.fromkeys(
        key
        for record in records
        for found in (record.row, record.per_class, record.paper_row.metrics if record.paper_row else {})
        for key in found
    )
    terms = "".join(
        f"<dt>{escape(found.label)} {sign(found)}</dt><dd>{escape(found.definition)}</dd>\n"
        for found in in_order(keys)
        if found.definition
    )
    return f'<dl class="glossary">\n{terms}</dl>\n' if terms else ""

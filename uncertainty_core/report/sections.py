"""The sections of a page, each for the runs of one task on one data set; empty where there is nothing to show."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import astuple
from html import escape

from ..catalog import DETECTION, SECTIONS, brief, curve_kind, in_order, metric
from ..errors import UserError
from ..roles import drawn_at_first, is_calibrated, looks
from .charts import SPARSE, Style, curve_chart, reliability_chart
from .find import Group, Rows, Run
from .markup import folded, paragraph, picture, scroll, side_by_side
from .run_record import PaperRow, RunRecord
from .tables import class_table, metric_table, sign

_OF_INTERVALS = (
    "In brackets the 95 % interval over draws of the images. The best row is bold on a tinted ground, the second-best "
    "underlined, where the interval of its difference to the next one excludes 0: rows with one forward pass compete "
    "with each other, and those with several."
)

MEDIA = {".png": "png", ".jpg": "jpeg", ".jpeg": "jpeg", ".gif": "gif", ".webp": "webp", ".svg": "svg+xml"}


def summary(group: Group, others: Mapping[str, PaperRow] | None = None) -> str:
    """Every metric of every predictor, those that matter most first, and what a paper prints of the same.

    Args:
        group: what to show.
        others: rows that only a paper has.
    """
    papers = {name: records[0].paper_row for name, records in group.records.items() if records[0].paper_row}
    papers |= others or {}
    ours = {name: [record.row for record in records] for name, records in group.records.items()}
    theirs = {name: row.metrics for name, row in papers.items()}
    held = dict.fromkeys(key for seeds in (*ours.values(), theirs.values()) for measured in seeds for key in measured)
    if "d_ece" in held:  # the same by definition
        held.pop("ece", None)
    held = {key: None for key in held if metric(key) not in SECTIONS["boxes"]}  # which have a table of their own
    notes = ["↑ higher is better, ↓ lower is better.", *[_OF_INTERVALS] * bool(group.measured)]
    if any(len(records) > 1 for records in ours.values()):
        notes.append("Rows of n seeds give mean ± sample standard deviation.")
    if papers:
        sources = dict.fromkeys(row.source for row in papers.values())
        notes.append(f"In italics what the paper prints: {'; '.join(sources)}.")
    columns, short = in_order(held), brief(group.task, held)
    table = metric_table(short, ours, "Results", theirs, group.measured)
    more = metric_table(columns, ours, "All metrics", theirs, group.measured) if len(columns) > len(short) else ""
    return table + paragraph(" ".join(notes), "note") + folded(f"All {len(columns)} metrics", more)


def equal_count(rows: Rows) -> str:
    """The calibration of each detector's best n detections; a table for each n."""
    runs = [(name, run.record.equal_count) for name, seeds in rows.items() for run in seeds if run.record.equal_count]
    content = ""
    for n in dict.fromkeys(measured["n"] for _, measured in runs):
        ours: dict[str, list[Mapping[str, float]]] = {}
        for name, measured in runs:
            if measured["n"] == n:
                ours.setdefault(name, []).append(measured)
        columns = brief(DETECTION, [key for seeds in ours.values() for measured in seeds for key in measured])
        content += metric_table(columns, ours, f"Results on the best {n:,.0f} detections")
    note = (
        "The detections of the highest scores, before any recalibration, over all images: of each row as many as the "
        "row with the fewest has. What a row gains here, it does not gain by more low scores."
    )
    return content and content + paragraph(note, "note")


def boxes(group: Group) -> str:
    """Whether the deviations of boxes tell how far off these are, of the rows that have any."""
    columns = SECTIONS["boxes"]
    rows = {
        name: [record.metrics for record in records]
        for name, records in group.records.items()
        if columns[0].key in records[0].metrics and not is_calibrated(name)  # calibrators change scores alone
    }
    if not rows:
        return ""
    note = "Of true positives at the IoU threshold of the comparison; each of the four sides of a box by itself."
    return metric_table(columns, rows, "Deviations of boxes", measured=group.measured) + paragraph(note, "note")


def styles(rows: Rows, prefix: str = "run") -> dict[str, Style]:
    """How each row is drawn."""
    shown = drawn_at_first(rows)
    return {name: Style(f"{prefix}-{k}", look, name in shown) for k, (name, look) in enumerate(looks(rows).items())}


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
    """A table for each metric that is known by class, of the rows without a calibrator.

    What the metric is stands here, unless the `glossary` has it.
    """
    rows = {name: runs for name, runs in rows.items() if not is_calibrated(name)}
    keys = dict.fromkeys(key for runs in rows.values() for run in runs for key in run.record.per_class)
    unlearnt = _unlearnt(rows)
    content = ""
    for found in in_order(keys):
        key = found.key
        held = {name: [run.record.per_class.get(key, {}) for run in runs] for name, runs in rows.items()}
        held = {name: seeds for name, seeds in held.items() if any(seeds)}
        papers = {name: rows[name][0].record.paper_row for name in held}
        theirs = {name: row.per_class.get(key, {}) for name, row in papers.items() if row}
        names = dict.fromkeys(name for seeds in held.values() for values in seeds for name in values)
        label = f"{found.label} of each class"
        learnt = class_table(found, [name for name in names if name not in unlearnt], held, theirs, label)
        rest = [name for name in names if name in unlearnt]
        more = class_table(found, rest, held, theirs, f"{label} of which nothing is learnt") if rest else ""
        said = f"{len(rest)} {'class' if len(rest) == 1 else 'classes'} of which no predictor has learnt anything"
        unit = f'<span class="value">, {escape(found.unit)}</span>' if found.unit else ""
        explained = any(key in run.record.row for runs in rows.values() for run in runs)
        notes = [*[found.definition] * (not explained), *[f"{found.better} is better"] * bool(found.better)]
        content += (
            f"<div>\n<h3>{escape(found.label)} {sign(found)}{unit}</h3>\n"
            f"{paragraph('; '.join(filter(None, notes)), 'note')}"
            f"{learnt}{folded(said, more)}</div>\n"
        )
    return content and f'<div class="tables">\n{content}</div>\n'


def _unlearnt(rows: Rows) -> set[str]:
    """The classes that every predictor gets wrong, by the first metric of classes of which more is better."""
    records = [run.record for runs in rows.values() for run in runs]
    keys = dict.fromkeys(key for record in records for key in record.per_class)
    for found in in_order(keys):
        if found.better == "higher":
            values: dict[str, list[float]] = {}
            for record in records:
                for name, value in record.per_class.get(found.key, {}).items():
                    values.setdefault(name, []).append(value)
            unlearnt = {name for name, seen in values.items() if not any(value > 0 for value in seen)}
            return unlearnt if len(unlearnt) < len(values) else set()
    return set()


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
            key = (source.command, _trained_by(run), tuple(source.versions.items()), astuple(source.data))
            boxes.setdefault(key, []).append(run)
    return "".join(_box(runs) for runs in boxes.values())


def _trained_by(run: Run) -> str:
    """The command line that trained the network, where it is another one than that which measured it."""
    training = run.record.training
    return "" if training is None or training.command == run.record.provenance.command else training.command


def _box(runs: Sequence[Run]) -> str:
    source = runs[0].record.provenance
    training = _trained_by(runs[0])
    trained = f"<dt>Weights by</dt><dd><code>{escape(training)}</code></dd>\n" if training else ""
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
        f"{trained}"
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
        for found in (record.row, record.paper_row.metrics if record.paper_row else {})
        for key in found
    )
    terms = "".join(
        f"<dt>{escape(found.label)} {sign(found)}</dt><dd>{escape(found.definition)}</dd>\n"
        for found in in_order(keys)
        if found.definition
    )
    return f'<dl class="glossary">\n{terms}</dl>\n' if terms else ""

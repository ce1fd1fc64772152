"""The page as a whole: runs of one task on one data set are compared with each other, and with no others."""

from collections.abc import Collection, Sequence

from . import sections
from .find import Group, Run, grouped
from .markdown import findings
from .markup import document


def build_page(runs: Sequence[Run], title: str) -> str:
    """The page; the same runs give the same bytes."""
    groups = grouped(runs)
    parts = {name: group_sections(group, prefix=f"g{k}") for k, (name, group) in enumerate(groups.items())}
    if len(parts) == 1:
        parts = {"": next(iter(parts.values()))}
    parts.setdefault("", {})["Metrics"] = sections.glossary([run.record for run in runs])
    return document(title, findings(groups), _lead(groups.values()), parts)


def group_sections(group: Group, prefix: str) -> dict[str, str]:
    """Sections by heading; `prefix` tells the charts of several groups apart."""
    rows = group.rows
    return {
        "Results": sections.summary(group),
        "Equally many detections": sections.equal_count(rows),
        "Where boxes are uncertain": sections.boxes(group),
        "Calibration and risk": sections.charts(rows, sections.styles(rows, prefix)),
        "Classes": sections.classes(rows),
        "Pictures": sections.pictures(rows),
        "Runs": sections.provenance(rows),
    }


def _lead(groups: Collection[Group]) -> str:
    said = []
    for group in groups:
        predictors = "one predictor" if len(group.rows) == 1 else f"{len(group.rows)} predictors"
        said.append(f"{predictors} of {group.task}, measured on {group.data.size:,} images of {group.data.name}")
    text = "; ".join(said)
    return f"{text[0].upper()}{text[1:]}."

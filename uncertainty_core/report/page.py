"""The page as a whole: runs of one task on one data set are compared with each other, and with no others."""

from collections import Counter
from collections.abc import Sequence

from . import sections
from .find import Run
from .markup import document
from .run_record import Data
from .sections import Rows


def build_page(runs: Sequence[Run], title: str) -> str:
    """The page; the same runs give the same bytes."""
    groups = grouped(runs)
    names = _names(list(groups))
    parts = {names[key]: group_sections(rows, prefix=f"g{k}") for k, (key, rows) in enumerate(groups.items())}
    if len(parts) == 1:
        parts = {"": next(iter(parts.values()))}
    parts.setdefault("", {})["Metrics"] = sections.glossary([run.record for run in runs])
    return document(title, _lead(groups), parts)


def grouped(runs: Sequence[Run]) -> dict[tuple[str, Data], Rows]:
    """Runs by task and data set, then by name. Data of one content have the name that the first run gives them."""
    groups: dict[tuple[str, Data], dict[str, list[Run]]] = {}
    names: dict[str, Data] = {}
    for run in runs:
        data = run.record.provenance.data
        rows = groups.setdefault((run.record.task, names.setdefault(data.fingerprint, data)), {})
        rows.setdefault(run.name, []).append(run)
    return groups


def group_sections(rows: Rows, prefix: str) -> dict[str, str]:
    """Sections by heading; `prefix` tells the charts of several groups apart."""
    return {
        "Results": sections.summary(rows),
        "Equally many detections": sections.equal_count(rows),
        "Calibration and risk": sections.charts(rows, sections.styles(rows, prefix=prefix)),
        "Classes": sections.classes(rows),
        "Pictures": sections.pictures(rows),
        "Runs": sections.provenance(rows),
    }


def _names(keys: Sequence[tuple[str, Data]]) -> dict[tuple[str, Data], str]:
    """ "Classification, digits"; data sets of one name have the start of their fingerprint added."""
    plain = {key: f"{key[0].capitalize()}, {key[1].name}" for key in keys}
    count = Counter(plain.values())
    return {key: name if count[name] == 1 else f"{name} {key[1].fingerprint[:8]}" for key, name in plain.items()}


def _lead(groups: dict[tuple[str, Data], Rows]) -> str:
    said = []
    for (task, data), rows in groups.items():
        predictors = "one predictor" if len(rows) == 1 else f"{len(rows)} predictors"
        said.append(f"{predictors} of {task}, measured on {data.size:,} images of {data.name}")
    text = "; ".join(said)
    return f"{text[0].upper()}{text[1:]}."

"""Runs on disk: which there are, in which order they stand, and what tells those of one name apart."""

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from os.path import commonpath
from pathlib import Path
from typing import Any

from ..errors import UserError
from .run_record import FILE, RunRecord


@dataclass(frozen=True)
class Run:
    """A record, where it lies, and the name that it has among others."""

    folder: Path
    record: RunRecord
    name: str


def find_runs(folders: Iterable[Path]) -> list[Run]:
    """All runs in these folders and below them.

    The folders keep their order. Within one, runs are in that of `predictor_order`, then of seeds.
    """
    found: dict[Path, RunRecord] = {}
    for folder in folders:
        places = [path.parent.resolve() for path in folder.rglob(FILE)]
        if not places:
            raise UserError(f"there is no {FILE} in {folder} or below it: evaluate a predictor first")
        new = {place: RunRecord.read(place) for place in places if place not in found}
        found |= sorted(new.items(), key=lambda item: _order(*item))
    return distinct([Run(folder, record, record.name) for folder, record in found.items()])


def predictor_order(name: str, passes: int) -> tuple:
    """Sorts predictors for tables, and so for colours.

    Baselines come first, then what takes several passes, fewer before more, then the others by name.
    """
    return not name.startswith("baseline"), passes == 1, passes, _natural(name)


def _order(folder: Path, record: RunRecord) -> tuple:
    seed = -1 if record.provenance.seed is None else record.provenance.seed
    return *predictor_order(record.name, record.passes), seed, _natural(str(folder))


def _natural(text: str) -> list[tuple[bool, Any]]:
    """Sorts "MC-2" before "MC-10"."""
    return [(part.isdigit(), int(part) if part.isdigit() else part.lower()) for part in re.split(r"(\d+)", text)]


def distinct(runs: Sequence[Run]) -> list[Run]:
    """The same runs, so named that no two of one data set share both name and seed.

    Where two do, all of that name get the part of their path in which they differ.
    """

    def key(run: Run) -> tuple:
        return run.name, run.record.task, run.record.provenance.data.fingerprint

    repeated = Counter((key(run), run.record.provenance.seed) for run in runs)
    clashing = {name for (name, _), count in repeated.items() if count > 1}
    if not clashing:
        return list(runs)
    parent = {name: commonpath([run.folder for run in runs if key(run) == name]) for name in clashing}

    def renamed(run: Run) -> Run:
        # a run may lie in the very folder that holds the others
        inside = run.folder.relative_to(parent[key(run)]).parts or (run.folder.name,)
        return Run(run.folder, run.record, f"{run.name} ({inside[0]})")

    return distinct([renamed(run) if key(run) in clashing else run for run in runs])

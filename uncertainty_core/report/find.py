"""Runs on disk: which there are, which are compared, in which order, and what tells those of one name apart."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from os.path import commonpath
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import UserError
from ..intervals import FILE as IMAGES
from ..roles import natural, order, predictor_name, short_names
from .run_record import FILE, Data, RunRecord

if TYPE_CHECKING:
    from ..intervals.findings import MeasuredRow

_AGAIN = "evaluate the predictor again"


@dataclass(frozen=True)
class Run:
    """A record, where it lies, and the name that it has among others."""

    folder: Path
    record: RunRecord
    name: str


# the runs of each name: one per seed
Rows = Mapping[str, Sequence[Run]]


@dataclass(frozen=True)
class Group:
    """What is compared: predictors of one task on one data set."""

    rows: Rows

    @classmethod
    def of(cls, runs: Iterable[Run]) -> "Group":
        """Of these runs, in their order."""
        rows: dict[str, list[Run]] = {}
        for run in runs:
            rows.setdefault(run.name, []).append(run)
        return cls(rows)

    @property
    def _first(self) -> RunRecord:
        return next(iter(self.rows.values()))[0].record

    @property
    def task(self) -> str:
        """One of `catalog.TASKS`."""
        return self._first.task

    @property
    def data(self) -> Data:
        """What was predicted."""
        return self._first.provenance.data

    @property
    def name(self) -> str:
        """Of the task and the data set."""
        return f"{self.task.capitalize()}, {self.data.name}"

    @property
    def records(self) -> dict[str, list[RunRecord]]:
        """The records of each row."""
        return {name: [run.record for run in runs] for name, runs in self.rows.items()}

    @cached_property
    def measured(self) -> dict[str, "MeasuredRow"]:
        """The rows on resampled images; none unless these are known of all of them."""
        if not all((run.folder / IMAGES).is_file() for runs in self.rows.values() for run in runs):
            return {}
        # they need torch, which a page of records without images does not
        from ..intervals.comparing import Resampled, over_seeds
        from ..intervals.findings import MeasuredRow
        from ..intervals.storage import read_resamples

        def resampled(run: Run) -> Resampled:
            resamples = read_resamples(run.folder)
            for key, values in resamples.items():
                if key not in run.record.metrics:
                    raise UserError(f"{run.folder / IMAGES} has {key}, which the record beside it lacks: {_AGAIN}")
                if len(values) != counts.setdefault(key, len(values)):
                    raise UserError(
                        f"{run.folder / IMAGES} has {len(values)} resamples of {key}, and others that it is compared "
                        f"with have {counts[key]}: {_AGAIN}"
                    )
            return Resampled({key: run.record.metrics[key] for key in resamples}, resamples)

        counts: dict[str, int] = {}  # of resamples, which are paired
        seeds = {name: list(map(resampled, runs)) for name, runs in self.rows.items()}
        if not all(run.values for runs in seeds.values() for run in runs):
            return {}
        return {
            name: MeasuredRow(self.rows[name][0].record.passes, over_seeds(runs, name)) for name, runs in seeds.items()
        }


def find_runs(folders: Iterable[Path]) -> list[Run]:
    """All runs in these folders and below them, in the order of `roles`, then of seeds."""
    found: dict[Path, RunRecord] = {}
    for folder in folders:
        places = [path.parent.resolve() for path in folder.rglob(FILE)]
        if not places:
            raise UserError(f"there is no {FILE} in {folder} or below it: evaluate a predictor first")
        found |= {place: RunRecord.read(place) for place in places if place not in found}
    return distinct(arranged(found))


def grouped(runs: Sequence[Run]) -> dict[str, Group]:
    """Runs of one task and data set, by names such as "Classification, digits".

    Data sets of one content have the name that the first run gives them; those of one name have the start of their
    fingerprint added.
    """
    groups: dict[tuple[str, str], list[Run]] = {}
    for run in runs:
        groups.setdefault(_data_of(run), []).append(run)
    found = [Group.of(members) for members in groups.values()]
    count = Counter(group.name for group in found)
    return {
        group.name if count[group.name] == 1 else f"{group.name} {group.data.fingerprint[:8]}": group for group in found
    }


def _order(run: Run) -> tuple:
    record = run.record
    seed = -1 if record.provenance.seed is None else record.provenance.seed
    return *order(record.name, record.passes), seed, natural(str(run.folder))


def arranged(records: Mapping[Path, RunRecord]) -> list[Run]:
    """The records in these folders in the order of `roles`; the only student of a comparison is called just that."""
    runs = sorted((Run(folder, record, record.name) for folder, record in records.items()), key=_order)
    names: dict[tuple[str, str], list[str]] = {}
    for run in runs:
        names.setdefault(_data_of(run), []).append(run.name)
    short = {key: short_names(rows) for key, rows in names.items()}
    return [Run(run.folder, run.record, short[_data_of(run)][run.name]) for run in runs]


def _data_of(run: Run) -> tuple[str, str]:
    """What only runs of one comparison share."""
    return run.record.task, run.record.provenance.data.fingerprint


def distinct(runs: Sequence[Run]) -> list[Run]:
    """The same runs, so named that no two of one data set share both name and seed.

    Where two do, all of that name get the part of their path in which they differ.
    """

    def key(run: Run) -> tuple:
        return run.name, *_data_of(run)

    repeated = Counter((key(run), run.record.provenance.seed) for run in runs)
    clashing = {name for (name, _), count in repeated.items() if count > 1}
    if not clashing:
        return list(runs)
    parent = {name: commonpath([run.folder for run in runs if key(run) == name]) for name in clashing}

    def renamed(run: Run) -> Run:
        # a run may lie in the very folder that holds the others
        inside = run.folder.relative_to(parent[key(run)]).parts or (run.folder.name,)
        predictor = predictor_name(run.name)
        return Run(run.folder, run.record, f"{predictor} ({inside[0]}){run.name.removeprefix(predictor)}")

    return distinct([renamed(run) if key(run) in clashing else run for run in runs])

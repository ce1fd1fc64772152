"""What was measured of one predictor, and how to do it again: `run.json` in a folder of its own.

The three packages write the same record for each predictor that they evaluate; `uncertainty_core.report` compares
any number of them on one page.

Shapes: K bins of confidence, Q points of a curve.
"""

from __future__ import annotations

import importlib.metadata
import math
import platform
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field, replace
from itertools import pairwise
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any

from ..catalog import FORMAT, TASKS
from ..errors import UserError
from ..intervals import FILE as IMAGES
from ..io.claims import claimed, command_line
from ..io.files import write_text
from ..io.records import build
from ..io.strict_json import read_json, strict_json
from .paper_rows import PaperRow, numbers

if TYPE_CHECKING:  # records are read and compared where no torch is needed
    from ..functional.calibration import CalibrationResult
    from ..functional.selective import Ranking
    from ..intervals.storage import Images

FILE = "run.json"


def _floats(values: Iterable[float | str]) -> list[float]:
    return [float(value) for value in values]


def _check_lengths(length: int, **columns: list) -> None:
    for name, column in columns.items():
        if len(column) != length:
            raise ValueError(f"{name} must hold {length} values, got {len(column)}")


@dataclass(frozen=True)
class Reliability:
    """K bins of confidence, from the lowest to the highest.

    edges: K + 1 rising limits.
    count: predictions in each bin (K).
    mean_confidence, success_frequency: of each bin (K), NaN in an empty one.
    """

    edges: list[float]
    count: list[int]
    mean_confidence: list[float]
    success_frequency: list[float]

    def __post_init__(self) -> None:
        for name in ("edges", "mean_confidence", "success_frequency"):
            object.__setattr__(self, name, _floats(getattr(self, name)))
        object.__setattr__(self, "count", [int(count) for count in self.count])
        columns = {name: value for name, value in vars(self).items() if name != "edges"}
        _check_lengths(len(self.edges) - 1, **columns)
        limits = [0, *self.edges, 1]
        if not (self.count and all(low <= high for low, high in pairwise(limits))):  # NaN is neither
            raise ValueError("edges must rise within [0, 1]")
        if min(self.count) < 0:
            raise ValueError(f"count must not be negative, got {min(self.count)}")
        for name in ("mean_confidence", "success_frequency"):
            for value in getattr(self, name):
                if not (0 <= value <= 1 + 1e-6 or math.isnan(value)):  # a mean of ones may be rounded up
                    raise ValueError(f"{name} must lie in [0, 1], got {value}")

    @classmethod
    def of(cls, result: CalibrationResult) -> Reliability:
        """The bins of a finished measurement."""
        from ..functional.calibration import bin_edges

        bins = result.bins
        return cls(
            edges=bin_edges(result.num_bins).tolist(),
            count=bins.count.tolist(),
            mean_confidence=bins.mean_confidence.tolist(),
            success_frequency=bins.success_frequency.tolist(),
        )


@dataclass(frozen=True)
class Curve:
    """y against x (Q values each), and the y that the best possible order of the samples would have (Q), if known."""

    x: list[float]
    y: list[float]
    oracle: list[float] | None = None

    def __post_init__(self) -> None:
        for name in ("x", "y", "oracle"):
            if getattr(self, name) is not None:
                object.__setattr__(self, name, _floats(getattr(self, name)))
        _check_lengths(len(self.x), y=self.y, oracle=self.y if self.oracle is None else self.oracle)


def risk_coverage_curve(errors: Ranking, points: int = 200) -> Curve:
    """The risk-coverage curve, thinned to so many points of evenly spread coverage, with its oracle.

    The oracle covers every right prediction before the first wrong one, hence risk max(0, 1 - right / covered).
    """
    import torch

    from ..functional.selective import risk_coverage

    coverage, risk = risk_coverage(errors)
    wanted = torch.linspace(0, 1, points, dtype=coverage.dtype, device=coverage.device)
    kept = torch.searchsorted(coverage, wanted).clamp(max=len(coverage) - 1).unique()
    coverage, risk = coverage[kept], risk[kept]
    oracle = (1 - (1 - risk[-1:]) / coverage).clamp(min=0)
    return Curve(coverage.tolist(), risk.tolist(), oracle.tolist())


@dataclass(frozen=True)
class Picture:
    """A picture in the folder of the record: its path relative to that folder, and what it shows."""

    path: str
    caption: str

    def __post_init__(self) -> None:
        # whoever wrote a record must not put other files of its reader's on a page
        if PurePath(self.path).is_absolute() or ".." in PurePath(self.path).parts or "\0" in self.path:
            raise ValueError(f"path {self.path!r} is not in the folder of the record")


@dataclass(frozen=True)
class Data:
    """What was predicted: a name for people, a checksum of its content, and the number of images."""

    name: str
    fingerprint: str
    size: int


@dataclass(frozen=True)
class Provenance:
    """How to measure the same again.

    command: ready for a shell.
    seed: of the predictor and its draws, None where nothing is random.
    versions: by name; "python", "torch", "numpy", "distilled-uncertainty" and the framework.
    data: what was predicted.
    seconds: that predicting it took.
    """

    command: str
    seed: int | None
    versions: dict[str, str]
    data: Data
    seconds: float

    @classmethod
    def of_this_process(cls, seed: int | None, data: Data, seconds: float, **frameworks: str) -> Provenance:
        """With the command line of this process and the versions it runs; those of `frameworks` by name."""
        return cls(command_line(), seed, versions() | frameworks, data, seconds)


def versions() -> dict[str, str]:
    """Of Python and the packages that every measurement needs."""
    import numpy
    import torch

    try:
        ours = importlib.metadata.version("distilled-uncertainty")
    except importlib.metadata.PackageNotFoundError:
        ours = "not installed"
    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": numpy.__version__,
        "distilled-uncertainty": ours,
    }


@dataclass(frozen=True)
class Training:
    """What made the weights of a predictor: a command line, and all settings that decided what it ended with."""

    command: str
    settings: dict[str, Any]

    @classmethod
    def of(cls, folder: str | Path) -> Training | None:
        """Of the weights in `folder`, None where these were not made by this project."""
        found = claimed(folder)
        return cls(found["command"], found["settings"]) if "command" in found else None


@dataclass(frozen=True)
class RunRecord:
    """One predictor on one data set.

    Args:
        name: of the predictor; records of the same name and different seeds are repetitions.
        task: one of `catalog.TASKS`.
        passes: forward passes for one image.
        metrics: values by name, in the units in which the package's evaluators return them.
        equal_count: metrics of a detector's best n detections, n being the same in all rows that it was compared with.
        provenance: how to measure it again.
        reliability: bins of the confidence.
        curves: by name; the page knows "risk_coverage" and "sparsification".
        per_class: class -> value, by metric.
        pictures: in the order in which to show them.
        paper_row: what a paper prints of the same predictor, see `paper_rows`.
        training: what made its weights, if that is known.
        intervals: lower and upper end of those metrics whose interval is known.
        details: JSON values that are for the package that wrote the record alone; the page does not show them.
    """

    name: str
    task: str
    passes: int
    metrics: dict[str, float]
    provenance: Provenance
    reliability: Reliability | None = None
    curves: dict[str, Curve] = field(default_factory=dict)
    per_class: dict[str, dict[str, float]] = field(default_factory=dict)
    pictures: list[Picture] = field(default_factory=list)
    paper_row: PaperRow | None = None
    training: Training | None = None
    equal_count: dict[str, float] = field(default_factory=dict)
    intervals: dict[str, list[float]] = field(default_factory=dict)
    details: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.task not in TASKS:
            raise ValueError(f"task must be one of {', '.join(TASKS)}, got {self.task!r}")
        if self.passes < 1:
            raise ValueError(f"passes must be at least 1, got {self.passes}")
        if self.equal_count and "n" not in self.equal_count:
            raise ValueError("equal_count needs n, the number of detections")
        object.__setattr__(self, "metrics", numbers(self.metrics))
        object.__setattr__(self, "equal_count", numbers(self.equal_count))
        object.__setattr__(self, "per_class", {name: numbers(column) for name, column in self.per_class.items()})

    @property
    def row(self) -> dict[str, float]:
        """What a table has of it: its metrics, and the number of its passes."""
        return {"passes": self.passes, **self.metrics}

    def write(self, folder: str | Path, images: Images | None = None) -> Path:
        """Write `run.json` into `folder`, where the pictures must be already; returns its path.

        Args:
            folder: of the record.
            images: what is kept of each image, from which intervals come; written beside the record.
        """
        folder = Path(folder)
        for picture in self.pictures:
            if not (folder / picture.path).is_file():
                raise ValueError(f"there is no picture {picture.path} in {folder}")
        folder.mkdir(parents=True, exist_ok=True)
        (folder / IMAGES).unlink(missing_ok=True)
        record = self
        if images is not None:
            from ..intervals.comparing import resample
            from ..intervals.storage import write_images

            found = resample(images).around(self.metrics)
            write_images(folder, images, found.resamples)
            record = replace(self, intervals={name: list(ends) for name, ends in found.intervals.items()})
        path = folder / FILE
        write_text(path, strict_json({"format": FORMAT, **asdict(record)}))
        return path

    @classmethod
    def read(cls, folder: str | Path) -> RunRecord:
        """The record in `folder`; raises UserError where it is absent, damaged or of another format."""
        path = Path(folder) / FILE
        if not path.is_file():
            raise UserError(f"there is no {FILE} in {folder}: evaluate the predictor first")
        try:
            content = read_json(path.read_bytes())
            if not isinstance(content, dict):
                raise ValueError("it is no object")
            found = content.pop("format", "unknown")
            record = build(cls, content) if found == FORMAT and type(found) is int else None
        except ValueError as error:
            raise UserError(f"{path} is damaged ({error}): evaluate the predictor again") from None
        if record is None:
            raise UserError(f"{path} has format {found}, this version reads format {FORMAT}: evaluate again")
        return record

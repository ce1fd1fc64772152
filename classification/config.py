"""What an experiment is, as typed records; a YAML file or `key=value` on the command line fills them in.

An unknown key, a value of the wrong type or an unknown choice is a ConfigError that names the place and what was meant.
"""

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import yaml

from uncertainty_core.checks import check_positive_int
from uncertainty_core.cli.configs import CONFIGS, read_yaml
from uncertainty_core.errors import UserError, did_you_mean
from uncertainty_core.io.records import build, expect
from uncertainty_core.io.safe_yaml import read_yaml_text
from uncertainty_core.recalibration.recipes import CLASS_METHODS
from uncertainty_core.report.paper_rows import PaperRow, paper_table
from uncertainty_core.roles import short_names, student_name

from .methods import METHODS, Method, Precision, Standard


class ConfigError(UserError):
    """A configuration that cannot be run; the message is one sentence."""


@dataclass(frozen=True)
class Data:
    """Which images, and what is done to them in training."""

    name: str = "digits"  # digits, mnist, cifar10, cifar100 or folder:<path>
    root: str = "data"  # where torchvision keeps its data sets
    image_size: int | None = None  # pixels; None for the images' own
    validation: float = 0.1  # share of the training split that is set aside, by class
    limit: int | None = None  # train on so many of the images only
    flip: bool = False  # mirror half of the images
    crop_padding: int = 0  # pad by so many pixels and crop at random
    bad_images: Literal["stop", "skip"] = "stop"  # what to do with an image that cannot be read
    unlabelled: str | None = None  # folder of extra images without labels, for students

    def __post_init__(self) -> None:
        if self.limit is not None:
            check_positive_int("limit", self.limit)


@dataclass(frozen=True)
class Model:
    """A network of `classification.models`, or one of one's own."""

    name: str = "digits"  # or package.module:Class, installed or below the current folder
    width: float = 1.0  # factor on the channels of every hidden layer
    dropout: float | None = None  # rate; None for the paper's
    penultimate: int | None = None  # units of the last hidden layer, for `quick` alone
    options: dict[str, Any] = field(default_factory=dict)  # further keyword arguments, for one's own

    def __post_init__(self) -> None:
        named = {key.name for key in dataclasses.fields(self)} - {"options"}
        for key in self.options:
            if key in named:
                raise ValueError(f"options.{key} is a key of its own: write it beside options")
            if key in ("num_classes", "in_channels"):
                raise ValueError(f"options.{key} is not to be set: the images decide")


@dataclass(frozen=True)
class Training:
    """Optimisation."""

    epochs: int = 30
    batch_size: int = 64
    optimizer: Literal["sgd", "adam"] = "sgd"
    lr: float = 0.1
    momentum: float = 0.9  # of SGD
    nesterov: bool = False
    weight_decay: float = 0.0  # the paper's γ
    milestones: tuple[int, ...] = ()  # epochs after which the rate is divided by ten

    def __post_init__(self) -> None:
        check_positive_int("epochs", self.epochs)
        check_positive_int("batch_size", self.batch_size)
        for name in ("lr", "momentum", "weight_decay"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"{name} must not be negative, got {getattr(self, name)}")
        if self.optimizer == "sgd" and self.nesterov and self.momentum == 0:
            raise ValueError("nesterov needs a momentum: set one, or nesterov=false")


@dataclass(frozen=True)
class Run:
    """One network, trained by one method with each of several seeds."""

    model: Model = field(default_factory=Model)
    training: Training = field(default_factory=Training)
    method: Method = field(default_factory=Standard)
    seeds: tuple[int, ...] = (0,)

    def __post_init__(self) -> None:
        if not self.seeds:
            raise ValueError("seeds must hold at least one number, got none")


@dataclass(frozen=True)
class Teacher(Run):
    """What students learn from: the network of the first seed, or all of them."""

    ensemble: bool = False  # students learn from the networks of all seeds together, and without their dropout

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.ensemble and len(self.seeds) < 2:
            raise ValueError(f"ensemble needs two seeds or more, for example seeds=[0,1,2], got {list(self.seeds)}")


@dataclass(frozen=True)
class Evaluation:
    """What is measured on the test split."""

    mc_samples: tuple[int, ...] = (10, 100)  # M of each Monte-Carlo row of the teacher
    mc_students: int = 0  # M of the same for the students, 0 for none
    repetitions: int = 1  # of each Monte-Carlo row, with seeds 0, 1, ...
    precision: Precision = "float32"  # of all Monte-Carlo draws, see `mc_outputs`
    channels_last: bool = False  # likewise
    num_bins: int = 15
    edges: Literal["right", "left"] = "right"
    ood: tuple[str, ...] = ()  # data sets of other things
    corruptions: tuple[Literal["noise", "blur", "rotation"], ...] = ()  # each at five strengths
    # fitted to what each one-pass predictor has of the validation images, if there are any; each makes a row
    calibrators: tuple[Literal[CLASS_METHODS], ...] = ("temperature",)

    def __post_init__(self) -> None:
        check_positive_int("num_bins", self.num_bins)
        for num_samples in self.mc_samples:
            check_positive_int("mc_samples", num_samples)


@dataclass(frozen=True)
class Config:
    """An experiment: a teacher, students that are distilled from it, and what is measured."""

    name: str = "experiment"
    output: str = "output"  # everything is written to <output>/<name>
    data: Data = field(default_factory=Data)
    teacher: Teacher = field(default_factory=Teacher)
    students: dict[str, Run] = field(default_factory=dict)
    evaluation: Evaluation = field(default_factory=Evaluation)
    paper: str | None = None  # whose rows are called as ours: a table of `uncertainty_core.report.paper_rows`

    def __post_init__(self) -> None:
        for student in self.students:  # they name folders, and rows of a table that has others
            if student in ("", "baseline") or student.startswith((".", "MC-", "ensemble of ")) or "/" in student:
                raise ValueError(f"students cannot be called {student!r}")
        if self.teacher.method.needs_teacher:
            raise ValueError("teacher.method must be standard: a teacher has none of its own")
        if self.data.flip or self.data.crop_padding:
            for student, run in self.students.items():
                if run.method.from_store:
                    raise ValueError(
                        f"students.{student}.method.from_store needs the same images in every epoch: "
                        "turn off data.flip and data.crop_padding, or set from_store=false"
                    )

        try:
            self.paper_rows  # noqa: B018 (raises before a training, not after it, where there is none)
        except UserError as error:
            raise ValueError(f"paper: {error}") from None

    @property
    def paper_rows(self) -> dict[str, PaperRow]:
        """What the paper prints of each row."""
        return {} if self.paper is None else paper_table(self.paper)

    def row_name(self, row: str) -> str:
        """What the record of a row is called: "student (KD)" for "KD", which names its folder."""
        predictor, calibrated, calibrator = row.partition(" + ")
        sampled, _, student = predictor.partition(" ")
        if predictor in self.students:
            predictor = student_name(predictor)
        elif student in self.students:  # as in "MC-10 KD"
            predictor = f"{sampled} of {student_name(student)}"
        return predictor + calibrated + calibrator

    @property
    def student_rows(self) -> dict[str, str]:
        """What the page calls the row of each student."""
        short = short_names(map(student_name, self.students))
        return {student: short[student_name(student)] for student in self.students}

    @property
    def folder(self) -> Path:
        """Where everything is written."""
        return Path(self.output) / self.name


def load_config(path: str | Path, overrides: list[str] = ()) -> Config:
    """Read a YAML file and apply `key.sub=value` overrides, whose values are YAML, too.

    A file may name another one as its `base`, relative to itself or by its name in configs/classification, and hold
    only what differs: keys below keys are merged, null takes a key of the base away, and anything else replaces what
    the base has. The name is not inherited.
    """
    path = Path(path)
    content = {"name": path.stem} | _read(path)
    for override in overrides:
        _override(content, override)
    try:
        return build(Config, content, readers={Method: _method})
    except ValueError as error:
        raise ConfigError(str(error)) from None


def _read(path: Path, heirs: tuple[Path, ...] = ()) -> dict[str, Any]:
    """The content of a YAML file upon that of its base; `heirs` are the files whose base it is."""
    try:
        content = read_yaml(path)
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}") from None
    except UserError as error:
        raise ConfigError(str(error)) from None
    base = content.pop("base", None)
    if base is None:
        return content
    if not isinstance(base, str):
        raise ConfigError(f"base of {path} must be the name of a file, got {base!r}")
    heirs = (*heirs, path.resolve())
    beside, shipped = path.parent / base, CONFIGS / "classification" / base
    base_path = shipped if shipped.is_file() and not beside.is_file() else beside
    if base_path.resolve() in heirs:
        raise ConfigError(f"{path} is a base of itself, through base: {base}")
    inherited = _read(base_path, heirs)
    inherited.pop("name", None)  # an experiment has the name of its own file, unless that sets another
    return _merged(inherited, content)


def _merged(base: Any, change: Any) -> Any:
    """`change` upon `base`, as RFC 7396 merges JSON."""
    if not isinstance(change, dict):
        return change
    merged = dict(base) if isinstance(base, dict) else {}
    for key, value in change.items():
        if value is None:
            merged.pop(key, None)
        else:
            merged[key] = _merged(merged.get(key), value)
    return merged


def _override(content: dict[str, Any], override: str) -> None:
    key, equals, value = override.partition("=")
    if not equals:
        raise ConfigError(f"{override!r} is no override: write key=value, for example teacher.training.epochs=3")
    *parents, last = key.split(".")
    for parent in parents:
        child = content.get(parent)
        if not isinstance(child, dict | None):
            raise ConfigError(f"{key} goes through {parent}, which is a value and has no keys")
        # a copy: to YAML, what an anchor stands for is one object at all its places, and only one of them is meant
        content[parent] = content = dict(child or {})
    try:
        content[last] = read_yaml_text(value)
    except (yaml.YAMLError, ValueError):
        raise ConfigError(f"the value of {key} is not YAML: {value!r}") from None


def _method(value: Any, place: str) -> Method:
    """`ddn`, or `{name: ddn, dd_weight: 0.5}`."""
    value = {"name": value} if isinstance(value, str) else value or {}
    expect(isinstance(value, dict), "the name of a method, or keys and values", value, place)
    value = dict(value)
    name = value.pop("name", None)
    if not isinstance(name, str) or name not in METHODS:
        near = did_you_mean(str(name), METHODS, otherwise=f"; known are {', '.join(METHODS)}")
        raise ConfigError(f"{place} must name a method, got {name!r}{near}")
    return build(METHODS[name], value, place)

"""The whole way, step by step: an ensemble, its targets, its student, and all of them measured.

<output>/members/member_<k>/   the networks of the ensemble; the first one is also the baseline
<output>/targets/              the ensemble's uncertainty for the training images
<output>/<student>/            a student
<output>/rows/<name>/          what each predictor was measured to be, its curves, and pictures
<output>/comparison.json       the tables; sparsification.png: the curves of all rows

A step that an earlier run finished is not repeated, and one that was interrupted goes on.
"""

from collections.abc import Sequence
from pathlib import Path

from mmengine.config import Config, ConfigDict

from .generate import generate_targets
from .members import train_members
from .setup import ConfigError
from .training import train_once


def in_folder(cfg: Config, folder: Path) -> Config:
    """A copy of `cfg` that works in `folder`."""
    cfg = cfg.copy()
    cfg.work_dir = str(folder)
    return cfg


def ensemble_config(member: Config, checkpoints: Sequence[Path]) -> Config:
    """The config of the ensemble of members that are trained already."""
    cfg = member.copy()
    cfg.model = ConfigDict(
        type="DeepEnsembleSegmentor", segmentor=member.model, checkpoints=[str(path) for path in checkpoints]
    )
    return cfg


def with_store(student: Config, store: Path) -> Config:
    """A copy of a student's config that reads its targets from `store`."""
    cfg = student.copy()
    loads = [t for t in cfg.train_dataloader.dataset.pipeline if t["type"] == "LoadUncertaintyTarget"]
    if len(loads) != 1:
        raise ConfigError("a student's training pipeline needs one LoadUncertaintyTarget to read stored targets")
    loads[0]["store"] = str(store)
    return cfg


def class_wise(student: Config) -> bool:
    """Whether a student learns the uncertainty of every class."""
    return (student.model.get("uncertainty_head") or {}).get("num_outputs", 1) > 1


def distil(
    member: Config, students: dict[str, Config], num_members: int, output: Path
) -> tuple[Config, dict[str, Path]]:
    """Train members and students; returns the ensemble's config, and the checkpoints of baseline and students.

    Args:
        member: config of a network of the ensemble.
        students: configs of its students by name.
        num_members: N.
        output: gets all of it.
    """
    checkpoints = train_members(in_folder(member, output / "members"), range(num_members))
    teacher = ensemble_config(member, checkpoints)
    trained = {"baseline": checkpoints[0]}
    for name, student in students.items():
        store = output / ("targets-class-wise" if class_wise(student) else "targets")
        generate_targets(teacher, str(store), class_wise=class_wise(student))
        trained[name] = train_once(in_folder(with_store(student, store), output / name))
    return teacher, trained

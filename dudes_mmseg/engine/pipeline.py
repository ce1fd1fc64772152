"""The whole way, step by step: an ensemble, its targets, its student, and all of them measured.

<output>/members/member_<k>/   the networks of the ensemble; the first one is also the baseline
<output>/targets/              the ensemble's targets for the training images; one store for each kind of student
<output>/<student>/            a student
<output>/fit/<name>/           calibrators of each predictor
<output>/rows/<name>/          what each predictor was measured to be, its curves, and pictures
<output>/sparsification.png    the curves of all rows
<output>/report.html           one page of all rows

A step that an earlier run finished is not repeated, and one that was interrupted goes on.
"""

import copy
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from mmengine.config import Config, ConfigDict
from mmengine.dist import is_main_process

from uncertainty_core.catalog import in_order
from uncertainty_core.cli import echo
from uncertainty_core.io.claims import check_claims, claim, holds
from uncertainty_core.io.files import write_png, write_text
from uncertainty_core.io.images import images_in
from uncertainty_core.io.room import check_room
from uncertainty_core.plots import sparsification_plot
from uncertainty_core.report.find import Run, find_runs
from uncertainty_core.report.markdown import markdown_table
from uncertainty_core.report.page import build_page
from uncertainty_core.roles import BASELINE, TEACHER, calibrated_name, drawn_at_first, student_name

from ..cli import ConfigError, unwrapped
from ..data.unlabelled import unlabelled_images
from ..models.consensus import FIELDS, FROM_LABELS
from ..targets.codec import images_digest
from ..targets.contents import Contents, outputs_of
from ..targets.generate import generate_targets
from .calibrators import fit_once, with_calibrator
from .claims import WAY_OUT, evaluation_settings, training_settings
from .evaluation import evaluate, with_rival
from .members import member_claims, train_members
from .rehearsal import rehearse
from .training import train_once

_IN_MEMORY = 2**30  # bytes of all checkpoints, which hold the state of an optimizer, too


def in_folder(cfg: Config, folder: Path) -> Config:
    """A copy of `cfg` that works in `folder`."""
    cfg = cfg.copy()
    cfg.work_dir = str(folder)
    return cfg


class Ensemble(NamedTuple):
    """members: how many; folds: of which each leaves one out, 0 for members that see all images."""

    members: int
    folds: int = 0


def ensemble_config(member: Config, checkpoints: Sequence[Path], out_of_fold: bool = False) -> Config:
    """The config of the ensemble of members that are trained already; small ones stay in memory together."""
    cfg = member.copy()
    cfg.model = ConfigDict(
        type="DeepEnsembleSegmentor", segmentor=member.model, checkpoints=[str(path) for path in checkpoints]
    )
    if sum(path.stat().st_size for path in checkpoints) <= _IN_MEMORY:
        cfg.model.resident = True  # reading a member for every image takes longer than a small network's pass
    if out_of_fold:
        cfg.model.out_of_fold = True
    return cfg


def with_store(student: Config, store: Path) -> Config:
    """A copy of a student's config that reads its targets from `store`."""
    cfg = student.copy()
    cfg.train_dataloader = copy.deepcopy(cfg.train_dataloader)  # which copies of a config share
    pipeline = unwrapped(cfg.train_dataloader.dataset).get("pipeline", ())
    loads = [transform for transform in pipeline if transform["type"] == "LoadUncertaintyTarget"]
    if len(loads) != 1:
        raise ConfigError("a student's training pipeline needs one LoadUncertaintyTarget to read stored targets")
    loads[0]["store"] = str(store)
    return cfg


def store_of(student: Config, output: Path) -> Path:
    """Where the targets of a student are."""
    return output / Contents.for_student(student.model).name


def num_steps(students: Mapping[str, Config], num_members: int, num_calibrators: int) -> int:
    """How many steps `distil` and `compare` announce."""
    stores, predictors = {Contents.for_student(student.model) for student in students.values()}, 2 + len(students)
    calibrated = predictors * (1 + num_calibrators) if num_calibrators else 0
    return num_members + len(stores) + len(students) + predictors + calibrated


def _check(member: Config, students: Mapping[str, Config], ensemble: Ensemble, output: Path, overwrite: bool) -> None:
    """Refuse what cannot work, and folders that other settings have made. Arguments as `distil`."""
    stores = {}
    needed = ensemble.members * rehearse(member).checkpoint
    for student in students.values():
        check_evaluators(student)
        needs = rehearse(with_store(student, store_of(student, output)))
        needed += needs.checkpoint
        stores[store_of(student, output)] = needs.targets
    check_room(output, needed + sum(stores.values()), written="*")
    claims = member_claims(in_folder(member, output / "members"), range(ensemble.members), ensemble.folds)
    for name, student in students.items():
        claims[store_of(student, output)] = _store_settings(member, ensemble, student)
        claims[output / name] = _student_settings(member, ensemble, student)
    check_claims(claims, WAY_OUT, overwrite)


def _ensemble_settings(member: Config, ensemble: Ensemble) -> dict[str, Any]:
    settings = {"members": ensemble.members, "member": training_settings(member)}
    return settings | ({"folds": ensemble.folds} if ensemble.folds else {})


def _store_settings(member: Config, ensemble: Ensemble, student: Config) -> dict[str, Any]:
    contents = Contents.for_student(student.model).settings
    return _ensemble_settings(member, ensemble) | contents | _unlabelled_settings(student)


def _student_settings(member: Config, ensemble: Ensemble, student: Config) -> dict[str, Any]:
    return training_settings(student) | _ensemble_settings(member, ensemble) | _unlabelled_settings(student)


def _unlabelled_settings(student: Config) -> dict[str, Any]:
    """What tells the unlabelled images from others, wherever they are: their names, and the sizes of their files."""
    folder = unlabelled_images(student)
    if folder is None:
        return {}
    images = {name: str(path) for name, path in images_in(Path(folder)).items()}
    return {"unlabelled_images": f"{len(images)} images, {images_digest(images)}"}


def distil(
    member: Config,
    students: Mapping[str, Config],
    ensemble: Ensemble,
    output: Path,
    step: Callable[[str], None] = echo,
    overwrite: bool = False,
) -> tuple[Config, dict[str, Path]]:
    """Train members and students; returns the ensemble's config, and the students' checkpoints.

    Args:
        member: config of a network of the ensemble.
        students: configs of its students by name.
        ensemble: how many members, and what they leave out.
        output: gets all of it.
        step: announces each step.
        overwrite: start over what other settings have made, instead of refusing it before any training.
    """
    _check(member, students, ensemble, output, overwrite)
    of_members = in_folder(member, output / "members")
    checkpoints = train_members(of_members, range(ensemble.members), step, ensemble.folds)
    teacher = ensemble_config(member, checkpoints, out_of_fold=ensemble.folds > 0)
    for store, student in {store_of(student, output): student for student in students.values()}.items():
        step(f"{store.name}: uncertainty of the ensemble on the training images")
        claim(store, _store_settings(member, ensemble, student))
        shown = teacher.copy()
        shown.train_dataloader = student.train_dataloader  # which may have images that members do not learn from
        generate_targets(shown, str(store), contents=Contents.for_student(student.model))
    trained = {}
    for name, student in students.items():
        cfg = in_folder(with_store(student, store_of(student, output)), output / name)
        trained[name] = train_once(cfg, step, _student_settings(member, ensemble, student))
    return teacher, trained


def compare(
    member: Config,
    teacher: Config,
    students: Mapping[str, Config],
    trained: Mapping[str, Path],
    output: Path,
    calibrators: Sequence[str] = (),
    fit_on: str = "val",
    step: Callable[[str], None] = echo,
    overwrite: bool = False,
) -> list[Run]:
    """Measure the first member as the baseline, the ensemble, and the students; returns their rows, rivals included.

    They are named and ordered as on the page.

    A row that was measured before with these settings is not measured again, unless `overwrite`.
    All are measured by the test evaluators of the first student, the baseline by those that need no uncertainty map.

    Args:
        member, students, output, step, overwrite: as `distil`.
        teacher, trained: what `distil` returned.
        calibrators: methods; each predictor is measured without any, and with each of them.
        fit_on: "val" or "train", whose images they are fitted to, see `fit_once`.
    """
    evaluators = with_rival(next(iter(students.values())).test_evaluator)
    asked = {name for student in students.values() for name in outputs_of(student.model)}
    if others := [name for name in FIELDS if name in asked and name not in ("std", *FROM_LABELS)]:
        teacher = teacher.copy()
        teacher.model = ConfigDict(teacher.model, outputs=["std", *others])
    # folder -> name, config and weights
    predictors = {
        "baseline": (BASELINE.name, member, teacher.model.checkpoints[0]),
        "teacher": (TEACHER.name, teacher, None),
    }
    predictors |= {name: (student_name(name), cfg, str(trained[name])) for name, cfg in students.items()}
    rows = []
    for folder, (name, cfg, checkpoint) in predictors.items():
        plain = cfg.copy()
        plain.test_evaluator = [e for e in evaluators if name != BASELINE.name or not needs_map(e)]
        shown = in_folder(plain, output / "rows" / folder)
        if name != BASELINE.name:
            shown.custom_hooks = [*cfg.get("custom_hooks", ()), _PICTURES]
        rows.append(_measure(shown, checkpoint, name, step, overwrite))
        if not calibrators:
            continue
        fitted = fit_once(plain, checkpoint, calibrators, fit_on, output / "fit" / folder, step, overwrite)
        for method, paths in fitted.items():
            calibrated = in_folder(with_calibrator(plain, paths), output / "rows" / f"{folder}+{method}")
            rows.append(_measure(calibrated, checkpoint, calibrated_name(name, method), step, overwrite))
    return find_runs(rows)


def _measure(cfg: Config, checkpoint: str | None, name: str, step: Callable[[str], None], overwrite: bool) -> Path:
    """`evaluate`, unless the row's folder holds the same evaluation, whose claim is written when it is finished."""
    folder, settings = Path(cfg.work_dir), evaluation_settings(cfg, checkpoint)
    shown = folder.name.replace("+", " + ")
    if not overwrite and holds(folder, settings) and (folder / "run.json").is_file():
        step(f"{shown}: measured before")
        return folder
    shutil.rmtree(folder, ignore_errors=True)
    step(f"measure {shown} on the test images")
    evaluate(cfg, checkpoint, name)
    if is_main_process():
        claim(folder, settings)
    return folder


def needs_map(evaluator: Mapping[str, str]) -> bool:
    """Whether an evaluator of a config measures the uncertainty map, which a baseline has not."""
    kind, ranked_by = evaluator["type"], evaluator.get("uncertainty", "predicted")
    return kind == "UncertaintyMetric" or (kind == "SparsificationMetric" and ranked_by.startswith("predicted"))


def check_evaluators(student: Config) -> None:
    """Raise ConfigError unless the test evaluators of a student measure what the comparison shows."""
    found = {e["type"] for e in student.test_evaluator} if isinstance(student.test_evaluator, list) else set()
    missing = {"SegCalibrationMetric", "SparsificationMetric", "UncertaintyMetric"} - found
    if missing:
        raise ConfigError(f"test_evaluator of the student must be a list with {', '.join(sorted(missing))}, too")


_PICTURES = {"type": "UncertaintyVisualizationHook", "interval": 10, "limit": 6}


def classes_text(runs: Sequence[Run], student: str) -> str:
    """Tables 1 and 2 of DUDES: IoU and uncertainty of each class, of teacher and student, and their differences.

    Args:
        runs: of all rows.
        student: the name of its configuration.
    """
    by_name = {run.record.name: run.record.per_class for run in runs}
    columns = in_order(by_name[TEACHER.name])
    header = ["class", *(f"{found.head}, {who}" for found in columns for who in ("teacher", "student", "difference"))]
    rows = []
    for name in by_name[TEACHER.name]["IoU"]:
        row = [name]
        for found in columns:
            theirs, ours = (by_name[who][found.key][name] for who in (TEACHER.name, student_name(student)))
            row += [found.text(value) for value in (theirs, ours, ours - theirs)]
        rows.append(row)
    return markdown_table(header, rows)


def draw_sparsification(runs: Sequence[Run], output: Path) -> Path:
    """Figure 4 of DUDES, in the order and the colours of the report, of the rows that its charts begin with."""
    curves = {run.name: run.record.curves["sparsification"] for run in runs if run.record.curves}
    curves = {name: curves[name] for name in drawn_at_first(curves)}
    removed = next(iter(curves.values())).x
    figure = sparsification_plot(removed, {name: torch.tensor(curve.y) for name, curve in curves.items()})
    path = output / "sparsification.png"
    write_png(path, figure)
    return path


def write_report(runs: Sequence[Run], output: Path) -> Path:
    """One page of all that was measured."""
    path = output / "report.html"
    write_text(path, build_page(runs, f"Uncertainty distilled: {output.name}"))
    return path

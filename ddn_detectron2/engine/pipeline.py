"""The whole way, step by step: a trained detector, its targets, its student, and both of them measured.

<output>/baseline/          the detector to distil, where it is trained here
<output>/<student>/         a student
<output>/<student>-targets/ what it learns from, where that is stored
<output>/rows/<name>/       each predictor's detections, calibration and diagrams; a student's pictures
<output>/comparison.json    the table of all rows; reliability.png: their curves; report.html: one page of it all

A step that an earlier run finished is not repeated, and one that was interrupted goes on. Each function announces its
steps by calling `step` with a title.
"""

import json
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from detectron2.config import CfgNode
from detectron2.data import MetadataCatalog
from detectron2.utils import comm
from detectron2.utils.env import seed_all_rng

from uncertainty_core.catalog import FORMAT
from uncertainty_core.cli import silent
from uncertainty_core.detection import (
    DetectionEvaluation,
    Settings,
    at_equal_count,
    evaluate,
    match_images,
    read_detections,
    read_ground_truth,
)
from uncertainty_core.detection.evaluation import with_box_factor
from uncertainty_core.detection.report import calibration_at, measured, write_report
from uncertainty_core.detection.settings import IOU_THRESHOLD
from uncertainty_core.io.claims import FILE, check_claim, check_claims, claim, claimed, holds
from uncertainty_core.io.files import write_png, write_text
from uncertainty_core.io.records import build
from uncertainty_core.io.strict_json import strict_json
from uncertainty_core.plots import reliability_diagram
from uncertainty_core.recalibration import Recipe, apply_to_results, fit_to_boxes, fit_to_detections, load, save
from uncertainty_core.recalibration.recipes import FILE as CALIBRATOR
from uncertainty_core.report.detectors import images_of, run_record
from uncertainty_core.report.find import Run, find_runs
from uncertainty_core.report.page import build_page
from uncertainty_core.report.run_record import FILE as RECORD
from uncertainty_core.report.run_record import Picture, Provenance, Training
from uncertainty_core.roles import (
    BASELINE,
    calibrated_name,
    drawn_at_first,
    ensemble_name,
    order,
    passes_name,
    short_names,
    student_name,
)

from ..evaluation.calibration_evaluator import RESULTS, COCOCalibrationEvaluator, json_file
from ..evaluation.records import provenance
from ..evaluation.visualizer import draw_changes
from ..teaching.store import decisive_settings, generate_targets
from .claims import WAY_OUT, evaluation_settings, files_of, training_settings
from .rehearsal import rehearse
from .trainer import DDNTrainer, build_network, build_with_teacher, load_detector, training_dicts

BOX_CALIBRATOR = "box_calibrator.json"  # in the folder of a row
Step = Callable[[str], None]


@dataclass(frozen=True)
class Row:
    """A predictor of the comparison.

    folder: of its files.
    passes: of the box head, for one image.
    evaluation: of all that counts.
    provenance: of the evaluation.
    training: of its weights, if that is known.
    equal_count: calibration of its best n detections, n being the number of the row with the fewest.
    """

    folder: Path
    passes: int
    evaluation: DetectionEvaluation
    provenance: Provenance
    training: Training | None
    equal_count: Mapping[str, float] = field(default_factory=dict)


def with_settings(cfg: CfgNode, **values: object) -> CfgNode:
    """A frozen copy of `cfg` with other values; "A__B" stands for the key "A.B"."""
    cfg = cfg.clone()
    cfg.defrost()
    cfg.merge_from_list([item for key, value in values.items() for item in (key.replace("__", "."), value)])
    cfg.freeze()
    return cfg


def num_steps(students: Mapping[str, CfgNode], trains_baseline: bool, num_calibrators: int) -> int:
    """How many steps `train`, `distil` and `compare` announce."""
    stored = sum(cfg.MODEL.DDN.TARGETS.SOURCE == "store" for cfg in students.values())
    ensemble = any(cfg.MODEL.DDN.TEACHER.WEIGHTS for cfg in students.values())
    predictors = 2 + ensemble + len(students)
    calibrated = predictors * (1 + num_calibrators) if num_calibrators else 0
    return trains_baseline + stored + len(students) + predictors + calibrated


def store_of(cfg: CfgNode, folder: Path) -> Path:
    """Where the stored targets of the student in `folder` are: beside it, unless the config names a place."""
    return Path(cfg.MODEL.DDN.TARGETS.STORE or folder.with_name(f"{folder.name}-targets"))


def with_store(cfg: CfgNode, folder: Path) -> CfgNode:
    """The config of the student in `folder` with the place of its stored targets, if it learns from such."""
    if cfg.MODEL.DDN.TARGETS.SOURCE != "store":
        return cfg
    return with_settings(cfg, MODEL__DDN__TARGETS__STORE=str(store_of(cfg, folder)))


def check(baseline: CfgNode | None, students: Mapping[str, CfgNode], output: Path, overwrite: bool = False) -> None:
    """Before any work: refuse folders in `output` that other settings have made, and what cannot be built.

    Args:
        baseline: config of the detector to distil, if it is trained here.
        students: configs by name.
        output: gets all folders.
        overwrite: remove those folders instead, and all evaluations.
    """
    claims: dict[Path, dict[str, Any]] = {}
    origin = None if baseline is None else training_settings(baseline)
    if baseline is not None:
        claims[output / "baseline"] = origin
    for name, cfg in students.items():
        claims[output / name] = training_settings(cfg, origin)
        if cfg.MODEL.DDN.TARGETS.SOURCE == "store":
            claims[store_of(cfg, output / name)] = _store_settings(cfg, origin)
    check_claims(claims, WAY_OUT, overwrite)
    for evaluations in (output / "rows", output / "fit") if overwrite else ():
        shutil.rmtree(evaluations, ignore_errors=True)
    rehearse(baseline, {name: with_store(cfg, output / name) for name, cfg in students.items()}, output)


def _store_settings(cfg: CfgNode, origin: Mapping[str, Any] | None) -> dict[str, Any]:
    return decisive_settings(cfg) | files_of(cfg, origin)


def train(cfg: CfgNode, folder: Path, step: Step = silent, origin: Mapping[str, Any] | None = None) -> str:
    """Train what `cfg` describes, unless `folder` holds it already; returns the path of the final weights.

    A folder that other settings have trained in is refused.

    Args:
        cfg: of the training.
        folder: gets checkpoints and logs.
        step: announces it.
        origin: settings of the training that made `MODEL.WEIGHTS`, if that was a step of this pipeline.
    """
    settings = training_settings(cfg, origin)
    check_claim(folder, settings, WAY_OUT)
    final = folder / "model_final.pth"
    marker = folder / "last_checkpoint"  # written after the file that it names
    if marker.exists() and marker.read_text().strip() == final.name:
        step(f"{folder.name}: trained before")
    else:
        step(f"{folder.name}: {cfg.SOLVER.MAX_ITER} iterations")
        if comm.is_main_process():
            claim(folder, settings)
        comm.synchronize()
        if cfg.SEED >= 0:  # whatever was drawn by the steps before, or was not because they were finished
            seed_all_rng(cfg.SEED + comm.get_rank())
        unmeasured = {"DATASETS__TEST": (), "TEST__EXPECTED_RESULTS": []}
        trainer = DDNTrainer(with_settings(cfg, OUTPUT_DIR=str(folder), **unmeasured))
        trainer.resume_or_load(resume=True)
        trainer.train()
    comm.synchronize()
    return str(final)


def distil(cfg: CfgNode, folder: Path, step: Step = silent, origin: Mapping[str, Any] | None = None) -> str:
    """Train a student of the detector in `MODEL.WEIGHTS` in `folder`; returns its weights' path.

    Where the config has `TARGETS.SOURCE` "store", the store is written first. Arguments as `train`.
    """
    if cfg.MODEL.DDN.TARGETS.SOURCE == "store":
        store, cfg = store_of(cfg, folder), with_store(cfg, folder)
        images = training_dicts(cfg)
        step(f"{folder.name}: targets of {len(images)} images")
        model = build_with_teacher(cfg, build_network(cfg))
        if comm.is_main_process():
            claim(store, _store_settings(cfg, origin))
        generate_targets(cfg, model, images)
        comm.synchronize()
    return train(cfg, folder, step, origin)


def measure(cfg: CfgNode, weights: str, folder: Path) -> DetectionEvaluation:
    """Run the detector with `weights` over `DATASETS.TEST`; detections, numbers and pictures go into `folder`."""
    (dataset,) = cfg.DATASETS.TEST
    model = build_network(cfg)
    load_detector(cfg, model, weights)
    evaluator = COCOCalibrationEvaluator(dataset, output_dir=folder)
    DDNTrainer.test(cfg, model, [evaluator])
    return evaluator.evaluation


def measured_again(dataset: str, folder: Path) -> DetectionEvaluation:
    """What `measure` found, from the detections in `folder`."""
    settings, ground_truth = Settings(), read_ground_truth(json_file(dataset))
    matched = match_images(ground_truth, read_detections(folder / RESULTS, ground_truth), settings)
    return evaluate(ground_truth, matched, settings)


def calibrated(
    dataset: str, detections: Path, fit_on: str, held_out: Path, recipe: Recipe, folder: Path
) -> DetectionEvaluation:
    """The same detections with calibrated scores, measured like the others; the calibrator goes into `folder`, too.

    Args:
        dataset: that the detections are of.
        detections: COCO results.
        fit_on: data set that the calibrator is fitted to.
        held_out: the predictor's COCO results for it.
        recipe: of the calibrator.
        folder: of the row.
    """
    folder.mkdir(parents=True, exist_ok=True)
    ground_truth = read_ground_truth(json_file(fit_on))
    calibrator = fit_to_detections(ground_truth, read_detections(held_out, ground_truth), recipe)
    save(calibrator, folder / CALIBRATOR)
    write_text(folder / RESULTS, json.dumps(apply_to_results(detections, calibrator, ground_truth.category_ids)))
    evaluation = measured_again(dataset, folder)
    write_report(evaluation, folder)
    return evaluation


def with_conformal_boxes(
    evaluation: DetectionEvaluation, held_out: DetectionEvaluation, folder: Path
) -> DetectionEvaluation:
    """What intervals of boxes cover with a factor that is fitted to the same detector on `held_out` images.

    The factor goes into `folder`. Nothing changes without deviations, or with too few boxes to fit to.
    """
    (folder / BOX_CALIBRATOR).unlink(missing_ok=True)
    if evaluation.box_std is None:
        return evaluation
    try:
        calibrator = fit_to_boxes(held_out.ground_truth, held_out.matched.detections)
    except ValueError:
        return evaluation
    save(calibrator, folder / BOX_CALIBRATOR)
    return with_box_factor(evaluation, calibrator.factor)


def measured_once(
    cfg: CfgNode, weights: str, name: str, folder: Path, step: Step = silent
) -> tuple[DetectionEvaluation, Provenance]:
    """`measure`, unless `folder` holds what an earlier run found with the same settings and files.

    Args:
        cfg: of the detector, with one data set in `DATASETS.TEST`.
        weights: a path.
        name: of the predictor.
        folder: of the row.
        step: announces it.
    """
    (dataset,) = cfg.DATASETS.TEST
    decisive = evaluation_settings(cfg, weights)
    measured_before = claimed(folder).get("provenance")
    if measured_before and holds(folder, decisive) and (folder / RESULTS).is_file():
        step(f"{name} on {dataset}: measured before")
        return measured_again(dataset, folder), build(Provenance, measured_before)
    step(f"measure {name} on {dataset}")
    comm.synchronize()  # the others have looked for the claim
    if comm.is_main_process():
        (folder / FILE).unlink(missing_ok=True)  # it comes last, and is the sign that all is there
    start = time.perf_counter()
    evaluation = measure(cfg, weights, folder)
    if comm.is_main_process():
        found = provenance(evaluation, dataset, cfg.SEED, time.perf_counter() - start)
        claim(folder, decisive, provenance=asdict(found))
    comm.synchronize()
    # the main process alone has gathered the detections
    return evaluation or measured_again(dataset, folder), build(Provenance, claimed(folder)["provenance"])


def compare(
    cfg: CfgNode,
    students: Mapping[str, str],
    output: Path,
    fit_on: str | None,
    calibrators: Sequence[Recipe],
    num_pictures: int,
    step: Step = silent,
) -> dict[str, Row]:
    """Measure baseline, teachers and students on `DATASETS.TEST`, plain and with calibrators.

    Teachers are Monte-Carlo dropout, and the ensemble in `TEACHER.WEIGHTS` if there is one.

    Returns the rows by name, in the order of the page.

    Args:
        cfg: of any of the students, one with an ensemble if there is such; the baseline is in `MODEL.WEIGHTS`.
        students: paths of weights by name.
        output: gets a folder for each row.
        fit_on: data set for the calibrators, which must not be the one that is reported.
        calibrators: what is fitted to each predictor's detections of it, if anything.
        num_pictures: of each student, of the images whose scores changed most.
        step: announces each step.
    """
    (dataset,) = cfg.DATASETS.TEST
    passes, weights, rows = cfg.MODEL.DDN.TARGETS.MC_SAMPLES, cfg.MODEL.WEIGHTS, output / "rows"
    sampled = with_settings(cfg, MODEL__DDN__TEST__MC_SAMPLES=passes)
    # name -> its folder, config, weights and passes
    predictors = {
        BASELINE.name: ("baseline", cfg, weights, 1),
        passes_name(passes): (f"MC-{passes}", sampled, weights, passes),
    }
    members = cfg.MODEL.DDN.TEACHER.WEIGHTS
    if members:
        ensemble = with_settings(cfg, MODEL__DDN__TEST__ENSEMBLE=True)
        predictors[ensemble_name(len(members))] = ("ensemble", ensemble, weights, len(members))
    predictors |= {student_name(name): (name, cfg, path, 1) for name, path in students.items()}
    short = short_names(predictors)
    table: dict[str, Row] = {}
    for name, (place, detector, path, count) in predictors.items():
        folder, training = rows / place, Training.of(Path(members[0] if place == "ensemble" else path).parent)
        evaluation, measuring = measured_once(detector, path, short[name], folder, step)
        row = table[name] = Row(folder, count, evaluation, measuring, training)
        if not calibrators:
            continue
        held_out, fit_folder = with_settings(detector, DATASETS__TEST=(fit_on,)), output / "fit" / place
        fitted, _ = measured_once(held_out, path, short[name], fit_folder, step)
        table[name] = replace(row, evaluation=with_conformal_boxes(evaluation, fitted, folder))
        for recipe in calibrators:
            step(
                f"{calibrated_name(short[name], recipe.name)}: fitted to "
                f"n = {calibration_at(fitted).metrics['n']:.0f} detections of {fit_on}"
            )
            files = folder / RESULTS, fit_on, fit_folder / RESULTS
            start, fitted_folder = time.perf_counter(), rows / f"{place}+{recipe.name}"
            evaluation = calibrated(dataset, *files, recipe, fitted_folder)
            calibrating = provenance(evaluation, dataset, cfg.SEED, time.perf_counter() - start)
            table[calibrated_name(name, recipe.name)] = Row(fitted_folder, count, evaluation, calibrating, training)
    compared = at_equal_count([row.evaluation for row in table.values()], IOU_THRESHOLD)
    table = {
        name: replace(row, equal_count=at.metrics) for (name, row), at in zip(table.items(), compared, strict=True)
    }
    if comm.is_main_process():
        for path in rows.glob(f"*+*/{RECORD}"):  # of an earlier run with other calibrators
            path.unlink()
        for name, row in table.items():
            drawn = draw(dataset, rows / "baseline", row.folder, num_pictures) if row.folder.name in students else ()
            record = run_record(name, row.passes, row.evaluation, row.provenance, drawn)
            record = replace(record, equal_count=dict(row.equal_count), training=row.training)
            record.write(row.folder, images_of(row.evaluation))
    comm.synchronize()
    short = short_names(table)
    return {short[name]: table[name] for name in sorted(table, key=lambda name: order(name, table[name].passes))}


def draw(dataset: str, baseline: Path, student: Path, num_pictures: int) -> list[Picture]:
    """Draw the images whose scores changed most from the row `baseline` to the row `student`, into its pictures/."""
    root = Path(MetadataCatalog.get(dataset).image_root)
    truth, detections = Path(json_file(dataset)), (baseline / RESULTS, student / RESULTS)
    factor = student / BOX_CALIBRATOR
    box_calibrator = load(factor) if factor.is_file() else None
    drawn = draw_changes(truth, root, *detections, student / "pictures", num_pictures, box_calibrator=box_calibrator)
    colours = "Blue: detections that overlap an object of their class; orange: the others."
    if box_calibrator is not None:
        colours += " Thin lines: each side of the box lies between them with a probability of 90 %."
    return [Picture(path.relative_to(student).as_posix(), f"{title}. {colours}") for path, title in drawn.items()]


def metrics_by_row(rows: Mapping[str, Row]) -> dict[str, dict[str, float]]:
    """Every metric of each row, and its passes; AP and AR in percent, calibration in plain values."""
    return {name: {"passes": row.passes} | measured(row.evaluation) for name, row in rows.items()}


def write_comparison(rows: Mapping[str, Row], output: Path) -> list[Run]:
    """comparison.json, reliability.png, and report.html, of these rows alone; returns their records."""
    content = {"format": FORMAT, "iou_threshold": IOU_THRESHOLD, "rows": metrics_by_row(rows)}
    content["equal_count"] = {name: row.equal_count for name, row in rows.items()}
    write_text(output / "comparison.json", strict_json(content))
    results = {name: calibration_at(rows[name].evaluation).result for name in drawn_at_first(rows)}
    figure = reliability_diagram(results, "msce", f"true positives: IoU >= {IOU_THRESHOLD:g}")
    write_png(output / "reliability.png", figure)
    runs = find_runs(row.folder for row in rows.values())
    write_text(output / "report.html", build_page(runs, f"Confidence distilled: {output.name}"))
    return runs

"""The one command: train, store targets, distil, compare; and again after a crash."""

import json
import re

import pytest
import torch
from detectron2.engine import DefaultTrainer
from detectron2.utils import comm
from forked_tools import KILLED, die_at_call, run, run_tool, tool
from tiny_detectors import write_small_config
from two_ranks import in_two_ranks

from ddn_detectron2.cli import read_config
from ddn_detectron2.data import register_scenes, write_scenes
from ddn_detectron2.engine.pipeline import check, compare, with_settings
from ddn_detectron2.engine.trainer import build_network
from uncertainty_core.intervals.storage import read_images
from uncertainty_core.recalibration import load
from uncertainty_core.report.find import find_runs
from uncertainty_core.report.page import build_page
from uncertainty_core.report.run_record import RunRecord


@pytest.fixture
def command(tmp_path, monkeypatch):
    """The command line, on six scenes of each split."""
    for split in ("train", "val", "test"):
        write_scenes(tmp_path / "sets" / "scenes", split, num_images=6, progress=False)
    monkeypatch.setattr("ddn_detectron2.data.scenes.NUM_IMAGES", dict.fromkeys(("train", "val", "test"), 6))
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path / "sets"))
    baseline, student = (
        write_small_config(tmp_path, kind, "scenes_train", "scenes_test") for kind in ("baseline", "ddn")
    )
    more = tmp_path / "stored.yaml"
    more.write_text(f"_BASE_: {student}\nMODEL: {{DDN: {{TARGETS: {{SOURCE: store, AVERAGE: probs}}}}}}\n")
    flags = ["--config-file", student, "--baseline-config", baseline, "--also", more]
    for split in ("val", "test"):
        flags += [f"--{split}-json", tmp_path / "sets" / "scenes" / f"instances_{split}.json"]
        flags += [f"--{split}-images", tmp_path / "sets" / "scenes" / split]
    return [
        *flags,
        "OUTPUT_DIR",
        tmp_path / "output",
        "MODEL.ROI_HEADS.SCORE_THRESH_TEST",
        "0.01",
    ]


def test_compares_all_rows(command, tmp_path):
    def killed():
        die_at_call(DefaultTrainer, "run_step", 6)  # the second step of the first student
        tool("distill_detector", *command)

    assert run(killed, folder=tmp_path).code == KILLED
    assert not (tmp_path / "output" / "comparison.json").exists()
    baseline = (tmp_path / "output" / "baseline" / "model_final.pth").stat().st_mtime_ns
    done = run_tool("distill_detector", *command, folder=tmp_path)
    assert done.code == 0, done.err
    assert (tmp_path / "output" / "baseline" / "model_final.pth").stat().st_mtime_ns == baseline
    comparison = json.loads((tmp_path / "output" / "comparison.json").read_text())
    rows, compared = comparison["rows"], comparison["equal_count"]
    plain, kinds = (
        ("baseline", "student (ddn)", "student (stored)", "MC-10"),
        ("class-wise-isotonic-iou", "temperature"),
    )
    assert list(rows) == [row for name in plain for row in (name, *(f"{name} + {kind}" for kind in kinds))]
    # the report has the same order, and hence the same colours
    assert [run.name for run in find_runs([tmp_path / "output" / "rows"])] == list(rows)
    assert rows["MC-10"]["passes"] == 10
    for name in plain:
        # temperature scaling keeps the order of detections
        assert rows[f"{name} + temperature"]["AP"] == pytest.approx(rows[name]["AP"], nan_ok=True)
        assert {rows[f"{name} + {kind}"]["n"] for kind in kinds} == {rows[name]["n"]}
    assert {row["n"] for row in compared.values()} == {min(row["n"] for row in rows.values())}
    assert all(name in done.out for name in rows)
    # the free rivals are there without asking, fitted to the validation images
    assert "] student (ddn) + temperature: fitted to n = " in done.out and "detections of custom_val" in done.out
    assert "[20/20]" in done.out
    folders = {name: re.sub(r"student \((\w+)\)", r"\1", name).replace(" ", "") for name in rows}
    fitted = load(tmp_path / "output" / "rows" / "ddn+class-wise-isotonic-iou" / "calibrator.json")
    assert fitted.num_classes == 6
    records = {name: RunRecord.read(tmp_path / "output" / "rows" / folder) for name, folder in folders.items()}
    assert {name: record.metrics["AP"] for name, record in records.items()} == pytest.approx(
        {name: row["AP"] for name, row in rows.items()}, nan_ok=True
    )
    assert records["MC-10"].passes == 10 and "box_crps" in records["MC-10"].metrics
    # fitted where the validation images have enough true positives
    factor = tmp_path / "output" / "rows" / "MC-10" / "box_calibrator.json"
    assert factor.is_file() == ("coverage90_conformal" in records["MC-10"].metrics)
    for name, folder in folders.items():
        images = read_images(tmp_path / "output" / "rows" / folder)
        once = {key: value.item() for key, value in images.metrics(torch.ones(len(images.ids), 1)).items()}
        assert once == pytest.approx({key: records[name].metrics[key] for key in once}, abs=1e-5, nan_ok=True)
    assert {name: record.equal_count["n"] for name, record in records.items()} == {
        name: row["n"] for name, row in compared.items()
    }
    for name in ("ddn", "stored"):
        record = records[f"student ({name})"]
        assert record.pictures[0].caption.startswith("1. ")
        assert record.provenance.data.name == "scenes/instances_test"
        assert record.training.command == record.provenance.command
        assert record.training.settings["MODEL.DDN.TARGETS.SOURCE"] == ("store" if name == "stored" else "online")
    for picture in ("reliability.png", "rows/ddn/pictures/index.png"):
        assert (tmp_path / "output" / picture).stat().st_size > 5_000

    # a second run repeats nothing, ends the same, and has no rows but its own
    before = (tmp_path / "output" / "ddn" / "model_final.pth").stat().st_mtime_ns
    found = {path: path.stat().st_mtime_ns for path in (tmp_path / "output").rglob("coco_instances_results.json")}
    again = run_tool("distill_detector", *command[:-4], "--calibrators", "platt", *command[-4:], folder=tmp_path)
    assert again.code == 0, again.err
    assert again.out.count("trained before") == 3 and again.out.count("measured before") == 8
    page, stale = (tmp_path / "output" / "report.html").read_text(), "baseline + temperature"
    assert "baseline + platt" in page and stale not in page
    assert stale not in build_page(find_runs([tmp_path / "output" / "rows"]), "all")
    # what made a row is what made its weights and its detections, not what compared them last
    for name in plain:
        record = RunRecord.read(tmp_path / "output" / "rows" / folders[name])
        assert (record.provenance, record.training) == (records[name].provenance, records[name].training)
        assert "--calibrators" not in record.provenance.command
    found = {
        path: then for path, then in found.items() if "+" not in path.parent.name
    }  # the others are calibrated anew
    assert all(path.stat().st_mtime_ns == then for path, then in found.items()) and len(found) == 8
    compared = json.loads((tmp_path / "output" / "comparison.json").read_text())["rows"]
    assert {name: compared[name] for name in plain} == {name: rows[name] for name in plain}
    assert (tmp_path / "output" / "ddn" / "model_final.pth").stat().st_mtime_ns == before
    assert (tmp_path / "output" / "report.html").read_text().count("<svg") >= 2

    # one with other settings is refused before any work, wherever they matter first
    weights = {path: path.stat().st_mtime_ns for path in (tmp_path / "output").rglob("*.pth")}
    for key, value, folder in (
        ("SOLVER.BASE_LR", 0.5, "ddn"),
        ("MODEL.DDN.DROPOUT.RATE", 0.4, "ddn"),
    ):
        refused = run_tool("distill_detector", *command, key, value, folder=tmp_path)
        assert refused.code == 2
        assert f"output/{folder} holds the work of other settings: {key} (there " in refused.err
        assert f"now {value})" in refused.err and "--overwrite" in refused.err
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "output").rglob("*.pth")} == weights


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--fit-on", "custom_test"], "DATASETS.TEST must name one data set"),
        (["--fit-on", "custom_vall"], "custom_vall is not registered; did you mean custom_val;"),
        (["--fit-on", "coco_2017_val"], "coco_2017_val is not on disk"),
        (["--also", "quick/baseline_small.yaml"], "a config describes a plain detector"),
        (["--config-file", "quick/none.yaml"], "is neither a file"),
    ],
)
def test_bad_command_lines_end_in_one_sentence(command, options, sentence, tmp_path):
    split = command.index("OUTPUT_DIR")
    done = run_tool("distill_detector", *command[:split], *options, *command[split:], folder=tmp_path)
    assert done.code == 2
    (line,) = [line for line in done.err.splitlines() if line.startswith("error: ")]
    assert sentence in line


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (
            ["MODEL.ROI_BOX_HEAD.FC_DIM", 32],
            "ddn is not the network of the baseline, roi_heads.box_head.fc1.bias is",
        ),
        (["SOLVER.MAX_ITER", 10**12], "MiB are free"),
    ],
)
def test_what_would_fail_later_is_found_before_the_training(command, options, sentence, tmp_path):
    refused = run_tool("distill_detector", *command, *options, folder=tmp_path)
    assert refused.code == 2 and sentence in refused.err
    assert not (tmp_path / "output" / "baseline").exists()


def compare_baseline(rank, config, folder):
    """The AP of each row that this rank has."""
    register_scenes()  # here, where no later test sees it
    cfg = with_settings(read_config(str(config)), MODEL__WEIGHTS=str(folder / "weights.pth"), SEED=0)
    if rank == 0:
        torch.save({"model": build_network(cfg).state_dict()}, cfg.MODEL.WEIGHTS)
    comm.synchronize()
    rows = compare(cfg, {}, folder / "output", None, [], 0)
    return {name: row.evaluation.precision["AP"] for name, row in rows.items()}


def test_several_processes_have_the_same_rows(tmp_path, monkeypatch):
    write_scenes(tmp_path / "sets" / "scenes", "test", num_images=3, progress=False)
    monkeypatch.setattr("ddn_detectron2.data.scenes.NUM_IMAGES", {"test": 3})
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path / "sets"))
    config = write_small_config(tmp_path, "ddn", "scenes_test", "scenes_test")
    (tmp_path / "meet").mkdir()
    first, second = in_two_ranks(compare_baseline, tmp_path / "meet", config, tmp_path)
    assert list(first) == ["baseline", "MC-10"]
    assert first == pytest.approx(second, nan_ok=True)


def test_overwrite_repeats_evaluations(tmp_path):
    for folder in ("rows/baseline", "fit"):
        (tmp_path / folder).mkdir(parents=True)
    check(None, {}, tmp_path)
    assert (tmp_path / "rows" / "baseline").exists()
    check(None, {}, tmp_path, overwrite=True)
    assert not list((tmp_path / "rows").glob("*")) and not (tmp_path / "fit").exists()

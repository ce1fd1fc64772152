"""The one command: train an ensemble, store targets, distil, compare; and again after a crash."""

import math
import re

import pytest
import torch
from forked_tools import COMPUTES, KILLED, die_at_call, run, run_tool, tool
from mmengine.runner import Runner
from PIL import Image
from tiny_segmentors import small_street_options, write_small_streets

from dudes_mmseg.engine.evaluation import with_rival
from dudes_mmseg.engine.pipeline import needs_map
from uncertainty_core import TargetStore
from uncertainty_core.intervals.storage import read_images
from uncertainty_core.recalibration import load
from uncertainty_core.report.run_record import RunRecord


@pytest.fixture
def command(tmp_path):
    """The command line, on three tiny streets of each split."""
    config = tmp_path / "student.py"
    member = tmp_path / "member.py"
    write_small_streets(member, "streets_member")
    write_small_streets(config, "streets_student")
    with config.open("a") as file:  # README's, which leave out the rival that is in the table all the same
        names = ("IoUMetric", "SegCalibrationMetric", "UncertaintyMetric", "SparsificationMetric")
        file.write(f"test_evaluator = {[{'type': name} for name in names]}\n")
        file.write("model = dict(uncertainty_head=dict(outputs=['std', 'entropy', 'error']))\n")
    (tmp_path / "photos").mkdir()
    Image.effect_noise((64, 32), 50).convert("RGB").save(tmp_path / "photos" / "unlabelled.jpg")
    flags = ["--member-config", member, "--members", 2, "--work-dir", "out", "--calibrators", "temperature"]
    flags += ["--unlabelled-images", "photos"]
    return [config, *flags, "--cfg-options", *small_street_options(2)]


def test_compares_all_rows(command, tmp_path):
    def killed():
        die_at_call(Runner, "save_checkpoint", 4)  # the second member's last
        tool("distill_segmentor", *command)

    assert run(killed, folder=tmp_path).code == KILLED
    finished = (tmp_path / "out" / "members" / "member_0" / "iter_2.pth").stat().st_mtime_ns
    done = run_tool("distill_segmentor", *command, folder=tmp_path)
    assert done.code == 0, done.err
    assert (tmp_path / "out" / "members" / "member_0" / "iter_2.pth").stat().st_mtime_ns == finished

    stored = TargetStore(tmp_path / "out" / "targets-entropy-top3")
    assert len(stored.ids) == 4 and stored.ids[-1] == "photos/unlabelled.jpg"

    rows = tmp_path / "out" / "rows"
    records = {path.parent.relative_to(rows).as_posix(): RunRecord.read(path.parent) for path in rows.rglob("run.json")}
    passes = {"baseline": 1, "teacher": 2, "teacher/rival_0": 2, "teacher/rival_1": 2}
    passes |= dict.fromkeys(("student", "student/rival_0", "student/rival_1", "student/rival_2"), 1)
    passes |= {
        name.replace("/", "+temperature/") if "/" in name else f"{name}+temperature": n for name, n in passes.items()
    }
    assert {name: record.passes for name, record in records.items()} == passes
    for name in ("baseline", "teacher", "student"):
        plain, calibrated = records[name], records[f"{name}+temperature"]
        assert load(tmp_path / "out" / "fit" / name / "temperature.json").temperature != 1
        assert calibrated.name == f"{plain.name} + temperature"
        assert calibrated.metrics["mIoU"] == plain.metrics["mIoU"]
        assert calibrated.metrics["ece"] != plain.metrics["ece"]
    described = {"rival_0": "entropy of its softmax", "rival_1": "output entropy", "rival_2": "output error"}
    for name, record in records.items():
        who, _, rival = name.replace("student", "student (student)", 1).replace("+", " + ").partition("/")
        assert record.name == (f"{who}, {described[rival]}" if rival else who)
    # the entropy of a teacher's mean is that of its softmax
    outputs = [records[f"teacher/rival_{number}"].metrics for number in range(2)]
    assert outputs[0]["ause"] == pytest.approx(outputs[1]["ause"], abs=1e-3)
    student, rival = records["student"], records["student/rival_0"]
    assert student.metrics["mIoU"] == pytest.approx(rival.metrics["mIoU"], abs=0.01)
    assert "mUnc" in student.metrics and "mUnc" not in rival.metrics
    # after two steps a student may say the same of all pixels, but two members differ
    assert records["teacher"].metrics["ause"] != records["teacher/rival_0"].metrics["ause"]
    assert set(student.per_class) == {"IoU", "uncertainty"}
    assert student.provenance.data.size == 3
    for name, record in records.items():
        images = read_images(rows / name)
        once = {key: value.item() for key, value in images.metrics(torch.ones(3, 1)).items()}
        assert {"mIoU", "ause", "error_auroc"} <= once.keys() and ("ece" in once) == ("rival" not in name)
        # pixels are ranked by coarser levels, which shows in the narrow range of an untrained network; T > 1 narrows it
        # and outputs that say nearly the same of all pixels so far
        if "+" not in name and "output" not in record.name:
            expected = {key: record.metrics.get(key, once[key]) for key in once}
            assert once == pytest.approx(expected, abs=0.1, nan_ok=True)
        assert record.intervals.keys() == {key for key in once.keys() & record.metrics if not math.isnan(once[key])}
    assert len(student.pictures) == 1
    assert (rows / "student" / student.pictures[0].path).exists()
    assert (tmp_path / "out" / "sparsification.png").stat().st_size > 5_000
    free = ", entropy of its softmax"
    names = ["baseline", "baseline + temperature"]
    for name, outputs in (("student", ["entropy", "error"]), ("teacher", ["entropy"])):
        calibrated, more = f"{name} + temperature", [f", output {output}" for output in outputs]
        # of a predictor in the order of their names
        names += [f"{name}{end}" for end in ("", free, *more)] + [f"{calibrated}{end}" for end in ("", free, *more)]
    assert re.findall(r"^\| (.*?) +\| \d ", done.out, re.MULTILINE) == names
    assert "\nstudent against baseline, both one pass: ECE " in done.out
    # what made the weights, and what measured them
    settings = records["student"].training.settings
    assert settings["optim_wrapper.optimizer.lr"] and settings["members"] == 2
    assert all(record.training.command == student.training.command for record in records.values())
    assert "| road " in done.out
    assert done.out.startswith(
        f"{COMPUTES}\n[1/13] member_0: trained before\n[2/13] member_1: 2 iterations\n[3/13] targets-entropy-top3: "
    )
    assert done.out.count("[12/13] calibrators of student: temperature, fitted to 3 val images\n") == 1
    assert done.out.count("[13/13] measure student + temperature on the test images\n") == 1
    assert len(done.out.splitlines()) < 70
    assert (done.err, (tmp_path / "out" / "log.txt").read_text().count("\r")) == ("log: out/log.txt\n", 0)
    page = (tmp_path / "out" / "report.html").read_text()
    assert all(name in page for name in names)
    assert "<p>student against baseline, both one pass: ECE " in page

    def again(*words):
        return run_tool("distill_segmentor", *command, *words, folder=tmp_path)

    # what was measured is not measured again, unless it was interrupted: then its folder has no settings.json
    def measured():
        return {path.parent.name: path.stat().st_mtime_ns for path in rows.glob("*/run.json")}

    finished = measured()
    (rows / "student" / "settings.json").unlink()
    done = again()
    assert done.out.count(": measured before\n") == 5 and done.out.count(": fitted before\n") == 3
    assert {name for name, time in measured().items() if time != finished[name]} == {"student"}

    # and all of it on demand, though nothing is trained again
    before = measured()
    done = again("--overwrite", "--calibrators", "")
    assert "measured before" not in done.out and done.out.count(": trained before\n") == 3
    assert all(time > before[name] for name, time in measured().items() if "+" not in name)
    # calibrated rows of an earlier run lie there, but not on the page
    page = (tmp_path / "out" / "report.html").read_text()
    assert "student+temperature" in before and "+ temperature" not in page and names[0] in page

    # other settings are refused before any work, wherever they matter first
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*.pth")}
    for words, folder, message in (
        (["optim_wrapper.optimizer.lr=0.5"], "members/member_0", "optim_wrapper.optimizer.lr (there "),
        (["--members", 3], "targets-entropy-top3", "members (there 2, now 3)"),
        (["--unlabelled-images", "."], "targets-entropy-top3", 'unlabelled_images (there "'),
    ):
        refused = again(*words)
        assert refused.code == 2
        assert f"out/{folder} holds the work of other settings: {message}" in refused.err
        assert "--overwrite" in refused.err
        assert refused.out == f"{COMPUTES}\n"
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*.pth")} == before


@pytest.mark.parametrize(
    ("evaluator", "needed"),
    [
        ({"type": "UncertaintyMetric"}, True),
        ({"type": "SparsificationMetric"}, True),
        ({"type": "SparsificationMetric", "uncertainty": "predicted"}, True),
        ({"type": "SparsificationMetric", "uncertainty": "predicted_error"}, True),
        ({"type": "SparsificationMetric", "uncertainty": "entropy"}, False),
        ({"type": "IoUMetric"}, False),
    ],
)
def test_a_baseline_is_not_asked_for_an_uncertainty_map(evaluator, needed):
    assert needs_map(evaluator) == needed


def test_the_entropy_of_the_softmax_is_measured_unasked():
    ranking, rival = {"type": "SparsificationMetric"}, {"type": "SparsificationMetric", "uncertainty": "entropy"}
    assert with_rival([ranking]) == with_rival(ranking) == [ranking, rival]
    assert with_rival([rival, ranking]) == [rival, ranking]
    assert with_rival({"type": "IoUMetric"}) == {"type": "IoUMetric"}
    other = {"type": "SparsificationMetric", "uncertainty": "predicted_entropy"}
    assert with_rival([ranking], ["entropy"]) == [ranking, rival, other]
    assert with_rival([other, ranking], ["entropy"]) == [other, ranking, rival]

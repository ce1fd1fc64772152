"""What is measured of each predictor."""

import dataclasses
import math
import shutil

import pytest
import torch
from experiments import TINY, command, write_config
from full_disk import full_disk
from safetensors.torch import load_file

from classification.config import load_config
from classification.corruptions import corrupt
from classification.data import to_float
from classification.evaluate import error_metrics, outlier_metrics, predictors
from classification.experiment import Experiment
from classification.records import PREDICTIONS, write_run
from uncertainty_core import derive_seed, state_dict_sha256
from uncertainty_core.intervals.storage import read_images
from uncertainty_core.io.claims import command_line
from uncertainty_core.io.strict_json import strict_json
from uncertainty_core.recalibration import fit_class_temperature, load
from uncertainty_core.report.run_record import FILE, RunRecord
from uncertainty_core.sampling import mc_dropout

STUDENTS = list(TINY["students"])


@pytest.fixture(scope="module")
def experiment(finished):
    return Experiment(load_config(finished / "tiny.yaml"), torch.device("cpu"))


@pytest.fixture(scope="module")
def records(finished):
    return records_in(finished / "out/tiny")


def records_in(folder):
    """Records by the folder of the row, and seed."""
    found = {path.parent: RunRecord.read(path.parent) for path in (folder / "runs").rglob(FILE)}
    return {(place.parent.name, record.provenance.seed): record for place, record in found.items()}


def probabilities_of(finished, row, seed=0):
    return load_file(finished / f"out/tiny/runs/{row}/seed-{seed}/probabilities.safetensors")["probabilities"]


def two_classes(*confidences):
    """Probabilities (N, 2) that predict class 0 with these confidences."""
    first = torch.tensor(confidences, dtype=torch.float64)
    return torch.stack([first, 1 - first], 1)


# --- what is kept of each image


def test_every_metric_of_the_test_images_has_an_interval(finished, records):
    record = records["baseline", 0]
    images = read_images(finished / "out/tiny/runs/baseline/seed-0")
    once = images.metrics(torch.ones(len(images.ids), 1))
    assert {name: value.item() for name, value in once.items()} == pytest.approx(
        {name: record.metrics[name] for name in once}, rel=1e-6, nan_ok=True
    )
    # of other images, or from all probabilities
    without = {"train_accuracy", "val_accuracy", "class_wise_ece", "class_wise_adaptive_ece"}
    assert record.metrics.keys() - once.keys() <= without
    low, high = record.intervals["brier"]
    assert low < record.metrics["brier"] < high
    assert "mupe" in next(record for (name, _), record in records.items() if name != "baseline").intervals


# --- metrics by hand


def test_error_metrics_by_hand():
    # by confidence: right, wrong, right, wrong
    metrics = error_metrics(two_classes(0.9, 0.8, 0.7, 0.6), torch.tensor([0, 1, 0, 1]))
    assert metrics == pytest.approx(
        {
            "risk": 1 / 2,
            "aurc": (0 + 1 / 2 + 1 / 3 + 2 / 4) / 4,  # error rates among the first 1, 2, 3, 4
            # of the four pairs (error, hit) all but (0.8, 0.7) have the error less confident
            "error_auroc": 3 / 4,
            # from the least confident on, precision 1 at the first error and 2/3 at the second
            "error_aupr": (1 + 2 / 3) / 2,
            "error_fpr95": 1 / 2,  # to find both errors, one of the two hits is called an error
        }
    )


def test_error_metrics_without_information():
    metrics = error_metrics(two_classes(0.7, 0.7, 0.7, 0.7), torch.tensor([0, 1, 1, 1]))
    assert metrics["risk"] == 3 / 4
    assert metrics["error_auroc"] == 1 / 2
    assert metrics["error_aupr"] == pytest.approx(3 / 4)


def test_outlier_metrics_by_hand():
    # uncertainties 0.1 and 0.2 inside, 0.4 and 0.15 outside: of the four pairs (0.15, 0.2) is in the wrong order
    metrics = outlier_metrics(two_classes(0.9, 0.8), two_classes(0.6, 0.85))
    assert metrics == pytest.approx({"auroc": 3 / 4, "aupr": (1 + 2 / 3) / 2, "fpr95": 1 / 2})


def test_sure_outliers_are_told_apart_perfectly():
    metrics = outlier_metrics(two_classes(0.9, 0.95, 0.99), two_classes(0.5, 0.6))
    assert metrics == {"auroc": 1, "aupr": 1, "fpr95": 0}
    swapped = outlier_metrics(two_classes(0.5, 0.6), two_classes(0.9, 0.95, 0.99))
    assert (swapped["auroc"], swapped["fpr95"]) == (0, 1)


# --- predictors


def test_rows_come_in_the_order_of_the_report_with_their_cost(experiment):
    expected = [("baseline", 0, 1), ("MC-3", 0, 3), ("MC-3", 1, 3), ("ensemble of 2", 0, 2)]
    for student in STUDENTS:
        expected += [(student, 0, 1), (f"MC-2 {student}", 0, 2)]
    assert [(p.row, p.seed, p.passes) for p in predictors(experiment)] == expected


def test_every_row_has_a_record(records, experiment):
    assert records.keys() == {(p.row, p.seed) for p in predictors(experiment)}
    for predictor in predictors(experiment):
        assert records[predictor.row, predictor.seed].passes == predictor.passes
    names = [records[row, 0].name for row in ("baseline", "MC-3", "ensemble of 2", "KD", "MC-2 KD")]
    assert names == ["baseline", "MC-3", "ensemble of 2", "student (KD)", "MC-2 of student (KD)"]
    assert records["KD", 0].training.settings["method.name"] == "KD"
    assert records["KD", 0].training.command == records["KD", 0].provenance.command == command_line()


def test_the_baseline_is_the_plain_teacher(finished, experiment):
    images = to_float(experiment.test_set.images, *experiment.statistics)
    with torch.no_grad():
        expected = experiment.teacher(images).softmax(1)
    torch.testing.assert_close(probabilities_of(finished, "baseline"), expected)


def test_mc_rows_are_plain_full_passes_keyed_by_their_seed(finished, experiment):
    test = experiment.test_set.subset(range(20))
    images, model = to_float(test.images, *experiment.statistics), experiment.teacher
    for seed in (0, 1):
        total = torch.zeros(20, 10)
        for draw in range(3):
            with torch.no_grad(), mc_dropout(model, seeds=[derive_seed(seed, key, draw) for key in test.ids]):
                total += model(images).softmax(1)
        measured = probabilities_of(finished, "MC-3", seed)[:20]
        torch.testing.assert_close(measured, total / 3, rtol=1e-5, atol=1e-6)
    assert not torch.allclose(probabilities_of(finished, "MC-3"), probabilities_of(finished, "MC-3", 1))


def test_the_ensemble_is_the_mean_of_its_members(finished, experiment):
    images = to_float(experiment.test_set.images, *experiment.statistics)
    with torch.no_grad():
        members = [experiment.trained(None, seed)(images).softmax(1) for seed in (0, 1)]
    assert not torch.allclose(*members)
    torch.testing.assert_close(probabilities_of(finished, "ensemble of 2"), sum(members) / 2, rtol=1e-5, atol=1e-6)


def test_evaluation_is_reproducible(copied):
    def written():
        files = (copied / "out/tiny/runs").rglob(PREDICTIONS)
        records = records_in(copied / "out/tiny").items()
        measured = {who: strict_json(dataclasses.asdict(record) | {"provenance": None}) for who, record in records}
        return {path.relative_to(copied): path.read_bytes() for path in files}, measured

    before = written()
    done = command("evaluate", "--config", copied / "tiny.yaml", "--overwrite")
    assert done.code == 0 and "measured before" not in done.out
    assert written() == before


# --- records


def test_perfect_predictions_are_measured():
    # no error to be foretold: AUROC, AUPR and FPR95 are NaN
    with pytest.warns(RuntimeWarning, match="NaN"):
        metrics = error_metrics(two_classes(0.9, 0.8), torch.tensor([0, 0]))
    assert math.isnan(metrics["error_auroc"]) and metrics["risk"] == 0


def test_a_full_disk_leaves_no_predictions(records, tmp_path):
    with pytest.raises(OSError, match=rf"{PREDICTIONS}'$"), full_disk(5000):
        write_run(tmp_path, records["baseline", 0], torch.ones(1000, 10), None)
    assert not list(tmp_path.iterdir())


def test_every_record_names_the_networks_it_measured(records, finished, experiment):
    hashes = {f"teacher/seed-{seed}": experiment.trained(None, seed) for seed in (0, 1)}
    hashes |= {f"students/{student}/seed-0": experiment.trained(student, 0) for student in STUDENTS}
    hashes = {place: state_dict_sha256(network.state_dict()) for place, network in hashes.items()}
    assert len(set(hashes.values())) == len(hashes)
    places = {"ensemble of 2": ["teacher/seed-0", "teacher/seed-1"], "baseline": ["teacher/seed-0"]}
    places |= {"MC-3": ["teacher/seed-0"]}
    places |= {row: [f"students/{student}/seed-0"] for student in STUDENTS for row in (student, f"MC-2 {student}")}
    for (row, _), record in records.items():
        assert record.details["networks"] == {place: hashes[place] for place in places[row]}


def test_accuracy_in_training_is_that_of_single_passes(records, experiment):
    for split in ("train", "val"):
        images = {"train": experiment.train_set, "val": experiment.validation_set}[split]
        floats = to_float(images.images, *experiment.statistics)
        for row, network in (("baseline", experiment.teacher), ("KD", experiment.trained("KD", 0))):
            with torch.no_grad():
                expected = (network(floats).argmax(1) == images.labels).double().mean().item()
            assert records[row, 0].metrics[f"{split}_accuracy"] == expected
        assert f"{split}_accuracy" not in records["MC-3", 0].metrics


@pytest.mark.parametrize("part", ["teacher", "students/KD"])
def test_a_network_that_was_trained_again_must_be_measured_again(copied, part):
    config = copied / "tiny.yaml"
    assert command("report", "--config", config).code == 0
    run = "teacher" if part == "teacher" else "students.KD"
    other = f"{run}.training.lr=1e-3"
    assert command("train" if part == "teacher" else "distill", "--config", config, other, "--overwrite").code == 0
    outcome = command("report", "--config", config, other)
    assert outcome.code == 2
    assert f"tiny/{part}/seed-0 holds another network than the one" in outcome.err
    assert ": run evaluate again\n" in outcome.err
    if part != "teacher":  # whose students have to be distilled again
        for step in ("evaluate", "report"):
            assert command(step, "--config", config, other).code == 0


def test_a_student_that_is_gone_is_no_longer_reported(copied):
    config = write_config(copied, students={"KD": TINY["students"]["KD"]})
    for step, *options in (["report"], ["evaluate"], ["report"]):
        outcome = command(step, "--config", config, *options)
        assert outcome.code == 0, outcome.err
        assert "distilled" not in outcome.out
        html = (copied / "out/tiny/report.html").read_text()
        assert ">student<" in html and "(distilled)" not in html


def test_mupe_of_sampled_students_is_held_against_the_teacher_at_as_many_passes(copied):
    # without such a row of the teacher, against the baseline, not against the ensemble of as many; what one pass
    # gives, always against the baseline
    for samples, twin in (("[2]", "MC-2"), ("[3]", "baseline")):
        options = [f"evaluation.mc_samples={samples}", "evaluation.repetitions=1"]
        assert command("evaluate", "--config", copied / "tiny.yaml", *options).code == 0
        found = records_in(copied / "out/tiny")
        for row, reference in (("MC-2 KD", twin), ("KD", "baseline"), ("DDN", "baseline")):
            ours, theirs = (probabilities_of(copied, name).amax(1).double() for name in (row, reference))
            assert found[row, 0].metrics["mupe"] == pytest.approx((ours - theirs).square().mean().item(), abs=1e-12)
            assert found[row, 0].metrics["mupe"] > 1e-6


def test_students_of_one_network_do_not_need_the_others(copied):
    shutil.rmtree(copied / "out/tiny/teacher/seed-1")
    shutil.rmtree(copied / "out/tiny/students/KD")
    outcome = command("distill", "--config", copied / "tiny.yaml")
    assert outcome.code == 0, outcome.err


def test_students_of_an_ensemble_are_compared_with_it(copied):
    method = {"name": "kd", "ods": 0.1}
    students = {"KD": TINY["students"]["KD"] | {"method": method}, "DDN": TINY["students"]["DDN"]}
    config = write_config(copied, students=students, teacher=TINY["teacher"] | {"ensemble": True})
    outcome = command("run", "--config", config)
    assert outcome.code == 2 and "teacher.seed" in outcome.err
    outcome = command("run", "--config", config, "--overwrite")
    assert outcome.code == 0, outcome.err
    assert outcome.err.count("already trained") + outcome.out.count("already trained") == 2  # the teacher's
    found = records_in(copied / "out/tiny")
    for row in ("KD", "DDN"):
        ours, theirs = (probabilities_of(copied, name).amax(1).double() for name in (row, "ensemble of 2"))
        assert found[row, 0].metrics["mupe"] == pytest.approx((ours - theirs).square().mean().item(), abs=1e-12)
    html = (copied / "out/tiny/report.html").read_text()
    assert "the mean answer of 2 members at temperature 10" in html and "moved by 0.1" in html


def test_precision_is_of_the_draws_alone(copied, finished):
    options = ["evaluation.precision=bfloat16", "evaluation.channels_last=true"]
    assert command("evaluate", "--config", copied / "tiny.yaml", *options).code == 0
    for row in ("baseline", "KD", "ensemble of 2"):
        assert torch.equal(probabilities_of(copied, row), probabilities_of(finished, row))
    for row in ("MC-3", "MC-2 KD"):
        fast, exact = probabilities_of(copied, row), probabilities_of(finished, row)
        assert not torch.equal(fast, exact)
        torch.testing.assert_close(fast, exact, rtol=0, atol=0.05)
    outcome = command("report", "--config", copied / "tiny.yaml")
    assert outcome.code == 2
    assert "was made with another evaluation.precision: run evaluate again" in outcome.err


def test_mupe_compares_with_the_baseline(records, finished):
    assert "mupe" not in records["baseline", 0].metrics  # its distance from itself
    baseline = probabilities_of(finished, "baseline").amax(1).double()
    for row in ("KD", "MC-3"):
        expected = (baseline - probabilities_of(finished, row).amax(1).double()).square().mean().item()
        assert records[row, 0].metrics["mupe"] == pytest.approx(expected)
        assert expected > 0


def test_records_agree_with_the_predictions_beside_them(records, finished, experiment):
    labels = experiment.test_set.labels
    for (row, seed), record in records.items():
        probabilities = probabilities_of(finished, row, seed)
        assert probabilities.shape == (797, 10)
        accuracy = (probabilities.argmax(1) == labels).double().mean().item()
        assert record.metrics["accuracy"] == pytest.approx(accuracy)
        assert record.metrics["risk"] == pytest.approx(1 - accuracy)


@pytest.fixture(scope="module")
def other_images(finished, tmp_path_factory):
    """Records by row of an evaluation on outliers, which are the test images themselves, and on noisy images."""
    folder = tmp_path_factory.mktemp("other_images")
    for part in ("teacher", "students/KD"):
        shutil.copytree(finished / "out/tiny" / part, folder / "out/tiny" / part)
    teacher = TINY["teacher"] | {"seeds": [0]}
    evaluation = {"mc_samples": [2], "repetitions": 1, "ood": "digits", "corruptions": "noise"}
    config = write_config(folder, teacher=teacher, students={"KD": TINY["students"]["KD"]}, evaluation=evaluation)
    assert command("evaluate", "--config", config).code == 0
    records = {row: record for (row, _), record in records_in(folder / "out/tiny").items()}
    assert records.keys() == {"baseline", "baseline + temperature", "MC-2", "KD", "KD + temperature"}
    for row in ("baseline", "KD"):
        calibrator = load(folder / "out/tiny/runs" / f"{row} + temperature" / "seed-0" / "calibrator.json")
        plain, after = (probabilities_of(folder, name, 0) for name in (row, f"{row} + temperature"))
        torch.testing.assert_close(after, calibrator(plain))
    return records


def test_calibrators_are_fitted_to_the_validation_images(other_images, experiment):
    held_out = experiment.validation_set
    with torch.no_grad():
        logits = experiment.teacher(to_float(held_out.images, *experiment.statistics))
    temperature = fit_class_temperature(logits.softmax(1), held_out.labels)
    with torch.no_grad():
        test = experiment.teacher(to_float(experiment.test_set.images, *experiment.statistics))
    expected = torch.nn.functional.cross_entropy(temperature.on_logits(test), experiment.test_set.labels).item()
    record = other_images["baseline + temperature"]
    assert record.metrics["nll_true"] == pytest.approx(expected, rel=1e-5)
    assert record.metrics["accuracy"] == other_images["baseline"].metrics["accuracy"]


def test_outliers_of_the_same_images_cannot_be_told_apart(other_images):
    for record in other_images.values():
        assert record.details["ood"].keys() == {"digits"}
        assert record.details["ood"]["digits"]["auroc"] == pytest.approx(0.5)
        assert record.details["ood"]["digits"]["aupr"] == pytest.approx(0.5, abs=0.01)


def test_corruptions_have_five_strengths_that_hurt_more_and_more(other_images):
    for record in other_images.values():
        noise = record.details["corruptions"]["noise"]
        assert [entry.keys() >= {"accuracy", "ece", "nll_true"} for entry in noise] == [True] * 5
    baseline = other_images["baseline"]
    accuracies = [baseline.metrics["accuracy"]]
    accuracies += [entry["accuracy"] for entry in baseline.details["corruptions"]["noise"]]
    assert accuracies[0] > 0.6  # there is something to lose
    assert accuracies[5] < accuracies[3] < accuracies[0]


def test_corrupted_images_are_those_of_seed_0(other_images, experiment):
    test = experiment.test_set
    noisy = to_float(corrupt(test.images, "noise", 3, seed=0), *experiment.statistics)
    with torch.no_grad():
        expected = torch.nn.functional.cross_entropy(experiment.teacher(noisy), test.labels).item()
    assert other_images["baseline"].details["corruptions"]["noise"][2]["nll_true"] == pytest.approx(expected, rel=1e-5)


def test_no_outliers_and_corruptions_unless_asked_for(copied):
    (folder,) = copied.glob("out/*")
    shutil.rmtree(folder / "runs")
    options = ["evaluation.mc_samples=[]", "evaluation.mc_students=0"]
    assert command("evaluate", "--config", copied / "tiny.yaml", *options).code == 0
    records = records_in(folder)
    assert {row for row, _ in records} == {"baseline", "ensemble of 2", *STUDENTS}
    assert all(record.details["ood"] == record.details["corruptions"] == {} for record in records.values())

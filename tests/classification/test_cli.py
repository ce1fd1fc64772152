"""The commands: what they write, that they write it once, and one sentence and exit code 2 for bad input."""

import json
import os
import shutil
import subprocess
import sys

import pytest
import torch
import yaml
from experiments import ROOT, SCHEDULE, TINY, command, tree, write_config
from PIL import Image
from safetensors.torch import load_file

from classification.config import load_config
from classification.data import to_float
from classification.experiment import Experiment, start_from
from classification.models import build_model
from uncertainty_core import TargetStore

STUDENTS = list(TINY["students"])


def experiment(config, **options):
    return Experiment(load_config(config), torch.device("cpu"), **options)


def refused(folder, *arguments):
    """The sentence with which a command gives up; asserts that it is one and that nothing was written."""
    before = tree(folder)
    code, out, err = command(*arguments)
    after = tree(folder)
    message, *rest = err.splitlines()
    assert code == 2 and message.startswith("error: ")
    assert out.count("\n") == bool(rest)
    if rest:  # work had begun
        assert "training images" in out
        (log,) = (name for name in after if name.endswith("log.txt"))
        assert rest == [f"log: {folder / log}"]
        del after[log]
        before.pop(log, None)
    assert after == before
    return message


@pytest.fixture
def image_folder(tmp_path):
    """Two classes of 20 grey images with 8x8 pixels, dark and bright."""
    folder = tmp_path / "images"
    for label, name in enumerate(("dark", "bright")):
        (folder / name).mkdir(parents=True)
        for k in range(20):
            Image.new("L", (8, 8), 20 + 180 * label + k).save(folder / name / f"{k:02d}.png")
    return folder


# --- what is written


def test_every_step_leaves_its_files(finished):
    folder = finished / "out/tiny"
    networks = [folder / f"teacher/seed-{seed}" for seed in (0, 1)]
    networks += [folder / f"students/{student}/seed-0" for student in STUDENTS]
    for network in networks:
        assert sorted(path.name for path in network.iterdir()) == [
            "epoch-0002",
            "log.csv",
            "model.json",
            "model.safetensors",
            "settings.json",
            "tensorboard",
        ]
    assert sorted(path.name for path in (folder / "targets").iterdir()) == ["DDN"]  # the only one that reads them
    rows = {path.parents[1].name for path in (folder / "runs").glob("*/seed-*/run.json")}
    assert rows == {"baseline", "MC-3", "ensemble of 2", *STUDENTS, *(f"MC-2 {student}" for student in STUDENTS)}
    assert not [name for name in tree(finished) if name.endswith((".pt", ".pth", ".pkl", ".part"))]


def test_a_second_run_trains_nothing(copied):
    before = tree(copied)
    for step in ("train", "targets", "distill"):
        outcome = command(step, "--config", copied / "tiny.yaml")
        assert outcome.code == 0
        networks = {"train": 2, "targets": 0, "distill": 3}[step]
        assert outcome.out.count("already trained") == networks
        assert tree(copied) == before


def test_run_does_everything(tmp_path):
    students = {"DDN": TINY["students"]["DDN"]}
    config = write_config(tmp_path, students=students, evaluation={"mc_samples": [2]})
    outcome = command("run", "--config", config, "teacher.seeds=0")
    assert outcome.code == 0, outcome.err
    folder = tmp_path / "out/tiny"
    for part in ("teacher", "targets", "students", "runs"):
        assert (folder / part).is_dir()
    assert list(folder.glob("*.html"))
    again = command("run", "--config", config, "teacher.seeds=0")
    assert again.out.count("already trained") == 2


def test_finished_evaluations_are_not_repeated(copied):
    config, runs = copied / "tiny.yaml", copied / "out/tiny/runs"
    before = tree(runs)
    done = command("evaluate", "--config", config, "evaluation.mc_samples=[3, 4]", "evaluation.repetitions=1")
    assert "measured before: 9 of 10\n" in done.out
    after = tree(runs)
    assert {name for name in after if name not in before} == {
        f"MC-4/seed-0/{file}" for file in ("images.npz", "probabilities.safetensors", "run.json")
    }
    assert all(after[name] == before[name] for name in after if name in before)
    # other settings, and predictions that are damaged, are measured
    assert "measured before" not in command("evaluate", "--config", config, "evaluation.num_bins=5").out
    for path in runs.rglob("probabilities.safetensors"):
        path.write_bytes(path.read_bytes()[:-1])
    assert "measured before" not in command("evaluate", "--config", config, "evaluation.num_bins=5").out


def test_what_is_used_is_told_before_the_work(copied):
    done = command("train", "--config", copied / "tiny.yaml")
    # a tenth of the 1000 images is set aside, of each class and rounded up
    computes = "device cpu, 1 processor thread (--threads)"
    assert done.out.startswith(f"digits: 200 of 899 training images (data.limit), 797 test images; {computes}\n")


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["students.KD.model.name=lenet"], "model 'lenet' takes images of 28x28 pixels"),
        (["students.KD.model.width=0"], "width must be positive"),
        (["students.KD.model.penultimate=3"], "takes no penultimate"),
        (["students.distilled.method={name: dropout_distillation, initialize: subset}"], None),
        (
            ["students.distilled={model: {name: digits}, method: {name: dropout_distillation, initialize: subset}}"],
            "initialize=subset needs a student that is part of its teacher",
        ),
        (["evaluation.ood=[mnist]"], "mnist is missing or incomplete"),
        (["data.unlabelled=nowhere"], "folder nowhere does not exist"),
        (["teacher.model.dropout=0"], "teacher.model drops nothing"),
    ],
)
def test_what_would_fail_after_the_training_fails_before(tmp_path, monkeypatch, overrides, words):
    monkeypatch.setattr(Experiment, "train", lambda _: pytest.fail("has begun") if words else None)
    config = write_config(tmp_path)
    if words is None:
        assert command("train", "--config", config, *overrides).code == 0
    else:
        assert words in refused(tmp_path, "train", "--config", config, *overrides)


def test_an_output_that_cannot_be_is_refused_before_the_training(tmp_path, monkeypatch):
    config = write_config(tmp_path)
    (tmp_path / "out").write_text("a file")
    assert f"{tmp_path}/out is a file" in refused(tmp_path, "train", "--config", config)
    (tmp_path / "out").unlink()
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(2**40, 2**40 - 1000, 1000))
    assert "MiB, and 0.0 MiB are free: choose another disk" in refused(tmp_path, "train", "--config", config)


def test_a_diverged_training_names_loss_epoch_and_key(tmp_path):
    config = write_config(tmp_path, data={"name": "digits", "limit": 20})
    message = command("train", "--config", config, "teacher.training.lr=1e30", "teacher.training.optimizer=sgd").err
    assert "teacher, seed 0 diverged in epoch 1, with a mean loss (cross-entropy) of " in message
    assert "lower teacher.training.lr, which is 1e+30" in message


def test_other_settings_are_refused_before_any_work(copied):
    config, before = copied / "tiny.yaml", tree(copied)
    lower = "teacher.training.lr=1e-3"
    for step in ("train", "distill", "run"):
        message = refused(copied, step, "--config", config, lower)
        assert "training.lr (there 0.005, now 0.001)" in message
        assert "--overwrite" in message
    # what one student is taught, and nothing of the others
    message = refused(copied, "targets", "--config", config, "students.DDN.method.mc_samples=4")
    assert "targets/DDN holds the work of other settings: method.mc_samples (there 3, now 4)" in message
    assert tree(copied) == before


def test_overwriting_starts_over_what_differs_alone(copied):
    config, before = copied / "tiny.yaml", tree(copied)
    outcome = command("distill", "--config", config, "students.DDN.training.lr=1e-3", "--overwrite")
    assert outcome.code == 0, outcome.err
    assert outcome.out.count("already trained") == 2
    changed = {name for name, content in tree(copied).items() if content != before.get(name)}
    assert {name.split("/")[3] for name in changed} == {"DDN"}
    assert "out/tiny/students/DDN/seed-0/model.safetensors" in changed


def test_resuming_what_was_never_begun_begins(tmp_path, finished):
    config = write_config(tmp_path)
    assert command("train", "--config", config, "--resume").code == 0
    name = "out/tiny/teacher/seed-0/model.safetensors"
    assert tree(tmp_path)[name] == tree(finished)[name]


def test_cached_targets_are_those_of_the_method(finished):
    run = experiment(finished / "tiny.yaml")
    method = run.config.students["DDN"].method
    store = TargetStore(finished / "out/tiny/targets/DDN")
    images = run.train_set
    assert store.ids == list(images.ids)
    floats = to_float(images.images, *run.statistics)
    expected = method.targets(run.teacher, floats, images.ids, seed=0)
    stored = torch.stack([store[key]["target"] for key in images.ids])
    torch.testing.assert_close(stored, expected, rtol=1e-5, atol=1e-5)


def test_students_of_dropout_distillation_start_from_the_teacher(finished, monkeypatch):
    started = []
    run = experiment(finished / "tiny.yaml")
    monkeypatch.setattr("classification.experiment.is_finished", lambda folder: False)
    monkeypatch.setattr("classification.experiment.fit", lambda model, *_, **__: started.append(model.state_dict()))
    run.distill()
    teacher = load_file(finished / "out/tiny/teacher/seed-0/model.safetensors")
    same = [all(torch.equal(own[n], teacher[n]) for n in own if own[n].shape == teacher[n].shape) for own in started]
    assert same == [student == "distilled" for student in STUDENTS]


@pytest.mark.parametrize("subset", [False, True])
def test_a_smaller_student_starts_from_what_fits(subset):
    torch.manual_seed(0)
    teacher, student = build_model("digits"), build_model("digits", width=0.5)
    before = {name: value.clone() for name, value in student.state_dict().items()}
    start_from(student, teacher, subset=subset)
    own, theirs = student.state_dict(), teacher.state_dict()
    for name, value in own.items():
        first = theirs[name][tuple(slice(size) for size in value.shape)]
        fits = subset or value.shape == theirs[name].shape
        assert torch.equal(value, first if fits else before[name]), name
    assert own["stages.1.weight"].shape != theirs["stages.1.weight"].shape


@pytest.mark.parametrize(("images", "count"), [("train", 200), ("perturbed", 200), ("test", 797)])
def test_dropout_distillation_sees_the_set_it_names(finished, tmp_path, images, count):
    students = {"A": {"model": TINY["teacher"]["model"], "method": {"name": "dropout_distillation", "images": images}}}
    run = experiment(write_config(tmp_path, students=students))
    assert len(run._images(run.config.students["A"])) == count


def test_unlabelled_images_join_the_students_alone(tmp_path, image_folder):
    data = TINY["data"] | {"unlabelled": str(image_folder / "dark")}
    students = {name: TINY["students"][name] for name in ("DDN", "KD")}
    config = write_config(tmp_path, data=data, teacher=TINY["teacher"] | {"seeds": [0]}, students=students)
    for step in ("train", "distill"):
        outcome = command(step, "--config", config)
        assert outcome.code == 0, outcome.err
    run = experiment(config)
    joined = run._images(run.config.students["DDN"])
    assert len(joined) == 220
    assert joined.labels[200:].tolist() == [-1] * 20
    assert run._images(run.config.teacher) is run.train_set
    assert len(TargetStore(tmp_path / "out/tiny/targets/DDN")) == 220
    # other extra images are another training, even where no target store says so
    (image_folder / "dark/00.png").unlink()
    only = f"students={{KD: {json.dumps(TINY['students']['KD'])}}}"
    assert "students/KD/seed-0 holds the work of other settings: seen (there " in refused(
        tmp_path, "distill", "--config", config, only
    )


@pytest.mark.parametrize("step", ["train", "distill"])
def test_more_epochs_go_on_where_a_finished_run_ended(copied, tmp_path_factory, step):
    # as if it had been asked for so many from the start: rates and draws are functions of the epoch
    other = tmp_path_factory.mktemp("whole")
    shutil.copytree(copied / "out/tiny/teacher", other / "out/tiny/teacher")
    run, place = {"train": ("teacher", "teacher/seed-0"), "distill": ("students.DDN", "students/DDN/seed-0")}[step]
    longer = [f"{run}.training.epochs=4", f"{run}.training.milestones=[1, 3]"]
    shorter = [f"{run}.training.epochs=2", longer[1]]
    sections = {"teacher": TINY["teacher"] | {"seeds": [0]}, "students": {"DDN": TINY["students"]["DDN"]}}
    whole, begun = (write_config(folder, **sections) for folder in (other, copied))
    assert command(step, "--config", begun, *shorter, "--overwrite").code == 0
    assert "--resume to go on to more epochs" in refused(copied, step, "--config", begun, *longer)
    assert command(step, "--config", begun, *longer, "--resume").code == 0
    assert command(step, "--config", whole, *longer, "--overwrite").code == 0
    ours, theirs = tree(copied / "out/tiny" / place), tree(other / "out/tiny" / place)
    for name in ("model.safetensors", "model.json", "epoch-0004/state.safetensors"):
        assert ours[name] == theirs[name]
    assert command(step, "--config", begun, *longer, "--resume").out.count("already trained") >= 1


def test_fewer_epochs_than_a_finished_run_has_are_refused(copied):
    fewer = "teacher.training.epochs=1"
    message = refused(copied, "train", "--config", copied / "tiny.yaml", fewer, "--resume")
    assert "holds a network of 2 epochs, not 1" in message


# --- refused


def test_an_unknown_key_is_refused(tmp_path):
    config = write_config(tmp_path)
    message = refused(tmp_path, "train", "--config", config, "teacher.training.epoch=3")
    assert message == "error: there is no key teacher.training.epoch; did you mean epochs?"


def test_a_missing_data_set_names_files_and_flag(tmp_path):
    config = write_config(tmp_path)
    message = refused(tmp_path, "train", "--config", config, "data.name=mnist", "--data-root", tmp_path / "empty")
    for word in ("mnist", "train-images-idx3-ubyte", str(tmp_path / "empty"), "--download"):
        assert word in message


@pytest.mark.parametrize("name", ["imagenet", "digit"])
def test_an_unknown_data_set_names_the_known(tmp_path, name):
    message = refused(tmp_path, "train", "--config", write_config(tmp_path), f"data.name={name}")
    assert name in message
    assert "digits" in message


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("teacher.model.name=lenett", ["lenett", "lenet"]),
        ("teacher.model.width=0", ["width"]),
        ("teacher.model.dropout=1.5", ["dropout"]),
        ("teacher.model.penultimate=8", ["penultimate"]),
        (
            "teacher.model.name=lenet",
            ["'lenet' takes images of 28x28 pixels, not 8x8: set data.image_size to 28", "(densenet40, digits, nin)"],
        ),
    ],
)
def test_a_network_that_cannot_be_is_refused(tmp_path, override, words):
    message = refused(tmp_path, "train", "--config", write_config(tmp_path), override)
    for word in words:
        assert word in message


@pytest.mark.parametrize("device", ["gpu", "cuda:77", "cpu:x"])
def test_a_device_that_is_not_there_is_refused(tmp_path, device):
    message = refused(tmp_path, "train", "--config", write_config(tmp_path), "--device", device)
    assert message.startswith(f"error: --device {device} cannot be used here: ")


@pytest.mark.parametrize(
    ("model", "words"),
    [
        ("{name: digits, width: 1.0}", "stages.1.weight is (32, 1, 3, 3) and the teacher's is (16, 1, 3, 3)"),
        ("{name: densenet40, width: 0.1}", "the teacher has none"),
    ],
)
def test_a_student_that_is_no_part_of_its_teacher_is_refused_as_one(copied, model, words):
    method = "{name: dropout_distillation, initialize: subset}"
    students = f"students={{A: {{model: {model}, method: {method}}}}}"
    message = refused(copied, "distill", "--config", copied / "tiny.yaml", students)
    assert "initialize=subset needs a student that is part of its teacher" in message
    assert words in message


@pytest.mark.parametrize("step", ["targets", "distill", "evaluate"])
def test_steps_before_training_are_refused(tmp_path, step):
    message = refused(tmp_path, step, "--config", write_config(tmp_path))
    assert "teacher/seed-0 holds no finished network: train it first" in message


def test_evaluation_before_distillation_is_refused(tmp_path):
    config = write_config(tmp_path)
    assert command("train", "--config", config).code == 0
    assert "students/DDN/seed-0 holds no finished network" in refused(tmp_path, "evaluate", "--config", config)


@pytest.mark.parametrize("step", ["targets", "distill"])
def test_what_was_taught_by_another_teacher_is_refused(copied, step):
    config = copied / "tiny.yaml"
    other = "teacher.training.epochs=1"
    assert command("train", "--config", config, other, "--overwrite").code == 0
    assert "teacher.epochs (there 2, now 1)" in refused(copied, step, "--config", config, other)


@pytest.mark.parametrize(
    ("key", "before", "after"),
    [
        ("mc_samples", "3", "4"),
        ("average", '"logits"', '"probs"'),
        ("precision", '"float32"', '"bfloat16"'),
        ("channels_last", "false", "true"),
    ],
)
def test_targets_of_another_method_are_refused(copied, key, before, after):
    message = refused(copied, "distill", "--config", copied / "tiny.yaml", f"students.DDN.method.{key}={after}")
    assert f"method.{key} (there {before}, now {after})" in message


def test_a_damaged_store_is_mended_or_refused(copied):
    config = copied / "tiny.yaml"
    before = tree(copied)
    shard = copied / "out/tiny/targets/DDN/shard-00000.safetensors"
    shard.write_bytes(shard.read_bytes()[:-3])
    assert command("targets", "--config", config).code == 0
    assert tree(copied) == before


def test_a_wrong_number_of_classes_is_refused(copied, image_folder):
    # the teacher knows ten digits, this folder two classes
    message = refused(copied, "evaluate", "--config", copied / "tiny.yaml", f"data.name=folder:{image_folder}")
    assert "teacher/seed-0 holds another network: size mismatch" in message
    assert "10" in message
    assert "2" in message


def test_a_truncated_network_is_refused(copied):
    path = copied / "out/tiny/teacher/seed-0/model.safetensors"
    path.write_bytes(path.read_bytes()[:-10])
    assert "model.safetensors cannot be read" in refused(copied, "distill", "--config", copied / "tiny.yaml")


@pytest.mark.parametrize("augmentation", ["data.flip=true", "data.crop_padding=2"])
def test_cached_targets_with_augmentation_are_refused(copied, augmentation):
    message = refused(copied, "distill", "--config", copied / "tiny.yaml", augmentation)
    assert "students.DDN.method.from_store" in message
    assert "from_store=false" in message


def folder_config(tmp_path, folder, **data):
    run = {"model": TINY["teacher"]["model"], "training": SCHEDULE | {"epochs": 1}}
    return write_config(tmp_path, data={"name": f"folder:{folder}", **data}, teacher=run, students={})


@pytest.mark.filterwarnings("ignore:.* is NaN")  # of scores, where eight images happen to be predicted rightly
def test_an_own_folder_of_images_is_trained_on(tmp_path, image_folder):
    config = folder_config(tmp_path, image_folder)
    assert command("train", "--config", config).code == 0
    assert command("evaluate", "--config", config, "evaluation.mc_samples=2").code == 0
    probabilities = load_file(tmp_path / "out/tiny/runs/baseline/seed-0/probabilities.safetensors")["probabilities"]
    assert probabilities.shape == (8, 2)  # a fifth of the forty


def test_an_empty_class_folder_is_refused(tmp_path, image_folder):
    (image_folder / "empty").mkdir()
    message = refused(tmp_path, "train", "--config", folder_config(tmp_path, image_folder))
    assert f"folder {image_folder / 'empty'} holds no image" in message


def test_a_truncated_image_is_named_and_stops(tmp_path, image_folder):
    bad = truncate(image_folder)
    message = refused(tmp_path, "train", "--config", folder_config(tmp_path, image_folder))
    assert str(bad) in message
    assert "bad_images=skip" in message


def test_a_truncated_image_is_skipped_with_a_warning(tmp_path, image_folder):
    bad = truncate(image_folder)
    config = folder_config(tmp_path, image_folder)
    with pytest.warns(UserWarning, match=f"1 of .* cannot be decoded: dark/{bad.name}"):
        outcome = command("train", "--config", config, "data.bad_images=skip")
    assert outcome.code == 0
    assert (tmp_path / "out/tiny/teacher/seed-0/model.json").exists()


def test_bad_unlabelled_images_follow_the_same_flag(tmp_path, image_folder):
    truncate(image_folder)
    config = write_config(tmp_path, data=TINY["data"] | {"unlabelled": str(image_folder / "dark")})
    run = experiment(config)
    with pytest.raises(ValueError, match="cannot be decoded"):
        run._images(run.config.students["DDN"])
    write_config(tmp_path, data=TINY["data"] | {"unlabelled": str(image_folder / "dark"), "bad_images": "skip"})
    run = experiment(config)
    with pytest.warns(UserWarning, match="cannot be decoded"):
        assert len(run._images(run.config.students["DDN"])) == 219


def truncate(folder):
    """Cut an image in half; one that is in the training split."""
    path = folder / "dark/00.png"
    path.write_bytes(path.read_bytes()[:45])
    return path


# --- the command line


def test_help_is_complete():
    code, out, err = command("--help")
    assert (code, err) == (0, "")
    for word in ("train", "targets", "distill", "evaluate", "report", "run"):
        assert f"\n    {word} " in out
    for flag in ("--config", "--resume", "--device", "--threads", "--data-root", "--download", "key=value"):
        assert flag in out


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["train"], "--config"),
        (["trane", "--config", "x.yaml"], "trane"),
        (["train", "--config", "nowhere.yaml"], "nowhere.yaml"),
        (["train", "--config", "nowhere.yaml", "--threads", "many"], "--threads"),
    ],
)
def test_a_wrong_command_line_is_exit_code_2(tmp_path, monkeypatch, arguments, words):
    monkeypatch.chdir(tmp_path)
    code, _, err = command(*arguments)
    assert code == 2
    assert words in err.splitlines()[-1]
    assert not tree(tmp_path)


def test_a_real_process_says_the_same(tmp_path):
    config = tmp_path / "a.yaml"
    config.write_text(yaml.safe_dump({"data": {"nam": "digits"}}))
    done = subprocess.run(
        [sys.executable, "-m", "classification", "train", "--config", str(config)],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "error: there is no key data.nam; did you mean name?\n"
    assert list(tmp_path.iterdir()) == [config]


def test_an_interrupted_command_says_how_to_go_on(tmp_path, monkeypatch):
    def interrupt(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(Experiment, "train", interrupt)
    code, _, err = command("train", "--config", write_config(tmp_path))
    assert code == 130
    assert "--resume" in err


def test_records_say_what_was_trained(finished):
    record = json.loads((finished / "out/tiny/students/DDN/seed-0/model.json").read_text())["identity"]
    assert record["method"] == {
        "name": "DDN",
        "dd_weight": 1.0,
        "gt_weight": 1.0,
        "mc_samples": 3,
        "average": "logits",
        "precision": "float32",
        "channels_last": False,
        "from_store": True,
    }
    assert record["training"]["lr"] == 0.005
    assert len(record["teacher"]) == 64

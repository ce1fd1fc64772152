"""Training: what one step sees, that a resumed run equals an uninterrupted one, and that two ranks equal one."""

import csv
import os
import shutil

import pytest
import torch
from experiments import TINY, command, die_at_place, rank_environments, run_classification, tree, write_config
from forked_tools import KILLED, fork, run, wait
from PIL import Image
from safetensors.torch import load_file
from torch import nn

from classification import distributed, engine
from classification.checkpoint import CheckpointError
from classification.config import ConfigError, Data, Run, Training
from classification.data import ImageSet, channel_statistics, load, to_float
from classification.engine import TrainingSet, augment, fit, learning_rate, monitor, predict
from classification.methods import DDN, KD, DropoutDistillation, Standard
from classification.models import build_model
from classification.models.staged import Staged
from uncertainty_core import dropout_modules, state_dict_sha256

COUNT, CLASSES = 30, 3
SGD = Training(epochs=4, batch_size=8, lr=0.02, momentum=0.9, nesterov=True, weight_decay=1e-3, milestones=(3,))
ADAM = Training(epochs=4, batch_size=8, lr=3e-3, optimizer="adam", milestones=(3,))
METHODS = [Standard(), DDN(mc_samples=2), DropoutDistillation(), KD()]
AUGMENTED = Data(flip=True, crop_padding=1)


def named(values, name=lambda value: type(value).__name__):
    return [pytest.param(value, id=name(value)) for value in values]


def a_network(seed=0):
    """Batch norm, which counts, and dropout, which draws."""
    torch.manual_seed(seed)
    return Staged(
        nn.Conv2d(1, 4, 3, padding=1),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.Dropout(0.3),
        nn.Flatten(),
        nn.Linear(64, 8),
        nn.ReLU(),
        nn.Dropout(0.3),
        nn.Linear(8, CLASSES),
    )


def some_images():
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(256, (COUNT, 1, 4, 4), generator=generator, dtype=torch.uint8)
    return ImageSet(images, torch.arange(COUNT) % CLASSES, ("a", "b", "c"), tuple(range(COUNT)), "noise")


def statistics(images):
    return channel_statistics(images.images)


def a_teacher():
    teacher = a_network(seed=9)
    images = some_images()
    teacher(to_float(images.images, *statistics(images)))
    return teacher.eval()


def train(folder, run, model=None, teacher=None, resume=False, data=AUGMENTED, seed=5, identity=None, images=None):
    """Fit a network of `run` into `folder`; cached targets are drawn here."""
    images = images or some_images()
    model = model or a_network()
    teacher = teacher or a_teacher()
    targets = None
    if run.method.from_store:
        floats = to_float(images.images, *statistics(images))
        targets = run.method.targets(teacher, floats, images.ids, seed=0)
    inputs = TrainingSet(images, *statistics(images), targets)
    teacher = teacher if run.method.needs_teacher and targets is None else None
    fit(model, run, data, inputs, some_images(), folder, seed, identity or {}, teacher, resume)
    return model


def log_of(folder):
    """log.csv without the time it took."""
    with open(folder / "log.csv", newline="") as file:
        return [{key: value for key, value in row.items() if key != "seconds"} for row in csv.DictReader(file)]


def assert_same_run(folder, other):
    assert (folder / "model.safetensors").read_bytes() == (other / "model.safetensors").read_bytes()
    assert log_of(folder) == log_of(other)
    (last,) = folder.glob("epoch-*")
    assert (last / "state.safetensors").read_bytes() == (other / last.name / "state.safetensors").read_bytes()


# --- resumed


@pytest.mark.parametrize("when", ["before saving", "after the last saving", "in a step"])
@pytest.mark.parametrize(
    ("method", "training"),
    [*(pytest.param(method, SGD, id=type(method).__name__) for method in METHODS), pytest.param(KD(), ADAM, id="adam")],
)
def test_a_resumed_run_equals_an_uninterrupted_one(tmp_path, monkeypatch, method, training, when):
    run = Run(method=method, training=training)
    train(tmp_path / "whole", run)
    save, optimize, calls = engine.save_checkpoint, engine.sum_gradients, [0]

    def dying(name, original, at):
        def call(*arguments):
            calls[0] += 1
            if calls[0] == at and when == "after the last saving":
                original(*arguments)
                (tmp_path / "killed" / "epoch-0003").mkdir()  # half removed
            if calls[0] == at:
                raise KeyboardInterrupt
            original(*arguments)

        monkeypatch.setattr(engine, name, call)

    if when == "in a step":
        dying("sum_gradients", optimize, 10)  # of 16
    else:
        dying("save_checkpoint", save, 2 if when == "before saving" else 4)  # of 4
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "killed", run)
    monkeypatch.undo()
    assert not (tmp_path / "killed" / "model.json").exists()
    # another start and another global state: everything comes from the checkpoint and the seed
    train(tmp_path / "killed", run, model=a_network(seed=77), resume=True)
    assert_same_run(tmp_path / "killed", tmp_path / "whole")
    assert [row["epoch"] for row in log_of(tmp_path / "whole")] == ["1", "2", "3", "4"]


def test_resuming_a_complete_run_changes_nothing(tmp_path):
    run = Run(method=Standard(), training=SGD)
    train(tmp_path / "a", run)
    before = tree(tmp_path / "a")
    train(tmp_path / "a", run, model=a_network(seed=77), resume=True)
    after = tree(tmp_path / "a")
    assert {name: after[name] for name in before} == before


def test_without_resume_a_run_starts_anew(tmp_path):
    run = Run(method=Standard(), training=SGD)
    train(tmp_path / "a", run, seed=1)
    train(tmp_path / "a", run)
    train(tmp_path / "b", run)
    assert_same_run(tmp_path / "a", tmp_path / "b")


def test_another_seed_is_another_run(tmp_path):
    run = Run(method=Standard(), training=SGD)
    train(tmp_path / "a", run, seed=1)
    train(tmp_path / "b", run, seed=2)
    assert log_of(tmp_path / "a") != log_of(tmp_path / "b")


def test_a_checkpoint_of_other_settings_is_refused(tmp_path):
    run = Run(method=Standard(), training=SGD)
    train(tmp_path / "a", run, identity={"lr": 0.1})
    before = tree(tmp_path / "a")
    with pytest.raises(CheckpointError, match="checkpoint of other settings"):
        train(tmp_path / "a", run, identity={"lr": 0.2}, resume=True)
    assert tree(tmp_path / "a") == before


def test_no_pickle_is_written(tmp_path):
    train(tmp_path, Run(method=Standard(), training=ADAM))
    kinds = {path.suffix for path in tmp_path.rglob("*") if path.is_file() and "tfevents" not in path.name}
    assert kinds == {".safetensors", ".json", ".csv"}
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "epoch-0004",
        "log.csv",
        "model.json",
        "model.safetensors",
        "tensorboard",
    ]


def killed_at(name, when, *arguments, folder):
    """Run a command that is killed when `name` gets its place."""

    def killed():
        die_at_place(name, when)
        run_classification(*arguments)

    outcome = run(killed, folder=folder)
    assert outcome.code == KILLED, outcome.err


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_killed_process_resumes_to_the_same_bytes(tmp_path, finished, when):
    # the checkpoint of the first of two epochs is about to get its place, or has just got it
    config = write_config(tmp_path)
    killed_at("epoch-0001", when, "train", "--config", config, folder=tmp_path)
    folder = tmp_path / "out/tiny/teacher/seed-0"
    assert (folder / "epoch-0001").exists() == (when == "after")
    assert command("train", "--config", config, "--resume").code == 0
    for seed in (0, 1):
        name = f"teacher/seed-{seed}"
        assert_same_run(tmp_path / "out/tiny" / name, finished / "out/tiny" / name)


def test_a_killed_distillation_resumes_to_the_same_bytes(tmp_path, finished):
    config = write_config(tmp_path)
    shutil.copytree(finished / "out/tiny/teacher", tmp_path / "out/tiny/teacher")
    for name in ("shard-00000.sha256", "epoch-0001"):
        killed_at(name, "before", "distill", "--config", config, "--resume", folder=tmp_path)
    assert command("distill", "--config", config, "--resume").code == 0
    assert tree(tmp_path / "out/tiny/targets") == tree(finished / "out/tiny/targets")
    for student in TINY["students"]:
        name = f"students/{student}/seed-0"
        assert_same_run(tmp_path / "out/tiny" / name, finished / "out/tiny" / name)


# --- several processes


RANKS = {
    "data": {"name": "digits", "limit": 50, "flip": True, "crop_padding": 1},
    "teacher": {
        "model": {"name": "digits", "width": 0.25},
        # 45 images: batches of 11 are shared as 5 and 6, and the last batch of one image as 0 and 1
        "training": {"epochs": 2, "batch_size": 11, "lr": 0.01, "momentum": 0.9, "weight_decay": 1.0e-3},
    },
}
RANKS["students"] = {
    "DDN": RANKS["teacher"] | {"method": {"name": "ddn", "mc_samples": 2, "from_store": False}},
    "distilled": RANKS["teacher"] | {"method": "dropout_distillation"},
    "KD": RANKS["teacher"] | {"method": "kd"},
}


def run_ranks(folder, *arguments):
    """Run a command in two processes, as torchrun would."""

    def rank(environment):
        os.environ.update(environment)
        run_classification(*arguments)

    places = [folder / f"rank-{rank}" for rank in range(2)]
    for place in places:
        place.mkdir(exist_ok=True)
    processes = [
        fork(rank, environment, folder=place) for environment, place in zip(rank_environments(), places, strict=True)
    ]
    for process, place in zip(processes, places, strict=True):
        outcome = wait(process, place)
        assert outcome.code == 0, outcome.err


def assert_close_runs(folder, other):
    ours, theirs = (load_file(place / "model.safetensors") for place in (folder, other))
    for name in ours:
        torch.testing.assert_close(ours[name], theirs[name], rtol=1e-5, atol=1e-5)
    for row, other_row in zip(log_of(folder), log_of(other), strict=True):
        assert {k: float(v) for k, v in row.items()} == pytest.approx(
            {k: float(v) for k, v in other_row.items()}, rel=1e-4, abs=1e-5
        )


def test_two_ranks_equal_one(tmp_path):
    (tmp_path / "more").mkdir()
    for k in range(16):  # without labels, of which the two then hold different numbers
        Image.new("L", (8, 8), 9 * k).save(tmp_path / f"more/{k:02d}.png")
    sections = RANKS | {"data": RANKS["data"] | {"unlabelled": str(tmp_path / "more")}}
    one = write_config(tmp_path, **sections)
    assert command("train", "--config", one).code == 0
    (tmp_path / "two").mkdir()
    two = write_config(tmp_path / "two", **sections)
    run_ranks(tmp_path, "train", "--config", two)
    ours, theirs = tmp_path / "out/tiny", tmp_path / "two/out/tiny"
    assert_close_runs(theirs / "teacher/seed-0", ours / "teacher/seed-0")
    # from the very same teacher
    shutil.rmtree(theirs)
    shutil.copytree(ours, theirs)
    assert command("distill", "--config", one).code == 0
    run_ranks(tmp_path, "distill", "--config", two)
    for student in RANKS["students"]:
        assert_close_runs(theirs / f"students/{student}/seed-0", ours / f"students/{student}/seed-0")


def test_two_ranks_write_the_targets_of_one(tmp_path, finished):
    config = write_config(tmp_path)
    shutil.copytree(finished / "out/tiny/teacher", tmp_path / "out/tiny/teacher")
    run_ranks(tmp_path, "targets", "--config", config)
    assert tree(tmp_path / "out/tiny/targets") == tree(finished / "out/tiny/targets")


def test_batch_norm_on_several_cpu_processes_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(distributed, "world_size", lambda: 2)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ConfigError, match="batch norm needs GPUs"):
        train(tmp_path / "a", Run(training=SGD))
    assert not (tmp_path / "a").exists()


@pytest.mark.parametrize("world_size", [1, 2, 3, 8])
def test_ranks_share_all_rows_without_overlap(monkeypatch, world_size):
    monkeypatch.setattr(distributed, "world_size", lambda: world_size)
    for total in (0, 1, 7, 64):
        rows = []
        for rank in range(world_size):
            monkeypatch.setattr(distributed, "rank", lambda rank=rank: rank)
            rows += list(range(total))[distributed.my_rows(total)]
        assert rows == list(range(total))


# --- one step


@pytest.mark.parametrize(
    ("epoch", "rate"), [(0, 0.5), (1, 0.5), (2, 0.05), (3, 0.05), (4, 0.005), (5, 0.005), (100, 0.005)]
)
def test_rate_is_divided_by_ten_after_each_milestone(epoch, rate):
    assert learning_rate(Training(lr=0.5, milestones=(2, 4)), epoch) == pytest.approx(rate, rel=1e-12)


def test_the_log_and_the_optimizer_follow_the_schedule(tmp_path, monkeypatch):
    rates = []
    step = torch.optim.SGD.step
    monkeypatch.setattr(
        torch.optim.SGD, "step", lambda self, *a: (rates.append(self.param_groups[0]["lr"]), step(self, *a))[1]
    )
    train(tmp_path, Run(training=SGD))
    steps = 4  # 30 images in batches of 8
    assert rates == pytest.approx([0.02] * 3 * steps + [0.002] * steps)
    assert [float(row["lr"]) for row in log_of(tmp_path)] == pytest.approx([0.02] * 3 + [0.002])


@pytest.mark.parametrize("training", named([SGD, ADAM], lambda training: training.optimizer))
def test_the_optimizer_is_the_one_described(training):
    optimizer = engine.make_optimizer(a_network(), training)
    (group,) = optimizer.param_groups
    assert type(optimizer).__name__.lower() == training.optimizer
    assert group["weight_decay"] == training.weight_decay
    if training.optimizer == "sgd":
        assert (group["momentum"], group["nesterov"]) == (0.9, True)


@pytest.mark.parametrize("method", named(METHODS))
def test_the_student_learns_and_the_teacher_does_not(tmp_path, monkeypatch, method):
    teacher = a_teacher()
    before = state_dict_sha256(teacher.state_dict())
    modes, gradients = [], []
    monkeypatch.setattr(
        engine,
        "sum_gradients",
        lambda model: (
            modes.append({module.training for module in dropout_modules(model)}),
            gradients.append([parameter.grad.abs().max() for parameter in model.parameters()]),
        ),
    )
    train(tmp_path, Run(method=method, training=SGD), teacher=teacher)
    assert state_dict_sha256(teacher.state_dict()) == before
    assert not any(module.training for module in teacher.modules())
    assert all(parameter.grad is None for parameter in teacher.parameters())
    assert all(mode == {method.student_dropout} for mode in modes)
    assert torch.tensor(gradients).amax(0).min() > 0  # every parameter, in one step or another


def test_labels_teach_nothing_to_dropout_distillation(tmp_path):
    run = Run(method=DropoutDistillation(), training=SGD)
    images = some_images()
    shuffled = ImageSet(images.images, images.labels.roll(1), images.classes, images.ids, "shuffled")
    train(tmp_path / "a", run, images=images)
    train(tmp_path / "b", run, images=shuffled)
    assert (tmp_path / "a/model.safetensors").read_bytes() == (tmp_path / "b/model.safetensors").read_bytes()


def test_images_without_label_skip_the_cross_entropy(tmp_path):
    images = some_images()
    unlabelled = ImageSet(images.images, torch.full((COUNT,), -1), images.classes, images.ids, "unlabelled")
    train(tmp_path / "a", Run(method=DDN(mc_samples=2), training=SGD), images=unlabelled)
    train(tmp_path / "b", Run(method=DDN(mc_samples=2, gt_weight=0.0), training=SGD), images=images)
    ours, theirs = (load_file(tmp_path / name / "model.safetensors") for name in "ab")
    for name in ours:
        torch.testing.assert_close(ours[name], theirs[name])


def test_a_diverged_training_stops_with_one_sentence(tmp_path):
    with pytest.raises(ConfigError, match=r"training diverged in epoch 1, .* of nan: lower training.lr"):
        train(tmp_path, Run(training=Training(epochs=4, batch_size=8, lr=1e20)))
    assert not (tmp_path / "model.json").exists()


def test_only_the_perturbed_set_loses_pixels():
    images = torch.full((50, 1, 8, 8), 200, dtype=torch.uint8)
    for kind in ("train", "test", "perturbed"):
        method = DropoutDistillation(images=kind)
        dropped = (augment(images, Data(), method, torch.Generator().manual_seed(0)) == 0).float().mean().item()
        assert dropped == pytest.approx(0.2 if kind == "perturbed" else 0, abs=0.03)
    assert augment(images, Data(), Standard(), torch.Generator()) is images


def test_epochs_differ_and_cover_all_images(tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr(engine, "augment", lambda images, *_: (seen.append(images.flatten(1)), images)[1])
    train(tmp_path, Run(training=SGD))
    epochs = [torch.cat(seen[start : start + 4]) for start in range(0, 16, 4)]
    everything = some_images().images.flatten(1)
    for epoch in epochs:
        assert sorted(epoch.tolist()) == sorted(everything.tolist())
    assert not torch.equal(epochs[0], epochs[1])


def test_training_learns_the_digits(tmp_path):
    training, watched = load("digits", "train"), load("digits", "val")
    torch.manual_seed(0)
    model = build_model("digits", width=0.5)
    inputs = TrainingSet(training, *channel_statistics(training.images))
    run = Run(training=Training(epochs=6, batch_size=32, optimizer="adam", lr=3e-3))
    fit(model, run, Data(), inputs, watched, tmp_path, 0, {})
    rows = log_of(tmp_path)
    assert float(rows[-1]["accuracy"]) > 0.8
    assert 0.8 < float(rows[-1]["train_accuracy"]) <= 1
    assert float(rows[-1]["loss"]) < 0.5 * float(rows[0]["loss"])


# --- prediction


def test_prediction_keeps_order_and_ids_whatever_the_batch():
    images = some_images()
    mean, std = statistics(images)
    ids = []

    def forward(batch, keys):
        ids.extend(keys)
        return batch.flatten(1)

    expected = to_float(images.images, mean, std).flatten(1)
    for batch_size in (1, 7, 256):
        ids.clear()
        assert torch.equal(predict(forward, images, mean, std, batch_size), expected)
        assert ids == list(images.ids)
    assert predict(forward, images.subset([]), mean, std).shape == (0, 16)


def test_the_monitor_counts():
    images = some_images()
    model = Staged(nn.Flatten(), nn.Linear(16, CLASSES))
    nn.init.zeros_(model.stages[1].weight)
    model.stages[1].bias.data = torch.tensor([0.0, 5.0, 0.0])  # always the second of three equally common classes
    values = monitor(model, images, *statistics(images), CLASSES)
    confidence = model.stages[1].bias.softmax(0)[1].item()
    assert values["accuracy"] == pytest.approx(1 / 3)
    assert values["ece"] == pytest.approx(confidence - 1 / 3, abs=1e-6)
    assert not model.training

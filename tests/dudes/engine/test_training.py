"""Training, killed and started again; ensembles of it; and the command lines."""

import json
import os
import re
import resource
import signal
from pathlib import Path

import numpy as np
import pytest
import torch
from experiments import rank_environments
from forked_tools import COMPUTES, KILLED, die_at_call, fork, run, run_tool, tool, wait
from mmengine.config import Config
from mmengine.runner import Runner
from PIL import Image

from dudes_mmseg.engine.evaluation import evaluate  # noqa: F401
from dudes_mmseg.hooks.randomness import latest_checkpoint

ITERATIONS = 4
CONFIG = """
custom_imports = dict(imports=["dudes_mmseg"])
default_scope = "mmseg"
model = dict(
    type="EncoderDecoder",
    data_preprocessor=dict(type="SegDataPreProcessor", mean=[127.0] * 3, std=[64.0] * 3, size=(24, 24)),
    backbone=dict(
        type="ResNetV1c", depth=18, base_channels=4, stem_channels=4, strides=(1, 2, 2, 1), dilations=(1, 1, 1, 2)
    ),
    decode_head=dict(type="FCNHead", in_channels=32, channels=8, num_convs=1, num_classes=3, dropout_ratio=0.5),
    test_cfg=dict(mode="whole"),
)
pipeline = [dict(type="LoadImageFromFile"), dict(type="LoadAnnotations")]
loader = dict(
    batch_size=2,
    num_workers=0,
    sampler=dict(type="InfiniteSampler", shuffle=True),
    dataset=dict(
        type="BaseSegDataset",
        data_root="data",
        data_prefix=dict(img_path="images", seg_map_path="labels"),
        img_suffix=".png",
        metainfo=dict(classes=("a", "b", "c"), palette=[[0, 0, 0], [90, 0, 0], [0, 90, 0]]),
        pipeline=[
            *pipeline,
            dict(type="RandomResize", scale=(32, 32), ratio_range=(0.5, 2.0), keep_ratio=True),
            dict(type="RandomCrop", crop_size=(24, 24)),
            dict(type="RandomFlip", prob=0.5),
            dict(type="PackSegInputs"),
        ],
    ),
)
train_dataloader = loader
val_dataloader = dict(
    batch_size=1,
    num_workers=0,
    sampler=dict(type="DefaultSampler", shuffle=False),
    dataset=dict(loader["dataset"], pipeline=[*pipeline, dict(type="PackSegInputs")]),
)
test_dataloader = val_dataloader
val_evaluator = dict(type="IoUMetric")
test_evaluator = val_evaluator
train_cfg = dict(type="IterBasedTrainLoop", max_iters=4, val_interval=2)
val_cfg = dict(type="ValLoop")
test_cfg = dict(type="TestLoop")
optim_wrapper = dict(type="OptimWrapper", optimizer=dict(type="SGD", lr=0.05, momentum=0.9))
default_hooks = dict(checkpoint=dict(type="CheckpointHook", by_epoch=False, interval=1, max_keep_ckpts=2))
custom_hooks = [dict(type="KeyedRandomnessHook")]
randomness = dict(seed=3)
log_processor = dict(by_epoch=False)
log_level = "ERROR"
work_dir = "work"
"""


def write_data_and_config(folder: Path) -> None:
    """Six random images of 32 x 32 with three classes, and the config above."""
    generator = np.random.default_rng(0)
    for kind in ("images", "labels"):
        (folder / "data" / kind).mkdir(parents=True)
    for number in range(6):
        image = generator.integers(0, 256, (32, 32, 3), dtype=np.uint8)
        Image.fromarray(image).save(folder / "data" / "images" / f"{number}.png")
        Image.fromarray((image[..., 0] // 86).astype(np.uint8)).save(folder / "data" / "labels" / f"{number}.png")
    (folder / "config.py").write_text(CONFIG)


@pytest.fixture
def folder(tmp_path):
    """Data and config, nothing trained."""
    write_data_and_config(tmp_path)
    return tmp_path


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """The same, trained without a disturbance. Not to be changed."""
    folder = tmp_path_factory.mktemp("trained")
    write_data_and_config(folder)
    done = run_tool("train_seg", "config.py", "--cfg-options", "log_level='INFO'", folder=folder)
    assert done.code == 0, done.err
    computes, first, validated, last = done.out.splitlines()
    assert (computes, first, last) == (COMPUTES, "work: 4 iterations", "weights: work/iter_4.pth")
    assert validated.startswith("work: aAcc ") and validated.endswith(" on the validation images")
    assert done.err == "log: work/log.txt\n"
    log = (folder / "work" / "log.txt").read_text()
    assert "mmengine - INFO - Iter(train)" in log and "\r" not in log
    return folder


def weights(path: Path) -> dict[str, torch.Tensor]:
    """The weights in a checkpoint that mmengine wrote just now."""
    return torch.load(path, map_location="cpu", weights_only=False)["state_dict"]


def assert_same_weights(one: Path, other: Path) -> None:
    one, other = weights(one), weights(other)
    assert one.keys() == other.keys()
    for name, tensor in one.items():
        assert torch.equal(tensor, other[name]), name


def train_killed_at(folder, iteration, owner=Runner, name="save_checkpoint"):
    def killed():
        die_at_call(owner, name, iteration)
        tool("train_seg", "config.py")

    assert run(killed, folder=folder).code == KILLED


def test_a_killed_training_ends_with_the_weights_of_an_undisturbed_one(folder, trained):
    train_killed_at(folder, 3)
    done = run_tool("train_seg", "config.py", "--resume", folder=folder)
    assert done.code == 0, done.err
    assert_same_weights(folder / "work" / "iter_4.pth", trained / "work" / "iter_4.pth")


def test_a_checkpoint_that_was_cut_off_is_passed_over(folder):
    train_killed_at(folder, 4)
    older = folder / "work" / "iter_3.pth"
    assert latest_checkpoint(folder / "work") == older
    newest = older.with_name("iter_4.pth")
    newest.write_bytes(older.read_bytes()[:-100])  # as a kill while it is written leaves it
    assert latest_checkpoint(folder / "work") == older
    done = run_tool("train_seg", "config.py", "--resume", folder=folder)
    assert done.code == 0, done.err
    assert latest_checkpoint(folder / "work") == newest


def test_there_is_no_latest_checkpoint_in_an_empty_folder(tmp_path):
    (tmp_path / "iter_notes.pth").write_bytes(b"not a checkpoint")
    assert latest_checkpoint(tmp_path) is None
    assert latest_checkpoint(tmp_path / "absent") is None


def test_an_ensemble_has_a_seed_for_each_member_and_is_not_trained_twice(folder):
    def killed():
        die_at_call(Runner, "save_checkpoint", ITERATIONS + 2)  # in the second member
        tool("train_ensemble", "config.py", "--members", 2)

    assert run(killed, folder=folder).code == KILLED
    members = [folder / "work" / f"member_{number}" / "iter_4.pth" for number in range(2)]
    finished = members[0].stat().st_mtime_ns
    done = run_tool("train_ensemble", "config.py", "--members", 2, folder=folder)
    assert done.code == 0, done.err
    assert members[0].stat().st_mtime_ns == finished
    seeds = [Config.fromfile(path.with_name("config.py")).randomness.seed for path in members]
    assert seeds == [0, 1]
    with pytest.raises(AssertionError):
        assert_same_weights(*members)


def test_evaluation_prints_and_writes_its_metrics(trained, tmp_path):
    options = ["--out", tmp_path / "predictions", "--work-dir", tmp_path / "results"]
    done = run_tool("test_seg", "config.py", "work/iter_4.pth", *options, folder=trained)
    assert done.code == 0, done.err
    metrics = json.loads((tmp_path / "results" / "metrics.json").read_text())
    assert 0 <= metrics["mIoU"] <= 100
    assert done.out.splitlines() == [
        COMPUTES,
        *(f"{name}  {metrics[name]:.4f}" for name in ("aAcc", "mIoU", "mAcc")),
        f"written to {tmp_path / 'results' / 'metrics.json'}",
    ]
    assert done.err == f"log: {tmp_path / 'results' / 'log.txt'}\n"
    assert len(list((tmp_path / "predictions").glob("*.png"))) == 6


@pytest.mark.parametrize(
    ("command", "sentence"),
    [
        (("train_seg", "config.py", "--cfg-options", "train_dataloader.dataset.data_root=none"), "there is no folder"),
        (("train_seg", "config.py", "--amp", "--cfg-options", "optim_wrapper.type=Other"), "--amp needs"),
        (("test_seg", "config.py", "--tta"), "--tta needs tta_pipeline"),
    ],
)
def test_bad_command_lines_end_in_one_sentence(folder, command, sentence):
    done = run_tool(*command, folder=folder)
    assert done.code == 2
    (line,) = [line for line in done.err.splitlines() if "error: " in line]
    assert sentence in line
    assert done.out in ("", f"{COMPUTES}\n")
    assert {path.name for path in folder.glob("work/*")} <= {"log.txt"}


def test_a_training_that_diverges_names_the_loss_and_the_key(folder):
    done = run_tool("train_seg", "config.py", "--cfg-options", "optim_wrapper.optimizer.lr=1e30", folder=folder)
    assert done.code == 2
    message = r"error: the training diverged: not finite at iteration [23]: decode.loss_ce; lower .*lr \(1e"
    assert re.match(message, done.err) and len(done.err.splitlines()) == 2
    assert all(tensor.isfinite().all() for tensor in weights(latest_checkpoint(folder / "work")).values())


def test_a_full_disk_ends_a_training_without_half_a_checkpoint(folder):
    def limited():
        resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))
        tool("train_seg", "config.py")

    done = run(limited, folder=folder)
    assert (done.code, done.err) == (
        2,
        "error: work cannot take another checkpoint: File too large; make room and resume the training\n"
        "log: work/log.txt\n",
    )
    assert not list(folder.rglob("*.pth"))


def test_sigint_ends_a_training_and_its_workers_with_one_sentence(folder):
    def interrupted():
        os.setpgrp()  # as a shell does for each command, whose processes a terminal interrupts together
        die_at_call(Runner, "save_checkpoint", 2, lambda: os.killpg(0, signal.SIGINT))
        tool("train_seg", "config.py", "--cfg-options", "train_dataloader.num_workers=1")

    done = run(interrupted, folder=folder)
    assert (done.code, done.out) == (130, f"{COMPUTES}\nwork: 4 iterations\n")
    assert done.err == "interrupted; the same command with --resume goes on\nlog: work/log.txt\n"


def on_two_ranks(name, *arguments, folder):
    """What torchrun does with two processes, without starting Python anew; their outcomes."""

    def rank(environment):
        os.chdir(folder)  # mmengine's ranks exchange files in their working folder
        os.environ.update(environment)
        tool(name, *arguments, "--launcher", "pytorch")

    places = [folder / f"rank_{number}" for number in range(2)]
    for place in places:
        place.mkdir(exist_ok=True)
    processes = [
        fork(rank, environment, folder=place) for environment, place in zip(rank_environments(2), places, strict=True)
    ]
    return [wait(process, place) for process, place in zip(processes, places, strict=True)]


def test_two_processes_train_together_and_measure_as_one(folder, trained):
    (folder / "metrics.py").write_text(
        "_base_ = './config.py'\n"
        "test_dataloader = dict(dataset=dict(indices=5))\n"  # of which one process gets three, the other two
        "test_evaluator = [dict(type='IoUMetric'), dict(type='SegCalibrationMetric'),\n"
        "    dict(type='SparsificationMetric', uncertainty='entropy')]\n"
    )
    together = on_two_ranks("train_seg", "config.py", "--work-dir", folder / "together", folder=folder)
    assert [outcome.code for outcome in together] == [0, 0], together
    assert "weights: " in together[0].out
    assert (together[1].out, together[1].err) == ("", "")
    assert all(tensor.isfinite().all() for tensor in weights(folder / "together" / "iter_4.pth").values())

    checkpoint = trained / "work" / "iter_4.pth"
    alone = run_tool("test_seg", "metrics.py", checkpoint, "--work-dir", folder / "alone", folder=folder)
    assert alone.code == 0, alone.err
    outcomes = on_two_ranks("test_seg", "metrics.py", checkpoint, "--work-dir", folder / "two", folder=folder)
    assert [outcome.code for outcome in outcomes] == [0, 0], outcomes
    assert (folder / "two" / "metrics.json").read_text() == (folder / "alone" / "metrics.json").read_text()

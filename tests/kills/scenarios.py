"""What is killed: commands as a user types them, on data tiny enough for hundreds of repetitions.

Every scenario prepares the files that each of its runs begins with, in the current folder, and does its work there.
"""

import importlib
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from experiments import SCHEDULE, SMALL, run_classification, write_config
from forked_tools import tool
from PIL import Image

import classification.experiment
from uncertainty_core.report.__main__ import main as write_report


class Scenario(NamedTuple):
    """A row of the table: its name, the share of all kills, and what happens before and in each run."""

    name: str
    share: float
    prepare: Callable[[], None]
    work: Callable[[], None]


# --- classifiers


def _classifiers() -> None:
    students = {
        "DDN": {"model": SMALL, "training": SCHEDULE, "method": {"name": "ddn", "mc_samples": 3}},
        "distilled": {"model": SMALL, "training": SCHEDULE, "method": "dropout_distillation"},
    }
    run = {"model": SMALL, "training": SCHEDULE | {"epochs": 6}}
    data = {"name": "digits", "limit": 200}
    write_config(".", output="out", data=data, teacher=run, students=students, evaluation={"mc_samples": [3]})


def _classify(command: str) -> None:
    classification.experiment.TARGET_SHARD = 10  # several files for the kills to come between
    run_classification(command, "--config", "tiny.yaml", "--resume")


def _trained_teacher() -> None:
    _classifiers()
    _classify("train")


# --- detectors


def _scenes(*splits: str, count: int = 4) -> None:
    from ddn_detectron2.data import write_scenes

    for split in splits:
        write_scenes("sets/scenes", split, num_images=count, progress=False)


def _scene_flags(*splits: str) -> list[str]:
    flags = []
    for split in splits:
        flags += [f"--{split}-json", f"sets/scenes/instances_{split}.json", f"--{split}-images", f"sets/scenes/{split}"]
    return flags


def _detectors() -> None:
    from tiny_detectors import write_small_config

    _scenes("train", "val", "test")
    for kind in ("baseline", "ddn"):
        write_small_config(Path(), kind, "custom_train", "custom_test")
    Path("stored.yaml").write_text("_BASE_: ddn.yaml\nMODEL: {DDN: {TARGETS: {SOURCE: store, AVERAGE: probs}}}\n")


def _distill_detectors() -> None:
    configs = ["--config-file", "ddn.yaml", "--baseline-config", "baseline.yaml", "--also", "stored.yaml"]
    options = ["OUTPUT_DIR", "out", "MODEL.ROI_HEADS.SCORE_THRESH_TEST", "0.01", "SEED", "0"]
    tool("distill_detector", *configs, *_scene_flags("train", "val", "test"), *options)


def _detector() -> None:
    from detectron2.modeling import build_model
    from tiny_detectors import give_moderate_weights, images, small_config, write_small_config

    _scenes("train", count=12)
    paths = {kind: write_small_config(Path(), kind, "custom_train", "custom_train") for kind in ("baseline", "ddn")}
    model = give_moderate_weights(build_model(small_config(paths["baseline"])), images())
    torch.save({"model": model.state_dict()}, "weights.pth")


def _detector_targets() -> None:
    options = ["MODEL.WEIGHTS", "weights.pth", "MODEL.DDN.TARGETS.STORE", "store", "OUTPUT_DIR", "out"]
    flags = ["--config-file", "ddn.yaml", *_scene_flags("train"), "--shard-size", "1"]
    tool("generate_targets", *flags, *options)


def _train_detector() -> None:
    options = ["MODEL.WEIGHTS", "weights.pth", "OUTPUT_DIR", "out", "DATASETS.TEST", "()", "SEED", "0"]
    flags = ["--config-file", "ddn.yaml", "--resume", *_scene_flags("train")]
    tool("train_net", *flags, *options, "SOLVER.MAX_ITER", "20")


# --- segmentors


def _segmentors() -> None:
    from tiny_segmentors import write_small_streets

    write_small_streets(Path("member.py"), "streets_member")
    write_small_streets(Path("student.py"), "streets_student")


def _train_segmentor() -> None:
    from tiny_segmentors import small_street_options

    tool("train_seg", "member.py", "--work-dir", "out", "--resume", "--cfg-options", *small_street_options(20))


def _distill_segmentors() -> None:
    from tiny_segmentors import small_street_options

    flags = ["--member-config", "member.py", "--members", "2", "--work-dir", "out"]
    tool("distill_segmentor", "student.py", *flags, "--cfg-options", *small_street_options(3))


def _segmentor() -> None:
    from mmengine.config import Config
    from tiny_segmentors import NUM_CLASSES, segmentor_config, write_members

    draw = np.random.RandomState(0)
    for number in range(12):
        for kind, shape, top in (("images", (5, 6, 3), 256), ("labels", (5, 6), NUM_CLASSES)):
            Path(kind).mkdir(exist_ok=True)
            cells = Image.fromarray(draw.randint(top, size=shape).astype(np.uint8))
            cells.resize((64, 56), Image.Resampling.NEAREST).save(f"{kind}/{number:02d}.png")
    write_members(".", count=2)
    palette = [[128, 64, 128], [70, 130, 180], [0, 0, 142], [107, 142, 35]]
    read = [{"type": "LoadImageFromFile"}, {"type": "Resize", "scale": (64, 56)}]
    dataset = {
        "type": "BaseSegDataset",
        "data_prefix": {"img_path": "images", "seg_map_path": "labels"},
        "img_suffix": ".png",
        "metainfo": {"classes": list("abcd"), "palette": palette},
        "pipeline": [*read, {"type": "LoadAnnotations"}, {"type": "PackSegInputs"}],
    }
    sampler = {"type": "DefaultSampler", "shuffle": False}
    loader = {"batch_size": 1, "num_workers": 0, "sampler": sampler, "dataset": dataset}
    teacher = {"type": "DeepEnsembleSegmentor", "segmentor": segmentor_config(), "checkpoints": "member_*/iter_7.pth"}
    content = {"default_scope": "mmseg", "model": teacher, "train_dataloader": loader, "test_dataloader": loader}
    Config(content).dump("teacher.py")


def _segmentor_targets() -> None:
    tool("generate_targets", "--task", "segmentation", "teacher.py", "--store", "store", "--shard-size", "1")


def _predict() -> None:
    tool("predict_seg", "teacher.py", "--images", "images", "--output", "predicted")


# --- pages


def _runs() -> None:
    from report_runs import write_runs

    write_runs(Path("runs"))


def _page() -> None:
    write_report(["runs", "-o", "page/report.html"])


SCENARIOS = [
    Scenario("classifiers, targets", 0.15, _trained_teacher, lambda: _classify("targets")),
    Scenario("classifiers, whole experiment", 0.15, _classifiers, lambda: _classify("run")),
    Scenario("detectors, targets", 0.15, _detector, _detector_targets),
    Scenario("detectors, training", 0.1, _detector, _train_detector),
    Scenario("detectors, whole distillation", 0.05, _detectors, _distill_detectors),
    Scenario("segmentors, targets", 0.1, _segmentor, _segmentor_targets),
    Scenario("segmentors, training", 0.05, _segmentors, _train_segmentor),
    Scenario("segmentors, whole distillation", 0.05, _segmentors, _distill_segmentors),
    Scenario("segmentors, folder of images", 0.1, _segmentor, _predict),
    Scenario("page that compares runs", 0.1, _runs, _page),
]


def import_frameworks() -> None:
    """All that the scenarios import, once, for every process that is forked."""
    late = ("sklearn.datasets", "classification.evaluate", "classification.report", "uncertainty_core.report.page")
    plugins = ("tiny_detectors", "tiny_segmentors", "ddn_detectron2.engine.pipeline", "dudes_mmseg.engine.pipeline")
    for name in (*late, *plugins):
        importlib.import_module(name)

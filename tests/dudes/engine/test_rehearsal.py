"""Mistakes that would show only when members are trained, found before."""

import numpy as np
import pytest
from PIL import Image

from dudes_mmseg.cli import ConfigError, read_config
from dudes_mmseg.engine.pipeline import Ensemble, distil
from dudes_mmseg.engine.rehearsal import rehearse

STREETS = tuple(
    f"{split}_dataloader.dataset.{value}"
    for split in ("train", "val", "test")
    for value in ("num_images=2", "size=(64,32)")
)


@pytest.fixture(scope="module")
def options(tmp_path_factory):
    """Two tiny streets of each split, drawn once. Not to be changed."""
    root = tmp_path_factory.mktemp("streets")
    return [*STREETS, *(f"{split}_dataloader.dataset.data_root={root}" for split in ("train", "val", "test"))]


def student(options, *more):
    return read_config("quick/streets_student.py", [*options, *more])


def test_bytes_that_a_training_will_write(options):
    cfg = student(options)
    cfg.model.backbone = {"type": "ResNetV1c", "depth": 18, "base_channels": 4, "stem_channels": 4}
    needs = rehearse(cfg)
    assert needs.targets == 2 * 64 * 32 * 2  # images of as many pixels, of 16 bits
    wide = rehearse(student(options))
    assert wide.checkpoint > 3 * needs.checkpoint > 0


@pytest.mark.parametrize(
    ("mistake", "message"),
    [
        ("model.type=DUDESEncoderDecodr", "model: there is no DUDESEncoderDecodr in mmseg::model"),
        ("model.backbone.nope=1", "model: .*unexpected keyword argument 'nope'"),
        ("model.uncertainty_head.num_outputs=2", r"model: .*num_outputs must be 1, or 19"),
        ("model.decode_head.num_classes=7", "train_dataloader: StreetScenesDataset has 19 classes and .* is 7"),
        ("model.backbone.init_cfg.checkpoint=none.pth", r".*init_cfg.checkpoint: there is no checkpoint none.pth"),
        ("default_hooks.logger.nope=1", "default_hooks.logger: LoggerHook: .*'nope'"),
        ("custom_hooks.0.type=NopeHook", "custom_hooks: there is no NopeHook"),
        ("train_dataloader.dataset.pipeline.3.type=Nope", "train_dataloader: there is no Nope in"),
        ("val_dataloader.dataset.pipeline.1.type=Nope", "val_dataloader: there is no Nope in"),
        ("test_evaluator.0.type=Nope", "test_evaluator: there is no Nope in"),
        ("train_cfg.type=Nope", "train_cfg: there is no Nope"),
        ("optim_wrapper.optimizer.type=Nope", "optim_wrapper.optimizer: there is no Nope"),
        ("param_scheduler.0.nope=1", "param_scheduler: .*'nope'"),
    ],
)
def test_a_mistake_is_named_with_its_part_of_the_config(options, mistake, message):
    with pytest.raises(ConfigError, match=f"^streets_student.py: {message}") as caught:
        rehearse(student(options, mistake))
    assert len(str(caught.value).splitlines()) == 1 and len(str(caught.value)) < 300


def test_a_mistake_in_a_student_is_found_before_its_members_are_trained(options, tmp_path):
    member = read_config("quick/streets_member.py", options)
    steps = []
    with pytest.raises(ConfigError, match=r"^streets_student.py: model: there is no Nope"):
        distil(member, {"student": student(options, "model.type=Nope")}, Ensemble(2), tmp_path / "out", steps.append)
    assert steps == [] and not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("size", "label", "message"),
    [
        ((20, 30), 0, r"a.png has 30 x 20 pixels and its labels .*a.png have 20 x 30$"),
        ((30, 20), 3, r"a.png holds the label 3, and .*num_classes is 3: labels go from 0 to 2, and 255 is void$"),
    ],
)
def test_labels_that_do_not_fit(tmp_path, size, label, message):
    for folder, pixels in (("images", np.zeros((20, 30, 3), np.uint8)), ("labels", np.full(size[::-1], label, "u1"))):
        (tmp_path / folder).mkdir()
        Image.fromarray(pixels).save(tmp_path / folder / "a.png")
    cfg = read_config("quick/streets_member.py")
    cfg.model.decode_head.num_classes = 3
    cfg.train_dataloader.dataset = {
        "type": "BaseSegDataset",
        "data_root": str(tmp_path),
        "data_prefix": {"img_path": "images", "seg_map_path": "labels"},
        "img_suffix": ".png",
        "metainfo": {"classes": ("a", "b", "c"), "palette": [[0, 0, 0]] * 3},
        "pipeline": [{"type": "LoadImageFromFile"}, {"type": "LoadAnnotations"}, {"type": "PackSegInputs"}],
    }
    with pytest.raises(ConfigError, match=message):
        rehearse(cfg)

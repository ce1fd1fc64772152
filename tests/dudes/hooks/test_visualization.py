"""Pictures of predictions in real validations and tests."""

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.runner import Runner
from mmengine.structures import PixelData
from mmseg.structures import SegDataSample
from PIL import Image
from tiny_segmentors import segmentor_config, student_config, write_members

from dudes_mmseg.hooks.visualization import UncertaintyVisualizationHook, draw_sample

CLASSES = ("a", "b", "c", "d")
PALETTE = [[128, 64, 128], [70, 130, 180], [0, 0, 142], [107, 142, 35]]
PANELS = 5


@pytest.fixture
def runner_of(tmp_path):
    """Makes a runner that validates and tests a segmentor on five images of 64 x 56."""
    random = np.random.RandomState(0)
    for folder in ("images", "labels"):
        (tmp_path / "data" / folder).mkdir(parents=True)
    for number in range(5):
        image, label = random.randint(256, size=(56, 64, 3)), random.randint(len(CLASSES), size=(56, 64))
        Image.fromarray(image.astype(np.uint8)).save(tmp_path / "data" / "images" / f"{number}.png")
        Image.fromarray(label.astype(np.uint8)).save(tmp_path / "data" / "labels" / f"{number}.png")

    def make(model, with_labels=True, **hook):
        load = [{"type": "LoadImageFromFile"}, *([{"type": "LoadAnnotations"}] if with_labels else [])]
        loader = {
            "batch_size": 2,
            "num_workers": 0,
            "sampler": {"type": "DefaultSampler", "shuffle": False},
            "dataset": {
                "type": "BaseSegDataset",
                "data_root": str(tmp_path / "data"),
                "data_prefix": {"img_path": "images", "seg_map_path": "labels"},
                "img_suffix": ".png",
                "metainfo": {"classes": CLASSES, "palette": PALETTE},
                "pipeline": [*load, {"type": "PackSegInputs"}],
            },
        }
        evaluator = {"type": "IoUMetric"} if with_labels else {"type": "IoUMetric", "format_only": True}
        cfg = {
            "model": model,
            "work_dir": str(tmp_path / "work"),
            "experiment_name": "run",
            "default_scope": "mmseg",
            "log_level": "ERROR",
            "val_dataloader": loader,
            "val_evaluator": evaluator,
            "val_cfg": {},
            "test_dataloader": loader,
            "test_evaluator": {**evaluator, "output_dir": str(tmp_path / "out")},
            "test_cfg": {},
            "visualizer": {
                "type": "SegLocalVisualizer",
                "name": f"hook test {tmp_path.name}",
                "vis_backends": [{"type": "LocalVisBackend"}],
            },
            "custom_hooks": [{"type": "UncertaintyVisualizationHook", **hook}],
        }
        return Runner.from_cfg(Config(cfg))

    return make


def pictures(folder):
    return sorted(path.name for path in folder.glob("uncertainty/*.png"))


def test_every_second_image_to_disk_and_backend(runner_of, tmp_path):
    runner_of(student_config(), interval=2).test()
    assert pictures(tmp_path / "work") == ["0.png", "2.png", "4.png"]
    picture = np.asarray(Image.open(tmp_path / "work" / "uncertainty" / "2.png"))
    assert picture.shape[1] > PANELS * 64 and picture.dtype == np.uint8
    handed_on = list((tmp_path / "work").glob("*/vis_data/vis_image/**/*.png"))
    assert len(handed_on) == 3
    assert any(np.array_equal(np.asarray(Image.open(path)), picture) for path in handed_on)


def test_validation_draws_up_to_its_limit_each_time(runner_of, tmp_path):
    runner = runner_of(student_config(), interval=1, limit=2)
    for _ in range(2):
        runner.val()
        assert pictures(tmp_path / "work") == ["0.png", "1.png"]
        for path in (tmp_path / "work" / "uncertainty").iterdir():
            path.unlink()


@pytest.mark.parametrize("kind", ["teacher", "baseline"])
def test_teachers_are_drawn_and_plain_segmentors_passed_over(kind, runner_of, tmp_path):
    model = segmentor_config()
    if kind == "teacher":
        checkpoints = write_members(tmp_path, 2, classes=CLASSES)
        model = {"type": "DeepEnsembleSegmentor", "segmentor": model, "checkpoints": checkpoints}
    runner_of(model, interval=4).test()
    assert pictures(tmp_path / "work") == (["0.png", "4.png"] if kind == "teacher" else [])


def test_images_without_labels(runner_of, tmp_path):
    runner_of(student_config(), with_labels=False, interval=3).test()
    with_two_panels_less = Image.open(tmp_path / "work" / "uncertainty" / "3.png").width
    runner_of(student_config(), interval=3).test()
    whole = Image.open(tmp_path / "work" / "uncertainty" / "3.png").width
    assert pictures(tmp_path / "work") == ["0.png", "3.png"]
    assert with_two_panels_less / whole == pytest.approx(3 / 5, abs=0.05)


def test_a_sample_becomes_its_picture(tmp_path):
    path = tmp_path / "street.png"
    Image.new("RGB", (200, 100), (10, 20, 30)).save(path)
    sample = SegDataSample(metainfo={"img_path": str(path)})
    sample.pred_sem_seg = PixelData(data=torch.ones(1, 100, 200, dtype=torch.float32))  # of a head of one output
    sample.gt_sem_seg = PixelData(data=torch.full((1, 100, 200), 255))
    sample.pred_uncertainty = PixelData(data=torch.zeros(1, 100, 200, dtype=torch.float16))
    picture = draw_sample(sample, PALETTE)
    bottom = picture[-2, 100::204][:4].tolist()
    assert bottom == [[10, 20, 30], [0, 0, 0], PALETTE[1], [255, 255, 255]]


def test_an_interval_is_at_least_one():
    with pytest.raises(ValueError, match="interval must be at least 1, got 0"):
        UncertaintyVisualizationHook(interval=0)

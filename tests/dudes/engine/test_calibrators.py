"""Calibrators of segmentors: what they are fitted to, that they are fitted once, and whom they are for."""

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.dataset import Compose, pseudo_collate
from mmseg.registry import DATASETS
from PIL import Image
from tiny_segmentors import build, segmentor_config, student_config, write_members

from dudes_mmseg.cli import ConfigError
from dudes_mmseg.engine.calibrators import check_calibrators, fit_once, held_out, with_calibrator
from dudes_mmseg.engine.claims import evaluation_settings, training_settings
from dudes_mmseg.engine.held_out import fit_held_out
from dudes_mmseg.models.calibration import half_of
from uncertainty_core.recalibration import Platt, fit_class_isotonic, fit_class_temperature, fit_vector, load
from uncertainty_core.sampling.pixels import PixelSample

SHOWN = [{"type": "LoadImageFromFile"}, {"type": "LoadAnnotations"}, {"type": "PackSegInputs"}]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Four images of each split, and the weights of two networks. Not to be changed."""
    folder, random = tmp_path_factory.mktemp("data"), np.random.RandomState(0)
    for split in ("train", "val", "test"):
        for kind in ("images", "labels"):
            (folder / kind / split).mkdir(parents=True)
        for number in range(4):
            cells = random.randint(256, size=(7, 8, 3), dtype=np.uint8)
            labels = random.choice([0, 1, 2, 3, 255], size=(7, 8)).astype(np.uint8)
            for kind, values in (("images", cells), ("labels", labels)):
                picture = Image.fromarray(values).resize((64, 56), Image.Resampling.NEAREST)
                picture.save(folder / kind / split / f"{number}.png")
    write_members(folder, 2)
    return folder


def config(data, val="val", **options):
    def loader(split):
        dataset = {
            "type": "BaseSegDataset",
            "data_root": str(data),
            "data_prefix": {"img_path": f"images/{split}", "seg_map_path": f"labels/{split}"},
            "img_suffix": ".png",
            "metainfo": {"classes": tuple("abcd"), "palette": [[k, k, k] for k in range(4)]},
            "pipeline": SHOWN,
        }
        sampler = {"type": "DefaultSampler", "shuffle": False}
        return {"batch_size": 1, "num_workers": 0, "sampler": sampler, "dataset": dataset}

    return Config(
        {
            "default_scope": "mmseg",
            "model": segmentor_config(),
            "test_cfg": {"type": "TestLoop"},
            "test_dataloader": loader("test"),
            "test_evaluator": {"type": "IoUMetric"},
            "val_dataloader": loader(val),
            "val_cfg": {"type": "ValLoop"},
            "val_evaluator": {"type": "IoUMetric"},
            "train_dataloader": loader("train"),
            "train_cfg": {"type": "IterBasedTrainLoop", "max_iters": 1},
            "optim_wrapper": {"type": "OptimWrapper", "optimizer": {"type": "SGD", "lr": 0.1}},
            **options,
        }
    )


def fit_by_hand(cfg, split, fit, size, half=None):
    """As a slow reader would: the network on each image, then the sample, then the fit."""
    dataset, model, sample = DATASETS.build(cfg[f"{split}_dataloader"].dataset), build(cfg.model), PixelSample(size)
    for k in range(len(dataset)):
        info = dataset.get_data_info(k)
        with torch.no_grad():
            [found] = model.test_step(pseudo_collate([Compose(SHOWN)(info)]))
        key = "/".join(info["img_path"].split("/")[-2:])
        if half in (None, half_of(key)):
            sample.add(key, found.seg_logits.data.softmax(0), found.gt_sem_seg.data[0])
    return fit(sample.probabilities, sample.labels)


def test_fits_are_what_a_loop_over_the_images_gives_and_not_repeated(data, tmp_path):
    cfg, steps, folder = config(data), [], tmp_path / "fit" / "baseline"
    given = {"checkpoint": str(data / "member_0" / "iter_7.pth"), "split": "val", "step": steps.append, "size": 500}
    files = fit_once(cfg, methods=["temperature", "isotonic"], folder=folder, **given)
    assert files == {name: [folder / f"{name}.json"] for name in ("temperature", "isotonic")}
    assert load(folder / "temperature.json") == fit_by_hand(cfg, "val", fit_class_temperature, 500)
    assert load(folder / "isotonic.json") == fit_by_hand(cfg, "val", fit_class_isotonic, 500)
    before = {path.name: path.read_bytes() for path in folder.glob("*.json")}

    # in other batches and another order
    other = config(data, work_dir="elsewhere")
    other.test_dataloader.batch_size = 3
    other.test_dataloader.sampler.shuffle = True
    fit_once(other, methods=["temperature"], folder=tmp_path / "other", **given)
    assert (tmp_path / "other" / "temperature.json").read_bytes() == before["temperature.json"]

    # what is there stays; what a kill left out is fitted; another network has calibrators of its own
    (folder / "isotonic.json").unlink()
    (folder / "temperature.json").touch()
    for methods, said in (
        (["temperature"], "fitted before"),
        (["temperature", "isotonic"], "isotonic, fitted to 4 val"),
    ):
        fit_once(cfg, methods=methods, folder=folder, **given)
        assert said in steps[-1] and "temperature" not in steps[-1]
    assert {path.name: path.read_bytes() for path in folder.glob("*.json")} == before
    written = (folder / "temperature.json").stat().st_mtime_ns
    fit_once(cfg, methods=["temperature"], folder=folder, overwrite=True, **given)
    assert (folder / "temperature.json").stat().st_mtime_ns > written
    given["checkpoint"] = str(data / "member_1" / "iter_7.pth")
    fit_once(cfg, methods=["temperature"], folder=folder, **given)
    assert (folder / "temperature.json").read_bytes() != before["temperature.json"]
    assert not (folder / "isotonic.json").exists()


def test_test_images_are_fitted_half_by_half(data, tmp_path):
    cfg, steps = config(data, val="test"), []
    checkpoint = str(data / "member_0" / "iter_7.pth")
    files = fit_once(cfg, checkpoint, ["temperature"], "val", tmp_path, steps.append)["temperature"]
    for half, path in enumerate(files):
        assert load(path) == fit_by_hand(cfg, "test", fit_class_temperature, 10**6, half)
    assert "each half of the 4 val images for the other, since they are the test images" in steps[0]
    assert with_calibrator(cfg, files).model.calibrator == [str(path) for path in files]


def test_one_half_tells_what_a_calibrator_does_to_the_other(data, tmp_path):
    cfg = config(data, model=student_config(), work_dir=str(tmp_path))
    weights = str(tmp_path / "student.pth")
    torch.save({"state_dict": build(cfg.model).state_dict()}, weights)
    classes, errors = fit_held_out(cfg, weights, "val", 10**6, "vector", "platt")
    assert classes.calibrator == fit_by_hand(cfg, "val", fit_vector, 10**6)
    assert isinstance(errors.calibrator, Platt) and errors.pixels == classes.pixels > 5000
    fitted = fit_by_hand(cfg, "val", fit_vector, 10**6, half=0)
    probabilities, labels = fit_by_hand(cfg, "val", lambda *sample: sample, 10**6, half=1)
    lines = classes.table.splitlines()
    assert lines[0] == f"vector: fitted to one half of the images, on {len(labels):,} pixels of the other"
    for line, values in zip(lines[-2:], (probabilities, fitted(probabilities)), strict=True):
        nll = -values.gather(1, labels[:, None]).log().mean().item()
        accuracy = 100 * (values.argmax(1) == labels).double().mean().item()
        assert f" {nll:.4f} " in line and f" {accuracy:.2f} " in line
    with pytest.raises(ConfigError, match="which gives no uncertainty"):
        checkpoint = str(data / "member_0" / "iter_7.pth")
        fit_held_out(config(data, work_dir=str(tmp_path)), checkpoint, "val", 100, "temperature", "platt")


def test_images_are_shown_as_at_test_time_and_each_once(data):
    cfg = config(data)
    images = cfg.train_dataloader.dataset
    changed = images | {"pipeline": [{"type": "RandomFlip"}]}
    cfg.train_dataloader.dataset = {
        "type": "RepeatDataset",
        "times": 9,
        "dataset": {"type": "ConcatDataset", "datasets": [changed]},
    }
    expected = {"type": "ConcatDataset", "datasets": [images]}
    assert held_out(cfg, "train").test_dataloader == cfg.test_dataloader | {"dataset": expected}


def test_whom_calibrators_are_for(data, tmp_path):
    cfg = config(data)
    assert with_calibrator(cfg, [tmp_path]).model == segmentor_config(
        type="CalibratedEncoderDecoder", calibrator=str(tmp_path)
    )
    assert with_calibrator(config(data, model=student_config()), [tmp_path]).model.type == "DUDESEncoderDecoder"
    for other, message in (
        (config(data, model={"type": "DepthEstimator"}), "model.type is DepthEstimator, which takes no calibrator"),
        (config(data, model=student_config(calibrator="c.json")), "model.calibrator is set"),
        (config(data, val_dataloader=None), "the config has no val_dataloader"),
    ):
        with pytest.raises(ConfigError, match=message):
            check_calibrators([other], "val")


def test_a_calibrator_decides_an_evaluation_and_no_training(data, tmp_path):
    path = tmp_path / "calibrator.json"
    cfg, calibrated = config(data), config(data, model=segmentor_config(calibrator=str(path)))
    assert training_settings(cfg) == training_settings(calibrated)
    checkpoint, found = str(data / "member_0" / "iter_7.pth"), []
    for content in ("one", "two"):
        path.write_text(content)
        found.append(evaluation_settings(calibrated, checkpoint))
    assert found[0] != found[1]
    path.rename(tmp_path / "moved.json")
    calibrated.model.calibrator = str(tmp_path / "moved.json")
    assert evaluation_settings(calibrated, checkpoint) == found[1]

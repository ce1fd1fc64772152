"""A folder of images through a segmentor: what mmseg itself would say of each, written once, and found again."""

import csv
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from forked_tools import KILLED, die_at_call, run, run_tool
from full_disk import full_disk
from mmengine.config import Config
from mmseg.apis import inference_model
from mmseg.datasets.transforms import LoadAnnotations
from mmseg.registry import MODELS
from PIL import Image
from tiny_segmentors import build, segmentor_config, student_config

from dudes_mmseg.inference.folder import Row, encode_unit_interval
from dudes_mmseg.inference.predict import predict_images
from uncertainty_core.errors import UserError
from uncertainty_core.io.images import find_images

NAMES = ("a.jpg", "b.PNG", "deep/c.png", "deep/er/d.bmp")
SIZES = ((40, 30), (64, 56), (30, 50), (2100, 90))  # width, height
CLASSES = ("road", "sky", "car", "tree")
PALETTE = [[128, 64, 128], [70, 130, 180], [0, 0, 142], [107, 142, 35]]
TEST = [
    {"type": "LoadImageFromFile"},
    {"type": "Resize", "scale": (64, 48), "keep_ratio": True},
    {"type": "LoadAnnotations"},
    {"type": "PackSegInputs"},
]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Images of several sizes, kinds and depths among other files, and checkpoints. Not to be changed."""
    folder, random = tmp_path_factory.mktemp("data"), np.random.RandomState(0)
    for name, size in zip(NAMES, SIZES, strict=True):
        path = folder / "images" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        cells = random.randint(256, size=(4, 5) if name == "b.PNG" else (4, 5, 3))  # that one is grey
        Image.fromarray(cells.astype(np.uint8)).resize(size, Image.Resampling.NEAREST).save(path)
    (folder / "images" / "notes.txt").write_text("no image")
    (folder / "images" / ".hidden.png").write_text("no image")
    (folder / "images" / ".thumbnails").mkdir()
    shutil.copy(folder / "images" / "a.jpg", folder / "images" / ".thumbnails" / "a.jpg")
    for seed in range(2):
        torch.save({"state_dict": build(student_config(), seed).state_dict()}, folder / f"student_{seed}.pth")
        torch.save({"state_dict": build(segmentor_config(), seed).state_dict()}, folder / f"member_{seed}.pth")
    return folder


def config(model, **dataset):
    metainfo = {"classes": CLASSES, "palette": PALETTE}
    dataset = {"type": "BaseSegDataset", "metainfo": metainfo, "pipeline": TEST, **dataset}
    return Config({"default_scope": "mmseg", "model": model, "test_dataloader": {"num_workers": 0, "dataset": dataset}})


def student(**options):
    return config(student_config(), **options)


def predict(data, output, cfg=None, checkpoint="student_0.pth", **options):
    return predict_images(cfg or student(), str(data / checkpoint), data / "images", output, **options)


def files(folder):
    paths = (path for path in folder.rglob("*") if path.is_file() and path.suffix != ".part")
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}


@pytest.fixture(scope="module")
def undisturbed(data, tmp_path_factory):
    """Predictions that were made in one go. Not to be changed."""
    folder = tmp_path_factory.mktemp("undisturbed") / "out"
    predict(data, folder, level=0.5, top=3)
    return folder


def png(path):
    with Image.open(path) as picture:
        return np.array(picture)


def stem(name):
    return name.rsplit(".", 1)[0]


# What is written


def ensemble(data):
    return {
        "type": "DeepEnsembleSegmentor",
        "segmentor": segmentor_config(),
        "checkpoints": [str(data / f"member_{seed}.pth") for seed in range(2)],
    }


def mc_dropout(data):
    member = {"segmentor": segmentor_config(), "checkpoint": str(data / "member_0.pth")}
    return {"type": "MCDropoutSegmentor", **member, "num_samples": 3}


@pytest.mark.parametrize("make", [None, ensemble, mc_dropout])
def test_maps_are_what_mmseg_says_of_each_image(data, undisturbed, tmp_path, make):
    if make is None:
        folder, model = undisturbed, build(student_config())
    else:
        folder, model = tmp_path / "out", MODELS.build(make(data))
        predict_images(config(make(data)), None, data / "images", folder)
    model.cfg = Config({"test_pipeline": [dict(step) for step in TEST]})
    for name, (width, height) in zip(NAMES, SIZES, strict=True):
        said = inference_model(model, str(data / "images" / name))
        classes, codes = (png(folder / kind / f"{stem(name)}.png") for kind in ("classes", "uncertainty"))
        assert classes.shape == codes.shape == (height, width)
        np.testing.assert_array_equal(classes, said.pred_sem_seg.data[0])
        expected = said.pred_uncertainty.data[0].double()
        assert np.abs(codes / 65535 - expected.numpy()).max() <= 0.5 / 65535 + 1e-9
        assert expected.std() > 0.001  # else this says little


def test_a_class_map_shows_colours_and_is_read_as_labels(data, undisturbed):
    path = undisturbed / "classes" / "deep" / "c.png"
    classes = LoadAnnotations()({"seg_map_path": str(path), "seg_fields": [], "reduce_zero_label": False})["gt_seg_map"]
    assert set(np.unique(classes)) <= set(range(len(CLASSES)))
    with Image.open(path) as picture:
        np.testing.assert_array_equal(np.array(picture.convert("RGB")), np.array(PALETTE)[classes])


def test_colours_follow_the_classes_that_a_config_picks_of_a_data_set_that_is_not_there(data, tmp_path):
    # classes 10, 0, 13 and 8 of Pascal VOC, whose class asks for its folder; their colours as its development kit's
    picked = {"classes": ("cow", "background", "horse", "cat")}
    colours = [[64, 128, 0], [0, 0, 0], [192, 0, 128], [64, 0, 0]]
    cfg = student(type="PascalVOCDataset", metainfo=picked, data_root="nowhere", ann_file="none.txt")
    predict(data, tmp_path / "out", cfg)
    with Image.open(tmp_path / "out" / "classes" / "a.png") as picture:
        indices = np.array(picture)
        np.testing.assert_array_equal(np.array(picture.convert("RGB")), np.array(colours)[indices])


def test_a_strip_shows_the_image_and_is_of_a_size_to_look_at(data, undisturbed):
    a, wide = (png(undisturbed / "strips" / f"{stem(name)}.png") for name in (NAMES[0], NAMES[3]))
    with Image.open(data / "images" / "a.jpg") as picture:
        # panels narrower than 160 pixels grow by a whole factor, here 4; below them is nothing
        shown = a[-4 * 30 :: 4, : 4 * 40 : 4].astype(int)
        assert np.abs(shown - np.array(picture)).max() <= 3  # two decoders of JPEG
    assert wide.shape[1] < 3 * 1024
    assert wide.shape[1] > 3 * 600


def test_rows_say_how_uncertain_each_image_is_the_most_uncertain_first(undisturbed):
    with open(undisturbed / "images.csv", newline="") as file:
        header, *rows = csv.reader(file)
    assert header == ["image", "width", "height", "mean_uncertainty", "share_above_0.5"]
    found = {image: (int(width), int(height), float(mean), float(share)) for image, width, height, mean, share in rows}
    assert set(found) == set(NAMES)
    for name, size in zip(NAMES, SIZES, strict=True):
        values = [int(code) / 65535 for code in png(undisturbed / "uncertainty" / f"{stem(name)}.png").ravel()]
        mean = sum(values) / len(values)
        share = sum(value > 0.5 for value in values) / len(values)
        assert found[name] == (*size, pytest.approx(mean, abs=1e-6), pytest.approx(share, abs=1e-6))
    means = [float(row[3]) for row in rows]
    assert means == sorted(means, reverse=True)
    assert len(set(means)) == len(NAMES)


def test_a_row_by_hand():
    codes = np.array([[0, 65535], [13107, 13108]], np.uint16)  # 0, 1, 0.2, and a little more
    assert Row.of("x", codes, 0.2) == ("x", 2, 2, pytest.approx((0 + 1 + 0.2 + 0.2) / 4, abs=1e-5), 0.5)
    assert encode_unit_interval(np.array([[0, 1], [0.2, 0.5]], np.float32)).tolist() == [[0, 65535], [13107, 32768]]


def test_the_index_shows_the_strips_of_the_first_rows(undisturbed):
    with open(undisturbed / "images.csv", newline="") as file:
        first = [row["image"] for row in csv.DictReader(file)][:3]
    sizes = [png(undisturbed / "strips" / f"{stem(name)}.png").shape for name in first]
    height = sum(32 + round(1200 * height / width) for height, width, _ in sizes)
    assert png(undisturbed / "index.png").shape == (height, 1200, 3)


# Once more


def count_predictions(monkeypatch):
    """A list that grows by an image's size with each prediction."""
    cls, seen = MODELS.get("DUDESEncoderDecoder"), []
    original = cls.test_step
    monkeypatch.setattr(cls, "test_step", lambda self, data: seen.append(1) or original(self, data))
    return seen


def predict_and_die(data, output, replacement):
    die_at_call(os, "replace", replacement)
    predict(data, output, level=0.5, top=3)


# predictor.json, then three files of each of four images, images.csv and index.png
@pytest.mark.parametrize("replacement", [1, 6, 7, 14])
def test_a_killed_run_started_again_ends_with_the_same_bytes(data, undisturbed, tmp_path, monkeypatch, replacement):
    output = tmp_path / "out"
    assert run(predict_and_die, data, output, replacement, folder=tmp_path).code == KILLED
    assert files(output) != files(undisturbed)
    seen = count_predictions(monkeypatch)
    predict(data, output, level=0.5, top=3)
    assert len(seen) == {1: 4, 6: 3, 7: 3, 14: 0}[replacement]
    assert files(output) == files(undisturbed)


def test_a_full_disk_costs_what_it_cannot_hold(data, undisturbed, tmp_path):
    output, largest = tmp_path / "out", "strips/deep/er/d.png"
    with pytest.raises(OSError, match=rf"{largest}'$"), full_disk((undisturbed / largest).stat().st_size - 1):
        predict(data, output, level=0.5, top=3)
    written, whole = files(output), files(undisturbed)
    assert {"predictor.json", "uncertainty/a.png"} <= written.keys() < whole.keys()
    assert all(written[name] == whole[name] for name in written)
    assert not list(output.rglob("*.part"))
    predict(data, output, level=0.5, top=3)
    assert files(output) == whole


def test_only_what_has_changed_is_predicted_again(data, undisturbed, tmp_path, monkeypatch):
    copy, output = tmp_path / "data", tmp_path / "out"
    shutil.copytree(data, copy)
    shutil.copytree(undisturbed, output)
    seen = count_predictions(monkeypatch)
    predict(copy, output, level=0.5, top=3)
    assert (len(seen), files(output) == files(undisturbed)) == (0, True)

    damaged = output / "uncertainty" / "b.png"
    damaged.write_bytes(damaged.read_bytes()[:-40])
    (output / "strips" / "deep" / "c.png").unlink()
    predict(copy, output, level=0.5, top=3)
    assert (len(seen), files(output) == files(undisturbed)) == (2, True)

    (copy / "images" / "b.PNG").rename(copy / "images" / "e.png")
    Image.new("RGB", SIZES[0]).save(copy / "images" / "a.jpg")
    predict(copy, output, level=0.5, top=3)
    assert len(seen) == 4  # one has a new name, one other pixels
    with open(output / "images.csv", newline="") as file:
        assert {row["image"] for row in csv.DictReader(file)} == {*NAMES, "e.png"}  # what was there stays


def test_other_images_join_those_of_earlier_runs(data, undisturbed, tmp_path):
    parts, model = tmp_path / "parts", (student(), str(data / "student_0.pth"))
    for name in NAMES:
        path = parts / name.partition(".")[0].replace("/", "-") / name
        path.parent.mkdir(parents=True)
        shutil.copy(data / "images" / name, path)
    for part in sorted(parts.iterdir()):
        rows = predict_images(*model, part, tmp_path / "out", level=0.5, top=3)
    assert [row.image for row in rows] == list(NAMES)
    assert files(tmp_path / "out") == files(undisturbed)


def test_predictions_by_another_segmentor_are_refused(data, undisturbed):
    slide = student_config(test_cfg={"mode": "slide", "crop_size": (24, 24), "stride": (12, 12)})
    resized = [{**step, "scale": (48, 36)} if step["type"] == "Resize" else step for step in TEST]
    before = files(undisturbed)
    for cfg, checkpoint in (
        (student(), "student_1.pth"),
        (config(slide), "student_0.pth"),
        (student(pipeline=resized), "student_0.pth"),
    ):
        with pytest.raises(UserError, match=r"holds predictions by other weights, or with another config"):
            predict(data, undisturbed, cfg, checkpoint)
    assert files(undisturbed) == before


# What cannot be used


def test_images_that_cannot_be_read_are_named_when_the_others_are_done(data, undisturbed, tmp_path):
    copy = tmp_path / "data"
    shutil.copytree(data, copy)
    for name, content in (("empty.jpg", b""), ("deep/text.png", b"no image")):
        (copy / "images" / name).write_bytes(content)
    with pytest.raises(UserError, match=r"^2 of 6 images cannot be read and are left out: deep/text.png, empty.jpg:"):
        predict(copy, tmp_path / "out", level=0.5, top=3)
    assert files(tmp_path / "out") == files(undisturbed)


@pytest.mark.parametrize(
    ("cfg", "checkpoint", "message"),
    [
        (config(segmentor_config()), "member_0.pth", "model.type is EncoderDecoder, which gives no uncertainty: give"),
        (student(), None, "a student needs its weights: name a checkpoint behind the config"),
        (student(), "nowhere.pth", "there is no checkpoint .*nowhere.pth"),
        (student(), "member_0.pth", r"member_0.pth holds no finite uncertainty_head.conv.weight of shape \(1, 8"),
        (
            config(student_config(uncertainty_head={"num_outputs": 4})),
            "student_0.pth",
            r"holds no finite uncertainty_head.conv.weight of shape \(4, 8",
        ),
        (student(metainfo={"classes": ("a", "b")}), "student_0.pth", "names 2 classes, and the model has 4"),
        (Config({"model": student_config()}), "student_0.pth", "no test_dataloader, which decides how images are"),
    ],
)
def test_what_does_not_predict_is_refused_before_anything_is_written(data, tmp_path, cfg, checkpoint, message):
    with pytest.raises(UserError, match=message) as caught:
        predict_images(cfg, checkpoint and str(data / checkpoint), data / "images", tmp_path / "out")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_a_teacher_takes_no_checkpoint(data, tmp_path):
    with pytest.raises(UserError, match=r"a teacher reads the checkpoints in its config: leave out .*student_0"):
        predict(data, tmp_path / "out", config(ensemble(data)))


def test_where_there_are_no_images_is_said(data, tmp_path):
    assert list(find_images(data / "images")) == list(NAMES)
    assert list(find_images(data / "images" / "deep")) == ["c.png", "er/d.bmp"]
    assert list(find_images(data / "images" / "a.jpg")) == ["a.jpg"]
    with pytest.raises(UserError, match=r"there is no folder and no image .*nowhere"):
        find_images(tmp_path / "nowhere")
    with pytest.raises(UserError, match=r"holds no image \(.bmp, "):
        find_images(tmp_path)
    for name in ("a.jpg", "a.png"):
        shutil.copy(data / "images" / "a.jpg", tmp_path / name)
    with pytest.raises(UserError, match=r"holds a.jpg and a.png, whose results would have one name: rename one"):
        find_images(tmp_path)


@pytest.mark.parametrize("output", ["images", "images/out", "."])
def test_results_do_not_mix_with_images(data, tmp_path, output):
    images = tmp_path / ("classes" if output == "." else "images")
    shutil.copytree(data / "images", images)
    before = files(tmp_path)
    with pytest.raises(UserError, match=r"and the images of .* would mix: choose another folder"):
        predict_images(student(), str(data / "student_0.pth"), images, tmp_path / output)
    assert files(tmp_path) == before


def test_results_do_not_lie_beside_a_single_image(data, tmp_path):
    image = shutil.copy(data / "images" / "a.jpg", tmp_path / "index.png")
    with pytest.raises(UserError, match="would mix: choose another folder"):
        predict_images(student(), str(data / "student_0.pth"), Path(image), tmp_path)


@pytest.mark.parametrize("value", [float("nan"), 1.1, -0.1])
def test_no_code_stands_for_what_is_no_uncertainty(value):
    with pytest.raises(ValueError, match=r"not in \[0, 1\] everywhere"):
        encode_unit_interval(np.array([[0.5, value]]))


def test_a_folder_of_other_use_is_refused(data, tmp_path):
    (tmp_path / "strips").mkdir()
    with pytest.raises(UserError, match=r"holds strips/ but no predictor.json, so it is of other use"):
        predict(data, tmp_path)


# The command line


def test_the_tool_does_the_same(data, undisturbed, tmp_path):
    student().dump(tmp_path / "student.py")
    words = ("predict_seg", "student.py", data / "student_0.pth", "--output", "out", "--images")
    outcome = run_tool(*words, data / "images", "--level", 0.5, "--top", 3, folder=tmp_path)
    assert outcome.code == 0, outcome.err
    assert outcome.err == "log: out/log.txt\n"  # no progress bar, for it is a file
    with open(undisturbed / "images.csv", newline="") as file:
        first = next(csv.DictReader(file))["image"]
    assert f"4 images in out, the most uncertain is {first} (0." in outcome.out
    (tmp_path / "out" / "log.txt").unlink()
    assert files(tmp_path / "out") == files(undisturbed)

    outcome = run_tool(*words, "nowhere", folder=tmp_path)
    assert (outcome.code, outcome.err) == (2, "error: there is no folder and no image nowhere\n")

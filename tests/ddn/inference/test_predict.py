"""A folder of images through a detector: what is written, continued, refused, and equal to what the model returns."""

import csv
import json
import shutil

import cv2
import numpy as np
import pytest
import torch
from detectron2.data import DatasetCatalog
from detectron2.data.detection_utils import read_image
from forked_tools import run_tool
from PIL import Image

from ddn_detectron2.data import register_coco_format
from ddn_detectron2.inference import DDNPredictor
from ddn_detectron2.inference.folder import categories, categories_of, predict_folder
from uncertainty_core.errors import UserError


@pytest.fixture
def photos(small, tmp_path):
    """Three scenes, one of them in a folder."""
    folder = tmp_path / "photos"
    (folder / "deep").mkdir(parents=True)
    one, two, three = sorted((small.folder / "scenes" / "val").iterdir())[:3]
    shutil.copy(one, folder / "b.png")
    shutil.copy(two, folder / "a.png")
    shutil.copy(three, folder / "deep" / "c.png")
    return folder


def times(folder):
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file() and path.name != "log.txt"}


def test_a_folder_is_predicted_ranked_and_continued(config, photos, tmp_path, monkeypatch):
    cfg, output = config(), tmp_path / "predicted"
    ranked = predict_folder(cfg, photos, output, score_threshold=0.1, top=2)
    assert {found.image for found in ranked} == {"a.png", "b.png", "deep/c.png"}
    doubts = [found.doubt for found in ranked]
    assert doubts == sorted(doubts, reverse=True) and doubts[0] > 0

    # the model itself, by Detectron2's way
    instances = DDNPredictor(cfg)(cv2.imread(str(photos / "a.png")))["instances"]
    scores = next(found for found in ranked if found.image == "a.png").detections
    assert [detection.score for detection in scores] == instances.scores.tolist()
    left, top, right, bottom = instances.pred_boxes.tensor[0].tolist()
    assert scores[0].bbox == pytest.approx([left, top, right - left, bottom - top], rel=1e-5)

    content = json.loads((output / "detections.json").read_text())
    assert [image["file_name"] for image in content["images"]] == ["a.png", "b.png", "deep/c.png"]
    assert {category["name"] for category in content["categories"]} == set(categories_of(cfg).values())
    by_image = [entry["score"] for entry in content["annotations"] if entry["image_id"] == 1]
    assert by_image == instances.scores.tolist()
    rows = list(csv.DictReader((output / "images.csv").open()))
    assert [row["image"] for row in rows] == [found.image for found in ranked]
    assert Image.open(output / "pictures" / "deep" / "c.png").size == Image.open(photos / "deep" / "c.png").size

    # what is there is kept, what is damaged or changed is done anew; other images join
    before = times(output)
    (output / "found" / "b.json").write_text("{")
    shutil.copy(photos / "a.png", photos / "deep" / "c.png")
    (photos / "a.png").unlink()
    again = predict_folder(cfg, photos, output, score_threshold=0.1, top=2)
    assert {found.image for found in again} == {"a.png", "b.png", "deep/c.png"}
    changed = {path.relative_to(output).as_posix() for path, time in times(output).items() if before.get(path) != time}
    assert {"found/b.json", "found/deep/c.json"} <= changed and "found/a.json" not in changed
    with pytest.raises(UserError, match="other weights, or with another config"):
        predict_folder(config("MODEL.DDN.TEST.MC_SAMPLES", 2), photos, output)


def test_passes_give_deviations(config, photos, tmp_path):
    ranked = predict_folder(config("MODEL.DDN.TEST.MC_SAMPLES", 2), photos / "a.png", tmp_path / "predicted")
    assert len(ranked) == 1
    assert all(detection.score_std is not None for detection in ranked[0].detections)


def test_unreadable_images_are_named_at_the_end_and_others_kept(config, photos, tmp_path):
    (photos / "b.png").write_bytes(b"no picture")
    with pytest.raises(UserError, match="1 of 3 images cannot be read and are left out: b"):
        predict_folder(config(), photos, tmp_path / "predicted")
    assert len(json.loads((tmp_path / "predicted" / "detections.json").read_text())["images"]) == 2


def test_deep_pictures_are_left_out_and_not_cut_off(config, photos, tmp_path):
    Image.fromarray(np.full((64, 64), 3000, np.uint16)).save(photos / "b.png")
    with pytest.raises(UserError, match="1 of 3 images cannot be read"):
        predict_folder(config(), photos, tmp_path / "predicted")


def test_ids_of_categories_are_those_of_the_annotations(tmp_path):
    content = {
        "images": [{"id": 1, "file_name": "a.png", "width": 8, "height": 8}],
        "categories": [{"id": 7, "name": "bus"}, {"id": 3, "name": "car"}],
        "annotations": [],
    }
    (tmp_path / "truth.json").write_text(json.dumps(content))
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    register_coco_format("two_vehicles", tmp_path / "truth.json", tmp_path)
    assert categories(["two_vehicles"], 2) == {3: "car", 7: "bus"}
    assert DatasetCatalog.get("two_vehicles")  # Detectron2 finds the same ids


def test_folders_that_would_mix_are_refused(config, photos, tmp_path):
    with pytest.raises(UserError, match="would mix"):
        predict_folder(config(), photos, photos)
    (tmp_path / "taken" / "found").mkdir(parents=True)
    with pytest.raises(UserError, match="it is of other use"):
        predict_folder(config(), photos, tmp_path / "taken")


def test_an_image_without_objects_has_no_doubt(config, tmp_path):
    Image.fromarray(np.zeros((64, 64, 3), np.uint8)).save(tmp_path / "black.png")
    [found] = predict_folder(config("MODEL.ROI_HEADS.SCORE_THRESH_TEST", 1.0), tmp_path / "black.png", tmp_path / "out")
    assert found.detections == [] and found.doubt == 0


def test_the_predictor_takes_bgr_as_detectron2_does(config, photos):
    image = read_image(str(photos / "a.png"), format="BGR")
    bgr, rgb = (DDNPredictor(config("INPUT.FORMAT", order))(image)["instances"].scores for order in ("BGR", "RGB"))
    assert not torch.equal(bgr, rgb)


def test_the_tool(small, photos, tmp_path):
    arguments = ["--config-file", small.ddn, "--images", photos, "--output", tmp_path / "out", "--top", 1]
    done = run_tool("predict_det", *arguments, "MODEL.WEIGHTS", small.weights, folder=tmp_path)
    assert done.code == 0 and "3 images in" in done.out
    wrong = run_tool("predict_det", *arguments[:2], "--images", "nowhere", "--output", "x", folder=tmp_path)
    assert wrong.code == 2 and "no folder and no image nowhere" in wrong.err

"""Registered data sets: lazy scenes, COCO-format files of one's own, and what is said about bad ones."""

import json
import logging
from pathlib import Path

import pytest
import torch
from detectron2.config import get_cfg
from detectron2.data import DatasetCatalog, DatasetMapper, MetadataCatalog, build_detection_train_loader
from detectron2.data import transforms as T
from detectron2.evaluation import COCOEvaluator
from detectron2.structures import Boxes, BoxMode, Instances
from PIL import Image

from ddn_detectron2.data import (
    DatasetError,
    check_num_classes,
    check_on_disk,
    check_same_categories,
    register_coco_format,
    register_scenes,
    scenes,
    write_scenes,
)
from ddn_detectron2.data.shapes import CLASSES


@pytest.fixture(autouse=True)
def catalogs():
    """What a test registers is forgotten after it."""
    before = set(DatasetCatalog), set(MetadataCatalog)
    yield
    for catalog, names in zip((DatasetCatalog, MetadataCatalog), before, strict=True):
        for name in set(catalog) - names:
            catalog.remove(name)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Small splits in the place of the usual ones."""
    folder = tmp_path_factory.mktemp("datasets") / "scenes"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(scenes, "NUM_IMAGES", {"train": 24, "val": 5, "test": 6})
        for split in scenes.NUM_IMAGES:
            write_scenes(folder, split, progress=False)
    return folder


@pytest.fixture
def small(monkeypatch):
    monkeypatch.setattr(scenes, "NUM_IMAGES", {"train": 24, "val": 5, "test": 6})


# Scenes


def test_scenes_are_known_before_they_are_drawn(tmp_path, monkeypatch, small):
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path))
    register_scenes()
    assert list(tmp_path.iterdir()) == []
    metadata = MetadataCatalog.get("scenes_val")
    assert metadata.json_file == str(tmp_path / "scenes" / "instances_val.json")
    assert metadata.image_root == str(tmp_path / "scenes" / "val")
    assert metadata.evaluator_type == "coco"
    assert metadata.thing_classes == list(CLASSES)

    check_on_disk(["scenes_val"])  # though they are not
    entries = DatasetCatalog.get("scenes_val")
    assert len(entries) == 5
    assert all(Path(entry["file_name"]).is_file() for entry in entries)
    assert Path(metadata.json_file).is_file()
    assert metadata.thing_dataset_id_to_contiguous_id == {1: 0, 2: 1, 4: 2, 5: 3, 7: 4, 11: 5}
    assert not (tmp_path / "scenes" / "train").exists(), "each split is drawn when it is asked for"


def test_relative_folders_stay_where_they_were_named(tmp_path, monkeypatch):
    monkeypatch.delenv("DETECTRON2_DATASETS", raising=False)
    monkeypatch.chdir(tmp_path)
    register_scenes()
    assert MetadataCatalog.get("scenes_test").image_root == str(tmp_path / "datasets" / "scenes" / "test")


def test_registering_twice(folder, tmp_path):
    register_scenes(folder)
    register_scenes(folder)
    with pytest.raises(DatasetError, match=r"the name scenes_train is taken by .*: give .* another name"):
        register_scenes(tmp_path)


def test_a_training_reads_masks_and_leaves_crowds_out(folder, small):
    register_scenes(folder)
    cfg = get_cfg()
    cfg.MODEL.MASK_ON = True
    cfg.DATASETS.TRAIN = ("scenes_train",)
    cfg.DATALOADER.NUM_WORKERS = 0
    cfg.SOLVER.IMS_PER_BATCH = 8
    mapper = DatasetMapper(True, augmentations=[T.RandomFlip(prob=1.0)], image_format="BGR", use_instance_mask=True)
    loader = iter(build_detection_train_loader(cfg, mapper=mapper))
    # which annotations there are of each image, but for crowds
    expected = {
        entry["image_id"]: sum(not a["iscrowd"] for a in entry["annotations"])
        for entry in DatasetCatalog.get("scenes_train")
    }
    assert any(a["iscrowd"] for entry in DatasetCatalog.get("scenes_train") for a in entry["annotations"])
    for _ in range(3):
        for image in next(loader):
            instances = image["instances"]
            assert len(instances) == len(instances.gt_masks.polygons) == expected[image["image_id"]] > 0
            assert instances.gt_classes.max() < len(CLASSES)
            mask_boxes, boxes = instances.gt_masks.get_bounding_boxes().tensor, instances.gt_boxes.tensor
            torch.testing.assert_close(mask_boxes, boxes, atol=1e-3, rtol=0)


def test_detectron2_scores_the_truth_itself_perfectly(folder, small, tmp_path):
    register_scenes(folder)
    entries = DatasetCatalog.get("scenes_train")
    evaluator = COCOEvaluator("scenes_train", ("bbox",), False, str(tmp_path), use_fast_impl=False)
    evaluator.reset()
    for entry in entries:
        instances = Instances((entry["height"], entry["width"]))
        kept = [a for a in entry["annotations"] if not a["iscrowd"]]
        boxes = torch.tensor([a["bbox"] for a in kept]).reshape(-1, 4)
        instances.pred_boxes = Boxes(BoxMode.convert(boxes, BoxMode.XYWH_ABS, BoxMode.XYXY_ABS))
        instances.pred_classes = torch.tensor([a["category_id"] for a in kept], dtype=torch.long)
        instances.scores = torch.ones(len(kept))
        evaluator.process([{"image_id": entry["image_id"]}], [{"instances": instances}])
    assert evaluator.evaluate()["bbox"]["AP"] == pytest.approx(100)


# COCO-format files


@pytest.fixture
def coco(tmp_path):
    """A writer of json files for two images, a.png and b.png, of which the caller changes something."""
    images = tmp_path / "images"
    images.mkdir()
    for name in ("a.png", "b.png"):
        Image.new("RGB", (20, 10)).save(images / name)

    def write(change=lambda content: None, name="instances.json"):
        content = {
            "images": [
                {"id": 3, "file_name": "a.png", "height": 10, "width": 20},
                {"id": 8, "file_name": "b.png", "height": 10, "width": 20},
            ],
            "categories": [{"id": 9, "name": "dog"}, {"id": 4, "name": "cat"}],
            "annotations": [
                {"id": 1, "image_id": 3, "category_id": 9, "bbox": [1, 1, 5, 5], "area": 25, "iscrowd": 0},
                {"id": 2, "image_id": 8, "category_id": 4, "bbox": [2, 2, 8, 4], "area": 32, "iscrowd": 0},
            ],
        }
        change(content)
        path = tmp_path / name
        path.write_text(json.dumps(content))
        return path, images

    return write


def test_own_files(coco):
    path, images = coco()
    register_coco_format("pets", path, images)
    register_coco_format("pets", str(path), str(images))  # the same again
    metadata = MetadataCatalog.get("pets")
    assert metadata.thing_classes == ["cat", "dog"]  # in the order of their ids, 4 and 9
    assert (metadata.json_file, metadata.image_root) == (str(path), str(images))
    first, second = DatasetCatalog.get("pets")
    assert first["file_name"] == str(images / "a.png") and first["annotations"][0]["category_id"] == 1
    assert second["annotations"][0]["category_id"] == 0
    with pytest.raises(DatasetError, match="the name pets is taken by"):
        register_coco_format("pets", *coco(name="other.json"))


def test_names_of_detectron2s_own_sets_are_taken(coco):
    with pytest.raises(DatasetError, match="the name coco_2017_val is taken"):
        register_coco_format("coco_2017_val", *coco())


def drop(section, key):
    return lambda content: content[section][1].pop(key)


def put(section, key, value):
    return lambda content: content[section][1].update({key: value})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda content: content.pop("annotations"), "'annotations'"),
        (lambda content: content["images"].clear() or content["annotations"].clear(), "has no images"),
        (drop("images", "file_name"), "image 8 has no 'file_name': name its file in"),
        (drop("categories", "name"), "name"),
        (drop("annotations", "bbox"), "bbox"),
        (drop("annotations", "area"), r"annotation 2 has no 'area', which pycocotools needs"),
        (drop("annotations", "iscrowd"), r"annotation 2 has no 'iscrowd'"),
        (put("annotations", "ignore", 1), "annotation 2 has 'ignore', which Detectron2 does not know"),
        (put("annotations", "category_id", 5), "category_id' 5"),
        (put("annotations", "image_id", 5), "image_id' 5"),
        (put("annotations", "id", 1), "'id' 1"),
        (put("annotations", "bbox", [0, 0, -1, 5]), r"\[0.0, 0.0, -1.0, 5.0\]"),
        (put("annotations", "bbox", [0, 0, float("nan"), 5]), "nan"),
        (put("annotations", "bbox", [0, 0, 5]), r"\[0, 0, 5\]"),
        (put("images", "width", 7), r"b.png has \d+ x \d+ pixels and .* says 7 x \d+: correct"),
        (put("images", "file_name", "c.png"), r"lacks c.png of the 2 images that .*: complete it, or"),
        (
            lambda content: [image.update(file_name=f"no{image['id']}.png") for image in content["images"]],
            r"lacks no3.png and 1 more of the 2 images",
        ),
    ],
)
def test_bad_files_end_in_a_sentence_that_names_the_file(coco, change, message):
    path, images = coco(change)
    with pytest.raises(DatasetError, match=message) as error:
        register_coco_format("bad", path, images)
    assert str(path) in str(error.value) and "\n" not in str(error.value)
    assert "bad" not in DatasetCatalog and "bad" not in MetadataCatalog


def test_files_that_are_none(coco, tmp_path):
    path, images = coco()
    with pytest.raises(DatasetError, match=r"gone.json cannot be read \(No such file"):
        register_coco_format("bad", tmp_path / "gone.json", images)
    with pytest.raises(DatasetError, match="gone is no folder: give the one that the file names in"):
        register_coco_format("bad", path, tmp_path / "gone")
    path.write_text('{"images": [')
    with pytest.raises(DatasetError, match="is not valid JSON"):
        register_coco_format("bad", path, images)


def test_boxes_without_area_are_counted(coco, caplog):
    path, images = coco(put("annotations", "bbox", [3, 3, 0, 4]))
    with caplog.at_level(logging.WARNING):
        register_coco_format("flat", path, images)
    assert caplog.messages == [
        f"{path}: 1 of 2 boxes have no area and teach nothing; the first is annotation 2 with the bbox [3, 3, 0, 4]"
    ]
    assert len(DatasetCatalog.get("flat")) == 2


# Data sets and models


def test_number_of_classes(folder, coco):
    register_scenes(folder)
    register_coco_format("pets", *coco())
    check_num_classes(("scenes_train", "scenes_test"), 6)
    with pytest.raises(DatasetError, match=r"pets has 2 classes \(cat, dog\) .*: set MODEL.ROI_HEADS.NUM_CLASSES 2$"):
        check_num_classes(("scenes_train", "pets"), 6)
    # of a built-in set, whose files are not there
    with pytest.raises(DatasetError, match=r"coco_2017_val has 80 classes \(person, .*, \.\.\.\)"):
        check_num_classes(("coco_2017_val",), 6)
    with pytest.raises(DatasetError, match=r"nobody is not registered; known are .*scenes_train"):
        check_num_classes(("nobody",), 6)


def test_classes_of_sets_that_others_registered(tmp_path):
    def load():
        MetadataCatalog.get("lazy").thing_classes = ["only"]
        return []

    DatasetCatalog.register("lazy", load)
    check_num_classes(("lazy",), 1)
    DatasetCatalog.register("nameless", list)
    with pytest.raises(DatasetError, match="nameless has no names of classes"):
        check_num_classes(("nameless",), 1)


def swap_names(content):
    first, second = content["categories"]
    first["name"], second["name"] = second["name"], first["name"]


def test_same_categories(coco):
    register_coco_format("pets", *coco())
    register_coco_format("again", *coco(name="again.json"))
    register_coco_format("birds", *coco(put("categories", "name", "bird"), name="birds.json"))
    register_coco_format("swapped", *coco(swap_names, name="swapped.json"))
    check_same_categories(())
    check_same_categories(("pets", "again"))
    with pytest.raises(DatasetError, match=r"pets and birds have different classes \(only one of them has 'cat'\)"):
        check_same_categories(("pets", "again", "birds"))
    with pytest.raises(DatasetError, match=r"pets and swapped .* \(the same ones in another order of ids\): give both"):
        check_same_categories(("pets", "swapped"))

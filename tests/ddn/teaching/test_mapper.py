"""Stored targets stay with their boxes: through flips, resizes, crops, filters, and with crowds in between."""

import copy

import numpy as np
import pytest
import torch
from detectron2.data import DatasetMapper
from detectron2.structures import BoxMode
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from pycocotools import mask as coco_mask
from tiny_detectors import HEIGHT, NUM_CLASSES, WIDTH, ddn_model, losses_of, tiny_config

from ddn_detectron2.teaching.mapper import DDNDatasetMapper, corner_boxes, not_crowd
from ddn_detectron2.teaching.target_matching import TEACHER_LOGITS
from uncertainty_core import TargetStoreError, write_targets


@pytest.fixture(scope="module")
def picture(tmp_path_factory):
    """An image file whose every pixel (x, y) is coloured (x, y, 100): where a box came from can be read off it."""
    x, y = np.meshgrid(np.arange(WIDTH), np.arange(HEIGHT))
    path = tmp_path_factory.mktemp("picture") / "coordinates.png"
    Image.fromarray(np.stack([x, y, np.full_like(x, 100)], axis=2).astype(np.uint8)).save(path)
    return str(path)


def annotation(x, y, width, height, category=0, crowd=0):
    mask = np.zeros((HEIGHT, WIDTH), dtype=np.uint8, order="F")
    mask[int(y) : int(y + height), int(x) : int(x + width)] = 1
    return {
        "bbox": [x, y, width, height],
        "bbox_mode": BoxMode.XYWH_ABS,
        "category_id": category,
        "iscrowd": crowd,
        "segmentation": coco_mask.encode(mask),  # Detectron2 cannot crop polygons without shapely
    }


def record(picture, *annotations, image_id=1):
    """One image as Detectron2's catalogs have it."""
    size = {"height": HEIGHT, "width": WIDTH}
    return {"file_name": picture, "image_id": image_id, **size, "annotations": list(annotations)}


def identity_target(annotations):
    """Targets that encode the box they are for: its corners, then its number."""
    boxes = corner_boxes(not_crowd(annotations))
    numbers = torch.arange(len(boxes), dtype=torch.float32)[:, None]
    return {"boxes": boxes, "logits": torch.cat([boxes, numbers], dim=1)}


def input_config(name, options):
    """A config with these keys of INPUT."""
    words = [word for key, value in options.items() for word in (f"INPUT.{key}", value)]
    return tiny_config(name, [*words, "INPUT.MASK_FORMAT", "bitmask"])


def mapper(store, name="FPN", **options):
    """A mapper whose augmentations are set by keys of INPUT."""
    arguments = DatasetMapper.from_config(input_config(name, options), is_train=True)
    return DDNDatasetMapper(**arguments, store=store, num_logits=NUM_CLASSES + 1)


FLIP = {"RANDOM_FLIP": "horizontal"}
RESIZE = {"MIN_SIZE_TRAIN": (40, 64, 90)}
CROP = {"CROP.ENABLED": True, "CROP.TYPE": "absolute_range", "CROP.SIZE": [20, 30]}
STILL = {"RANDOM_FLIP": "none"}
BOXES = [
    annotation(2, 3, 20, 15, 0),
    annotation(30, 5, 25, 30, 1, crowd=1),
    annotation(60, 20, 30, 40, 2),
    annotation(5, 40, 10, 20, 3),
    annotation(0, 0, 96, 64, 1, crowd=1),
    annotation(40, 30, 16, 12, 2),
]


def seen_region(mapped, box):
    """The part of the original image that is shown in `box` of the mapped one: left, top, right, bottom of pixels."""
    x1, y1, x2, y2 = (round(v) for v in box.tolist())
    shown = mapped["image"][:, max(y1, 0) : y2, max(x1, 0) : x2].float()
    # "BGR": the third channel is x, the second y
    return [shown[2].min(), shown[1].min(), shown[2].max(), shown[1].max()]


def assert_aligned(mapped, annotations):
    """Each box shows the part of the image that its target names, and has that annotation's class."""
    instances = mapped["instances"]
    logits = instances.get(TEACHER_LOGITS)
    assert logits.shape == (len(instances), NUM_CLASSES + 1)
    kept = not_crowd(annotations)
    for box, row, label in zip(instances.gt_boxes, logits, instances.gt_classes, strict=True):
        left, top, right, bottom, number = row.tolist()
        assert label == kept[int(number)]["category_id"]
        shown = seen_region(mapped, box)
        # within two pixels, which resizing blends; a crop shows a part
        assert shown[0] >= left - 2.5 and shown[1] >= top - 2.5
        assert shown[2] <= right + 2.5 and shown[3] <= bottom + 2.5
        if box[2] - box[0] > 6:
            assert shown[2] > shown[0]
    return logits


@pytest.mark.parametrize(
    "augmentation",
    [STILL, FLIP, RESIZE | STILL, FLIP | RESIZE, CROP | STILL, CROP | FLIP | RESIZE],
    ids=["none", "flip", "resize", "flip-resize", "crop", "all"],
)
@pytest.mark.parametrize("name", ["FPN", "MaskFPN"])
def test_targets_follow_their_boxes(picture, augmentation, name):
    image = record(picture, *BOXES)
    mapping = mapper({1: identity_target(BOXES)}, name, **augmentation)
    numbers = set()
    for seed in range(12):
        np.random.seed(seed)
        mapped = mapping(image)
        logits = assert_aligned(mapped, BOXES)
        numbers |= set(logits[:, 4].tolist())
        if "CROP.ENABLED" not in augmentation:
            assert logits[:, 4].tolist() == [0, 1, 2, 3]  # all that are no crowd, in order
    assert numbers == {0, 1, 2, 3}


def test_crops_drop_boxes_and_their_targets(picture):
    # Some crop of 20 x 30 pixels misses every box but one.
    mapping = mapper({1: identity_target(BOXES)}, **CROP, **STILL)
    sizes = set()
    for seed in range(30):
        np.random.seed(seed)
        sizes.add(len(mapping(record(picture, *BOXES))["instances"]))
    assert sizes >= {0, 1, 2}


@pytest.mark.parametrize("name", ["FPN", "MaskFPN"])
def test_everything_else_is_as_from_detectron2s_mapper(picture, name):
    image, options = record(picture, *BOXES), CROP | FLIP | RESIZE
    plain = DatasetMapper(input_config(name, options), is_train=True)
    for seed in range(6):
        np.random.seed(seed)
        mine = mapper({1: identity_target(BOXES)}, name, **options)(image)
        np.random.seed(seed)
        its = plain(image)
        assert torch.equal(mine["image"], its["image"])
        assert torch.equal(mine["instances"].gt_boxes.tensor, its["instances"].gt_boxes.tensor)
        assert torch.equal(mine["instances"].gt_classes, its["instances"].gt_classes)
        assert mine["instances"].gt_classes.dtype == its["instances"].gt_classes.dtype
        assert mine["instances"].has("gt_masks") == its["instances"].has("gt_masks") == (name == "MaskFPN")
        assert set(mine) == set(its)


boxes = st.tuples(st.integers(0, 80), st.integers(0, 50), st.integers(0, 30), st.integers(0, 30))
entries = st.lists(st.tuples(boxes, st.integers(0, 3), st.booleans()), max_size=7)


@given(entries=entries, seed=st.integers(0, 1000), crop=st.booleans())
def test_any_annotations_stay_aligned(picture, entries, seed, crop):
    # Boxes without area, crowds and several boxes of one class in any order.
    annotations = [annotation(*box, category, int(crowd)) for box, category, crowd in entries]
    np.random.seed(seed)
    mapped = mapper({1: identity_target(annotations)}, **(CROP if crop else {}), **FLIP)(record(picture, *annotations))
    logits = mapped["instances"].get(TEACHER_LOGITS)
    kept = not_crowd(annotations)
    for row, label in zip(logits, mapped["instances"].gt_classes, strict=True):
        assert torch.equal(row[:4], corner_boxes(kept)[int(row[4])])
        assert label == kept[int(row[4])]["category_id"]
    if not crop:
        assert logits[:, 4].tolist() == [k for k, a in enumerate(kept) if min(a["bbox"][2:]) > 0]


# --- what has no target ------------------------------------------------------------------------------------------


def test_an_image_that_the_store_lacks_has_rows_of_nan(picture):
    instances = mapper({2: identity_target(BOXES)}, **STILL)(record(picture, *BOXES))["instances"]
    assert instances.get(TEACHER_LOGITS).shape == (4, NUM_CLASSES + 1)
    assert instances.get(TEACHER_LOGITS).isnan().all()


@pytest.mark.parametrize(
    "change",
    [
        lambda annotations: annotations[:-1],
        lambda annotations: annotations[::-1],
        lambda annotations: [annotations[0] | {"bbox": [2, 3, 20, 16]}, *annotations[1:]],
        lambda annotations: [*annotations, annotation(1, 1, 5, 5)],
        lambda annotations: [annotations[0] | {"iscrowd": 1}, *annotations[1:]],
    ],
    ids=["fewer", "order", "moved", "more", "crowd"],
)
def test_targets_for_other_boxes_are_refused(picture, change):
    mapping = mapper({1: identity_target(BOXES)}, **STILL)
    with pytest.raises(TargetStoreError, match="the targets of image 1 are for other boxes: generate them again"):
        mapping(record(picture, *change(BOXES)))


def test_a_change_among_the_crowds_does_not_matter(picture):
    # They are not trained on.
    mapping = mapper({1: identity_target(BOXES)}, **STILL)
    assert_aligned(mapping(record(picture, BOXES[0], *BOXES[2:4], BOXES[5])), BOXES)


def test_an_image_without_annotations_is_mapped_as_ever(picture):
    image = record(picture)
    assert len(mapper({1: identity_target([])}, **STILL)(image)["instances"]) == 0
    del image["annotations"]
    assert "instances" not in mapper({}, **STILL)(image)


def test_the_record_is_left_as_it_was(picture):
    image = record(picture, *BOXES)
    before = copy.deepcopy(image)
    mapper({1: identity_target(BOXES)}, **FLIP)(image)
    assert image == before


# --- from a store to the losses ----------------------------------------------------------------------------------


def test_targets_come_from_the_store_of_the_config(picture, tmp_path):
    logits = torch.arange(20.0).reshape(4, 5)
    target = {"boxes": identity_target(BOXES)["boxes"], "logits": logits}
    write_targets(tmp_path / "store", [1], lambda ids: [target for _ in ids], {}, progress=False)
    cfg = tiny_config("FPN", ["MODEL.DDN.TARGETS.STORE", str(tmp_path / "store")])
    instances = DDNDatasetMapper(cfg, is_train=True)(record(picture, *BOXES))["instances"]
    assert torch.equal(instances.get(TEACHER_LOGITS), logits)


@pytest.mark.parametrize("name", ["MaskC4", "MaskFPN", "Cascade"])
@pytest.mark.parametrize(
    "annotations",
    [
        [annotation(2, 3, 20, 15, crowd=1), annotation(0, 0, 96, 64, crowd=1)],
        [annotation(2, 3, 0, 15), annotation(5, 5, 10, 0)],
        [annotation(2, 3, 0, 15), annotation(5, 5, 30, 20), annotation(0, 0, 96, 64, crowd=1)],
        [],
    ],
    ids=["all-crowd", "zero-area", "mixed", "none"],
)
@pytest.mark.parametrize("source", ["store", "gt_iou", "per_proposal"])
def test_annotations_that_teach_little_or_nothing(picture, name, annotations, source):
    mapping = mapper({1: identity_target(annotations)}, name, **FLIP)
    inputs = [mapping(record(picture, *annotations)) for _ in range(2)]
    assert len(inputs[0]["instances"]) == sum(a["bbox"][2:] == [30, 20] for a in annotations)
    options = () if source == "store" else ("MODEL.DDN.TARGETS.MATCH", source)
    model = ddn_model(name, *options, teacher=source != "store")
    losses = losses_of(model, inputs)
    assert all(loss.isfinite() for loss in losses.values())
    sum(losses.values()).backward()
    assert all(value.grad.isfinite().all() for value in model.parameters() if value.grad is not None)
    if source == "store":
        taught = sum(loss for key, loss in losses.items() if "loss_ddn" in key)
        assert (taught > 0) == (len(inputs[0]["instances"]) > 0)


def test_images_without_targets_train_on_their_labels(picture):
    inputs = [mapper({}, **FLIP)(record(picture, *BOXES)) for _ in range(2)]
    losses = losses_of(ddn_model("FPN"), inputs)
    assert losses["loss_ddn"] == 0
    assert losses["loss_cls"] > 0

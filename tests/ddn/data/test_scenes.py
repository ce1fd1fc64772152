"""Drawn scenes: their geometry against slow references, what a set holds, and how it gets onto the disk."""

import json
import multiprocessing
import os
import signal
from collections import Counter
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from pycocotools import mask as coco_mask

from ddn_detectron2.data import DatasetError, scenes, write_scenes
from ddn_detectron2.data.drawing import (
    CATEGORY_IDS,
    MIN_VISIBLE,
    SHARE_MISLABELLED,
    VERSION,
    draw_scene,
    label_probabilities,
)
from ddn_detectron2.data.shapes import CLASSES, area, clip, coverage, outline, place
from uncertainty_core.errors import UserError

FEW = 12  # scenes, where their number does not matter
# Of pixels and annotations of the first FEW scenes of "train". A change of the drawing on purpose changes VERSION too.
FINGERPRINT = "7cebe17375012802591f858c57d43cc418c1f937bc30631110bceea97e6d3fdf"


# Shapes


def test_an_outline_without_mix_is_the_class_itself():
    # The square has its corners at 45, 135, 225 and 315 degrees, 1.25 from the centre; y points down in an image.
    corner = 1.25 / np.sqrt(2)
    expected = [(corner, -corner), (-corner, -corner), (-corner, corner), (corner, corner)]
    np.testing.assert_allclose(outline("square", "square", 0.0), expected)


def test_a_mix_lies_between_its_classes_in_every_direction():
    # At 0 degrees the square's edge is 1.25 cos(45) = 0.8839 away and a corner of the hexagon 1.1: half-way is 0.9919.
    half = outline("hexagon", "square", 0.5)
    np.testing.assert_allclose(half[0], (0.5 * 1.1 + 0.5 * 1.25 / np.sqrt(2), 0), atol=1e-12)
    for mix, pure in ((0.0, "hexagon"), (1.0, "square")):
        x, y = outline("hexagon", "square", mix).T
        x_pure, y_pure = outline(pure, pure, 0.0).T
        shoelace = abs(np.dot(x, np.roll(y, -1)) - np.dot(y, np.roll(x, -1)))
        # corners on the edges add none to the area
        assert shoelace == pytest.approx(abs(np.dot(x_pure, np.roll(y_pure, -1)) - np.dot(y_pure, np.roll(x_pure, -1))))


@pytest.mark.parametrize("name", CLASSES)
def test_areas_are_alike_so_that_size_does_not_tell_the_class(name):
    assert 3.0 < area(place(outline(name, name, 0), 400, 400, 100, 0)) / 100**2 < 3.2


def test_area_and_coverage_of_a_rectangle_by_hand():
    # From (0.5, 0.25) to (2, 1.5): of pixel columns 0 and 1 it covers a half and all, of rows 0 and 1 3/4 and 1/2.
    polygon = np.array([(2, 1), (8, 1), (8, 6), (2, 6)])
    assert area(polygon) == 1.5 * 1.25
    expected = [[Fraction(1, 2) * Fraction(3, 4), Fraction(3, 4), 0], [Fraction(1, 4), Fraction(1, 2), 0]]
    assert coverage(polygon, 2, 3).tolist() == [[value * 16 for value in row] for row in expected]


def winding(polygon, x, y):
    """How often the corners (P, 2) go round each point (N,): the sum of the angles from one to the next, in turns.

    On an edge its ends are half a turn apart, in either direction: that step is left out.
    """
    angle = np.arctan2(polygon[:, 1] - y[:, None], polygon[:, 0] - x[:, None])
    step = (np.roll(angle, -1, axis=1) - angle + np.pi) % (2 * np.pi) - np.pi
    return np.where(abs(abs(step) - np.pi) < 1e-9, 0, step).sum(axis=1) / (2 * np.pi)


@given(
    st.sampled_from(CLASSES),
    st.floats(0, 1),
    st.floats(-2, 14),
    st.floats(-2, 10),
    st.floats(1.5, 8),
    st.floats(0, 360),
)
def test_coverage_counts_the_subpixels_inside(name, mix, x, y, size, turn):
    height, width = 8, 12
    other = CLASSES[(CLASSES.index(name) + 1) % len(CLASSES)]
    polygon = place(outline(name, other, mix), x, y, size, turn)
    rows, columns = np.mgrid[: 4 * height, : 4 * width] + 0.5
    turns = abs(winding(polygon, columns.ravel(), rows.ravel())).reshape(height, 4, width, 4)
    found = coverage(polygon, height, width)
    # points on an edge, half a turn in sum, may be counted or not; where the polygon leaves the image, the crossing is
    # rounded to a quarter of a pixel, which may move the edge by less than one subpixel of each row
    slack = 0 if clip(polygon, height, width).shape == polygon.shape else 4
    assert (found >= (turns > 0.75).sum(axis=(1, 3)) - slack).all()
    assert (found <= (turns > 0.25).sum(axis=(1, 3)) + slack).all()


@given(st.floats(-20, 60), st.floats(-20, 60), st.floats(2, 25), st.floats(0, 360), st.sampled_from(CLASSES))
def test_a_clipped_polygon_lies_in_the_image_and_keeps_its_area_there(x, y, size, turn, name):
    height, width = 30, 40
    polygon = place(outline(name, name, 0), x, y, size, turn)
    part = clip(polygon, height, width)
    assert (part >= 0).all() and (part <= (4 * width, 4 * height)).all()
    large = coverage(polygon + 4 * 100, 300, 300)[100 : 100 + height, 100 : 100 + width].sum() / 16
    if len(part) == 0:
        assert large == 0
    else:
        assert area(part) == pytest.approx(large, abs=0.02 * area(polygon) + 2)


# Scenes


@pytest.fixture(scope="module")
def many():
    return [draw_scene(0, "train", index) for index in range(200)]


def objects(drawn):
    return [annotation for scene in drawn for annotation in scene.annotations if not annotation["iscrowd"]]


def test_a_scene_depends_on_seed_split_and_index_alone(many):
    state = np.random.get_state()[1].tolist()
    again = draw_scene(0, "train", 7)
    assert np.array_equal(again.image, many[7].image) and again.annotations == many[7].annotations
    for other in (draw_scene(1, "train", 7), draw_scene(0, "test", 7), draw_scene(0, "train", 8)):
        assert other.image.shape != again.image.shape or not np.array_equal(other.image, again.image)
    assert np.random.get_state()[1].tolist() == state


def test_the_set_holds_what_makes_it_hard(many):
    assert {scene.image.shape for scene in many} == {(96, 128, 3), (128, 96, 3)}
    count = Counter(len(scene.annotations) for scene in many)
    assert 5 <= count[0] <= 25 and count[1] > 10 and max(count) >= 6
    crowds = [entry for scene in many for entry in scene.annotations if entry["iscrowd"]]
    assert 5 <= len(crowds) <= 25
    shapes = objects(many)
    assert min(Counter(entry["category_id"] for entry in shapes).values()) > len(shapes) / 12
    assert {entry["category_id"] for entry in shapes} == set(CATEGORY_IDS)
    ambiguous = [entry for entry in shapes if max(entry["label_probabilities"]) < 0.9]
    assert 0.2 < len(ambiguous) / len(shapes) < 0.4
    assert sum(entry["area"] < 150 for entry in shapes) > 40
    assert sum(entry["area"] > 32**2 for entry in shapes) > 50


def test_label_probabilities_by_hand():
    # Three quarters star: 0.96 of the labels are honest, the rest is spread over the five other classes.
    wrong, honest = SHARE_MISLABELLED / 5, 1 - SHARE_MISLABELLED
    found = dict(zip(CLASSES, label_probabilities("cross", "star", 0.75), strict=True))
    assert found["star"] == pytest.approx(honest * 0.75 + wrong * 0.25)
    assert found["cross"] == pytest.approx(honest * 0.25 + wrong * 0.75)
    assert found["circle"] == pytest.approx(wrong)
    assert sum(found.values()) == pytest.approx(1)


def test_labels_come_up_as_often_as_their_probabilities_say(many):
    """True ambiguity: the probabilities that the scenes record are calibrated."""
    shapes = objects(many)
    probabilities = np.array([entry["label_probabilities"] for entry in shapes])
    drawn = np.array([CATEGORY_IDS.index(entry["category_id"]) for entry in shapes])
    ambiguous = (probabilities > 0.1) & (probabilities < 0.9)
    hits = (np.arange(len(CLASSES)) == drawn[:, None])[ambiguous]
    p = probabilities[ambiguous]
    assert len(p) > 200
    for half in (p < 0.5, p >= 0.5):
        # a sum of independent draws is within four of its standard deviations
        assert abs(hits[half].sum() - p[half].sum()) < 4 * np.sqrt((p * (1 - p))[half].sum())


def test_boxes_and_polygons_fit_each_other_and_the_image(many):
    for scene in many:
        height, width, _ = scene.image.shape
        for entry in objects([scene]):
            polygon = np.array(entry["segmentation"][0]).reshape(-1, 2)
            low, high = polygon.min(axis=0), polygon.max(axis=0)
            assert entry["bbox"] == [*low, *(high - low)]
            assert (low >= 0).all() and (high <= (width, height)).all() and min(entry["bbox"][2:]) > 0
            assert (polygon * 4 == np.round(polygon * 4)).all()


def test_every_object_can_be_seen(many):
    for scene in many:
        height, width, _ = scene.image.shape
        masks = [
            coco_mask.decode(coco_mask.frPyObjects(entry["segmentation"], height, width))[..., 0].astype(bool)
            for entry in objects([scene])
        ]
        for number, mask in enumerate(masks):
            above = np.any(masks[number + 1 :], axis=0) if masks[number + 1 :] else np.zeros_like(mask)
            # the border hides its part as well, which can only make what is in sight of the part inside larger;
            # pycocotools' masks of whole pixels are a little wider than the shapes
            assert (mask & ~above).sum() > (MIN_VISIBLE - 0.12) * mask.sum()


def test_crowds_are_run_lengths_that_pycocotools_reads(many):
    for scene in many:
        for entry in scene.annotations:
            if entry["iscrowd"]:
                height, width, _ = scene.image.shape
                assert entry["segmentation"]["size"] == [height, width]
                encoded = coco_mask.frPyObjects(entry["segmentation"], height, width)
                assert coco_mask.area(encoded) == entry["area"]
                assert coco_mask.toBbox(encoded).tolist() == entry["bbox"]
                # members have colours of their own, so they are no bare background: some pixels differ strongly
                assert scene.image[coco_mask.decode(encoded).astype(bool)].std() > 1


# The set on disk


def contents(folder):
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.suffix != ".lock"
    }


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("undisturbed")
    write_scenes(folder, "train", FEW, progress=False)
    return contents(folder)


def test_files(undisturbed, many):
    names = [f"train/{number:06d}.png" for number in range(1, FEW + 1)]
    assert list(undisturbed) == ["instances_train.json", *names]
    content = json.loads(undisturbed["instances_train.json"])
    assert [image["id"] for image in content["images"]] == list(range(1, FEW + 1))
    assert [entry["id"] for entry in content["annotations"]] == list(range(1, len(content["annotations"]) + 1))
    assert {category["id"]: category["name"] for category in content["categories"]} == {
        1: "circle",
        2: "hexagon",
        4: "square",
        5: "cross",
        7: "star",
        11: "triangle",
    }
    for image in content["images"]:
        scene = many[image["id"] - 1]
        assert (image["height"], image["width"], 3) == scene.image.shape
        written = [entry for entry in content["annotations"] if entry["image_id"] == image["id"]]
        assert [{k: v for k, v in e.items() if k not in ("id", "image_id")} for e in written] == scene.annotations


def test_pixels_are_those_of_every_machine(tmp_path, undisturbed, many):
    (tmp_path / "3.png").write_bytes(undisturbed["train/000003.png"])
    with Image.open(tmp_path / "3.png") as image:
        assert np.array_equal(np.asarray(image), many[2].image)
    info = json.loads(undisturbed["instances_train.json"])["info"]
    assert info["fingerprint"] == FINGERPRINT
    assert (info["seed"], info["split"], info["num_images"], info["version"]) == (0, "train", FEW, VERSION)


def test_writing_again_changes_nothing(tmp_path, undisturbed):
    path = write_scenes(tmp_path, "train", FEW, progress=False)
    assert contents(tmp_path) == undisturbed
    stamp = path.stat().st_mtime_ns
    path.with_name(path.name + ".lock").unlink()
    write_scenes(tmp_path, "train", FEW, progress=False)
    assert path.stat().st_mtime_ns == stamp
    assert not path.with_name(path.name + ".lock").exists(), "a finished set must be usable where one may not write"


def test_a_lost_picture_comes_back(tmp_path, undisturbed):
    write_scenes(tmp_path, "train", FEW, progress=False)
    (tmp_path / "train" / "000004.png").unlink()
    write_scenes(tmp_path, "train", FEW, progress=False)
    assert contents(tmp_path) == undisturbed


def write_until(folder, index):
    """Killed like by a power cut when it comes to that scene."""

    def draw_or_die(seed, split, number):
        if number == index:
            os.kill(os.getpid(), signal.SIGKILL)
        return draw_scene(seed, split, number)

    scenes.draw_scene = draw_or_die  # of the forked process alone
    write_scenes(folder, "train", FEW, progress=False)


def write_and_report(folder, queue):
    drawn = []
    scenes.draw_scene = lambda *key: drawn.append(key) or draw_scene(*key)
    write_scenes(folder, "train", FEW, progress=False)
    queue.put(len(drawn))


@pytest.mark.parametrize("index", [0, FEW // 2])
def test_a_killed_writer_starts_again_and_ends_the_same(tmp_path, undisturbed, index):
    writer = multiprocessing.get_context("fork").Process(target=write_until, args=(tmp_path, index))
    writer.start()
    writer.join()
    assert writer.exitcode == -signal.SIGKILL
    assert not (tmp_path / "instances_train.json").exists()
    write_scenes(tmp_path, "train", FEW, progress=False)
    assert contents(tmp_path) == undisturbed


def test_of_writers_that_start_together_one_writes(tmp_path, undisturbed):
    context = multiprocessing.get_context("fork")
    queue = context.SimpleQueue()
    writers = [context.Process(target=write_and_report, args=(tmp_path, queue)) for _ in range(3)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert sorted(queue.get() for _ in writers) == [0, 0, FEW]
    assert contents(tmp_path) == undisturbed


def test_other_scenes_are_refused(tmp_path):
    path = write_scenes(tmp_path, "train", 2, progress=False)
    with pytest.raises(UserError, match=r"holds other scenes, of num_images 2, not 3: remove it"):
        write_scenes(tmp_path, "train", 3, progress=False)
    with pytest.raises(UserError, match="of seed 0, not 1"):
        write_scenes(tmp_path, "train", 2, seed=1, progress=False)
    path.write_text('{"images": []}')
    with pytest.raises(UserError, match="was not written by this project"):
        write_scenes(tmp_path, "train", 2, progress=False)


def test_bad_arguments(tmp_path):
    with pytest.raises(ValueError, match="num_images must be an integer >= 1, got 0"):
        write_scenes(tmp_path, "train", 0)
    with pytest.raises(ValueError, match="num_images must be given for split 'more'"):
        write_scenes(tmp_path, "more")
    (tmp_path / "file").touch()
    with pytest.raises(DatasetError, match="cannot hold the scenes"):
        write_scenes(tmp_path / "file" / "scenes", "train", 2, progress=False)

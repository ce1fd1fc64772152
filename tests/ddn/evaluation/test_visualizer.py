"""Which detections of two models are the same, which images come first, and what is drawn of them."""

import importlib.util
import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from forked_tools import COMPUTES
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageColor

from ddn_detectron2.data import write_scenes
from ddn_detectron2.evaluation.visualizer import (
    GAP,
    LINE,
    PANEL,
    Comparison,
    Truth,
    compare_image,
    contact_sheet,
    detections_of_image,
    draw_detections,
    draw_strip,
    pair_detections,
    rank_images,
    score_changes,
    truth_of_image,
)
from uncertainty_core.colours import HIT, MISS, TRUTH
from uncertainty_core.detection.coco_format import Detections, read_detections, read_ground_truth

TOOL = Path(__file__).parents[3] / "tools" / "visualize_detections.py"


def detections(*rows):
    """Of one image, from (category, score, left, top, width, height)."""
    table = np.array(rows, dtype=np.float64).reshape(-1, 6)
    return Detections(np.zeros(len(table), np.int64), table[:, 0].astype(np.int64), table[:, 2:], table[:, 1])


def truth(*rows):
    """From (category, crowd, left, top, width, height)."""
    table = np.array(rows, dtype=np.float64).reshape(-1, 6)
    return Truth(table[:, 2:], table[:, 0].astype(np.int64), table[:, 1].astype(bool))


# Matching


def test_the_best_overlap_is_matched_first():
    # IoU of boxes that begin at the same corner: the share of the larger one that the smaller one covers.
    first = detections((0, 0.9, 0, 0, 10, 7), (0, 0.8, 0, 0, 10, 9))
    second = detections((0, 0.7, 0, 0, 10, 8), (0, 0.6, 0, 0, 10, 10))
    # 7/8 and 7/10 for the first box, 8/9 and 9/10 for the second: 9/10 is formed first, and leaves 7/8.
    assert pair_detections(first, second).tolist() == [[1, 1], [0, 0]]


def test_boxes_of_different_categories_never_match():
    first = detections((0, 0.9, 0, 0, 10, 10), (1, 0.8, 0, 0, 10, 10))
    second = detections((1, 0.9, 0, 0, 10, 10), (2, 0.8, 0, 0, 10, 10))
    assert pair_detections(first, second).tolist() == [[1, 0]]


def test_an_overlap_on_the_threshold_matches():
    first, second = detections((0, 0.9, 0, 0, 10, 10)), detections((0, 0.9, 0, 0, 10, 5))
    assert len(pair_detections(first, second, 0.5)) == 1
    assert len(pair_detections(first, second, 0.51)) == 0


def test_equal_overlaps_are_matched_in_order():
    twice = detections((0, 0.9, 0, 0, 10, 10), (0, 0.8, 0, 0, 10, 10))
    assert pair_detections(twice, twice).tolist() == [[0, 0], [1, 1]]


def test_nothing_to_match():
    some, none = detections((0, 0.9, 0, 0, 10, 10)), detections()
    for pair in ((some, none), (none, some), (none, none)):
        assert pair_detections(*pair).shape == (0, 2)
        assert np.isnan(score_changes(*pair, pair_detections(*pair))).all()


@pytest.mark.parametrize("threshold", [0, -0.5, 1.5, float("nan")])
def test_thresholds_that_are_none(threshold):
    with pytest.raises(ValueError, match=r"iou_threshold must lie in \(0, 1\]"):
        pair_detections(detections(), detections(), threshold)


boxes = st.lists(
    st.tuples(
        st.integers(0, 1), st.just(0.5), *(st.integers(0, 4) for _ in range(2)), *(st.integers(1, 6) for _ in range(2))
    ),
    max_size=6,
)


def slow_match(first, second, threshold):
    """Again and again the best pair of all that are left."""

    def iou(i, j):
        x, y, w, h = first.box[i]
        u, v, s, t = second.box[j]
        common = max(0, min(x + w, u + s) - max(x, u)) * max(0, min(y + h, v + t) - max(y, v))
        return common / (w * h + s * t - common)

    left, pairs = [(i, j) for i in range(len(first)) for j in range(len(second))], []
    left = [(i, j) for i, j in left if first.category[i] == second.category[j] and iou(i, j) >= threshold]
    while left:
        i, j = max(left, key=lambda pair: (iou(*pair), -pair[0], -pair[1]))
        pairs.append([i, j])
        left = [(k, m) for k, m in left if k != i and m != j]
    return pairs


@given(boxes, boxes, st.sampled_from([0.1, 0.3, 0.5]))
def test_matching_against_a_slow_one(rows, other_rows, threshold):
    first, second = detections(*rows), detections(*other_rows)
    assert pair_detections(first, second, threshold).tolist() == slow_match(first, second, threshold)


# What is shown


def test_detections_are_kept_if_either_score_reaches_the_threshold():
    baseline = detections(
        (0, 0.9, 0, 0, 10, 10),  # falls to 0.2
        (0, 0.3, 20, 0, 10, 10),  # rises to 0.6
        (0, 0.4, 40, 0, 10, 10),  # becomes 0.3: below in both
        (0, 0.5, 60, 0, 10, 10),  # alone, on the threshold
        (0, 0.4, 80, 0, 10, 10),  # alone, below
    )
    student = detections((0, 0.6, 20, 0, 10, 10), (0, 0.2, 0, 0, 10, 10), (0, 0.3, 40, 0, 10, 10), (1, 0.8, 0, 0, 9, 9))
    found = compare_image(truth(), baseline, student, score_threshold=0.5)
    assert found.baseline.score.tolist() == [0.9, 0.3, 0.5]
    assert found.student.score.tolist() == [0.6, 0.2, 0.8]
    np.testing.assert_allclose(found.change, [0.3, -0.7, np.nan])
    assert found.largest_change == pytest.approx(-0.7)


def test_images_whose_scores_changed_most_come_first():
    def changed(*changes):
        return Comparison(truth(), detections(), detections(), np.array(changes))

    comparisons = {"none": changed(), "alone": changed(np.nan), "up": changed(0.1, 0.4), "down": changed(-0.5, 0.2)}
    assert rank_images(comparisons) == ["down", "up", "none", "alone"]
    assert comparisons["alone"].largest_change == 0


# Pictures


def count(image, colour):
    return int((np.asarray(image) == ImageColor.getrgb(colour)).all(axis=-1).sum())


def panels(strip, size):
    """The three images in a strip of images of that size."""
    width, height = (round(side * PANEL / max(size)) for side in size)
    lefts = [GAP + number * (width + GAP) for number in range(3)]
    top = GAP + 2 * LINE
    return [strip.crop((left, top, left + width, top + height)) for left in lefts]


@pytest.mark.parametrize("size", [(60, 40), (40, 60), (1200, 800), (300, 1)])
def test_a_strip_shows_three_panels(size):
    strip = draw_strip(Image.new("RGB", size, "black"), compare_image(truth(), detections(), detections()), [])
    width, height = (round(side * PANEL / max(size)) for side in size)
    assert strip.size == (3 * (width + GAP) + GAP, height + 2 * LINE + 2 * GAP)
    for panel in panels(strip, size):
        assert count(panel, "black") == width * height


def test_colours_tell_objects_hits_and_misses():
    objects = truth((0, 0, 5, 20, 20, 20), (1, 1, 40, 5, 50, 50))
    baseline = detections((0, 0.9, 6, 20, 20, 20), (1, 0.9, 50, 10, 5, 5))  # on the object, and within the crowd
    student = detections((1, 0.8, 6, 20, 20, 20), (1, 0.7, 0, 50, 5, 5))  # of another category, and where nothing is
    strip = draw_strip(Image.new("RGB", (100, 60)), compare_image(objects, baseline, student), ["dog", "cat"], "title")
    objects_panel, baseline_panel, student_panel = panels(strip, (100, 60))
    for panel, colours in ((objects_panel, {TRUTH}), (baseline_panel, {HIT}), (student_panel, {MISS})):
        assert {colour for colour in (TRUTH, HIT, MISS) if count(panel, colour)} == colours
    # the object's left edge, which is 420 / 100 times as far away from the corner
    assert objects_panel.getpixel((round(5 * 4.2), round(30 * 4.2))) == ImageColor.getrgb(TRUTH)


def test_outer_and_inner_box_show_where_the_sides_may_be():
    # one pixel of the image is one of the panel; 1.645 deviations of (10, 5, 20, 100) are (16.4, 8.2, 32.9, 164.5)
    found = detections((0, 0.9, 100, 200, 150, 100))
    found = replace(found, box_std=np.array([[10.0, 5.0, 20.0, 100.0]]))
    panel = np.array(draw_detections(Image.new("RGB", (420, 420)), found, ["a"]))
    drawn = (panel == ImageColor.getrgb(HIT)).all(2)
    row, column = drawn[210], drawn[:, 200]
    assert np.flatnonzero(row).tolist() == [83, 100, 101, 116, 217, 249, 250, 282]
    # below the label: the top, the inner top, the middle in the place of an inner bottom above it, the bottom
    assert (195 + np.flatnonzero(column[195:])).tolist() == [200, 201, 208, 250, 299, 300]


def test_labels_do_not_cover_each_other():
    image = Image.new("RGB", (100, 60))
    one = detections((0, 0.9, 10, 20, 30, 30))
    two = detections((0, 0.9, 10, 20, 30, 30), (0, 0.8, 10, 20, 30, 30))
    objects = truth((0, 0, 10, 20, 30, 30))
    single, double = (
        count(panels(draw_strip(image, compare_image(objects, detections(), found), ["dog"]), image.size)[2], HIT)
        for found in (one, two)
    )
    frame = 4 * 30 * 4.2 * 2  # pixels of the box itself, which both share
    assert double - frame == pytest.approx(2 * (single - frame), rel=0.2)


def test_a_contact_sheet_holds_every_strip():
    strips = [Image.new("RGB", (200, 100), colour) for colour in ("red", "lime", "blue")]
    sheet = contact_sheet(strips, columns=2)
    assert sheet.size == (200, 100)
    assert [count(sheet, colour) for colour in ("red", "lime", "blue", "white")] == [100 * 50] * 4
    assert contact_sheet(strips[:1], columns=2).size == (100, 50)
    with pytest.raises(ValueError, match="strips must hold at least one strip"):
        contact_sheet([])


# The command line


@pytest.fixture(scope="module")
def tool():
    spec = importlib.util.spec_from_file_location("visualize_detections", TOOL)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Scenes, a baseline that is sure of every object, and a student that is less so in image 3."""
    folder = tmp_path_factory.mktemp("files")
    gt = write_scenes(folder, "val", 5, progress=False)
    baseline = [
        {**{key: a[key] for key in ("image_id", "category_id", "bbox")}, "score": 0.9}
        for a in json.loads(gt.read_text())["annotations"]
    ]
    student = [{**entry, "score": 0.4 if entry["image_id"] == 3 else 0.8} for entry in baseline]
    (folder / "baseline.json").write_text(json.dumps(baseline))
    (folder / "student.json").write_text(json.dumps(student))
    return folder


def arguments(files, output, **changed):
    named = {
        "gt": files / "instances_val.json",
        "images": files / "val",
        "baseline": files / "baseline.json",
        "student": files / "student.json",
        "output": output,
        "top": 2,
    } | changed
    return [word for name, value in named.items() for word in (f"--{name}", str(value))]


def test_columns_of_one_image(files):
    ground_truth = read_ground_truth(files / "instances_val.json")
    student = read_detections(files / "student.json", ground_truth)
    annotations = json.loads((files / "instances_val.json").read_text())["annotations"]
    for image, image_id in enumerate(ground_truth.image_ids):
        expected = sorted(a["bbox"] for a in annotations if a["image_id"] == image_id)
        assert sorted(truth_of_image(ground_truth, image).box.tolist()) == expected
        found = detections_of_image(student, image)
        assert sorted(found.box.tolist()) == expected
        assert set(found.score.tolist()) <= ({0.4} if image_id == 3 else {0.8})


def test_pictures_are_written_in_order(tool, files, tmp_path, capfd):
    tool.main(arguments(files, tmp_path / "out"))
    names = sorted(path.name for path in (tmp_path / "out").glob("*.png"))
    assert names[0] == "001_000003.png" and names[2] == "index.png" and len(names) == 3
    with Image.open(tmp_path / "out" / names[0]) as picture:
        assert count(picture, TRUTH) and count(picture, HIT)
    assert capfd.readouterr().out == f"{COMPUTES}\n2 images and index.png in {tmp_path / 'out'}\n"


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"top": 0}, "--top must be at least 1, got 0"),
        ({"iou-threshold": 0}, "--iou-threshold must lie in (0, 1], got 0.0"),
        ({"images": "nowhere"}, "nowhere is no folder"),
        ({"student": "other.json"}, "77"),
        ({"baseline": "gone.json"}, "gone.json cannot be read"),
        ({"images": "no_picture"}, "no_picture/000003.png cannot be decoded"),
        ({"images": "truncated"}, "truncated/000003.png cannot be decoded"),
    ],
)
def test_errors_are_one_sentence_and_exit_code_2(tool, files, tmp_path, changed, message, capfd):
    (tmp_path / "other.json").write_text('[{"image_id": 77, "category_id": 1, "bbox": [0, 0, 1, 1], "score": 0.5}]')
    for name, content in (("no_picture", b"no picture"), ("truncated", (files / "val/000003.png").read_bytes()[:-500])):
        shutil.copytree(files / "val", tmp_path / name)
        (tmp_path / name / "000003.png").write_bytes(content)
    changed = {name: tmp_path / value if isinstance(value, str) else value for name, value in changed.items()}
    with pytest.raises(SystemExit) as error:
        tool.main(arguments(files, tmp_path / "out", **changed))
    assert error.value.code == 2
    (line,) = (line for line in capfd.readouterr().err.splitlines() if "error: " in line)
    assert message in line

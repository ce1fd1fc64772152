"""Reading COCO files: what is laid out where, and that each kind of bad input ends in one sentence."""

import copy
import json

import numpy as np
import pytest

from uncertainty_core.detection import CocoFormatError, check_detections, read_detections, read_ground_truth
from uncertainty_core.detection.coco_format import DataWarning

GROUND_TRUTH = {
    "images": [{"id": 20, "width": 640, "height": 480}, {"id": 4, "width": 100, "height": 50}],
    "categories": [{"id": 90, "name": "zebra"}, {"id": 7, "name": "cat"}],
    "annotations": [
        {"id": 1, "image_id": 20, "category_id": 7, "bbox": [1, 2, 30, 40], "area": 700, "iscrowd": 0},
        {"id": 2, "image_id": 4, "category_id": 90, "bbox": [0, 0, 10, 10.5]},
        {"id": 3, "image_id": 20, "category_id": 7, "bbox": [5, 5, 0, 5], "area": 0, "iscrowd": 1},
    ],
}
DETECTIONS = [
    {"image_id": 20, "category_id": 7, "bbox": [12, 2, 3, 4], "score": 0.5},
    {"image_id": 4, "category_id": 90, "bbox": [0.5, 0, 8, 8], "score": 1},
    {"image_id": 20, "category_id": 7, "bbox": [9, 9, 9, 9], "score": 0.75},
    {"image_id": 20, "category_id": 7, "bbox": [8, 8, 8, 8], "score": 0.5},
]


def broken(content, *path, value=None, delete=False):
    """A copy in which what lies at `path` is `value`, or gone."""
    content = copy.deepcopy(content)
    at = content
    for key in path[:-1]:
        at = at[key]
    if delete:
        del at[path[-1]]
    else:
        at[path[-1]] = value
    return content


def test_ground_truth_is_sorted_by_image_and_category():
    truth = read_ground_truth(GROUND_TRUTH)
    assert (truth.image_ids, truth.category_ids, truth.category_names) == ([4, 20], [7, 90], ["cat", "zebra"])
    assert truth.image_size.tolist() == [[100, 50], [640, 480]]
    # image 4 is number 0, category 90 number 1
    assert truth.image.tolist() == [0, 1, 1]
    assert truth.category.tolist() == [1, 0, 0]
    assert truth.box.tolist() == [[0, 0, 10, 10.5], [1, 2, 30, 40], [5, 5, 0, 5]]
    assert truth.crowd.tolist() == [False, False, True]
    # without "area" that of the box, 10 * 10.5
    assert truth.area.tolist() == [105, 700, 0]


def test_detections_are_sorted_by_score_and_equal_ones_stay_in_order():
    found = read_detections(DETECTIONS, read_ground_truth(GROUND_TRUTH))
    assert found.image.tolist() == [0, 1, 1, 1]
    assert found.category.tolist() == [1, 0, 0, 0]
    assert found.score.tolist() == [1, 0.75, 0.5, 0.5]
    assert found.box[:, 0].tolist() == [0.5, 9, 12, 8]


def test_files_and_what_they_hold_are_the_same(tmp_path):
    (tmp_path / "gt.json").write_text(json.dumps(GROUND_TRUTH))
    (tmp_path / "dt.json").write_text(json.dumps(DETECTIONS))
    truth = read_ground_truth(str(tmp_path / "gt.json"))
    for ours, expected in zip(vars(truth).values(), vars(read_ground_truth(GROUND_TRUTH)).values(), strict=True):
        assert np.array_equal(ours, expected)
    found = read_detections(tmp_path / "dt.json", truth)
    for ours, expected in zip(vars(found).values(), vars(read_detections(DETECTIONS, truth)).values(), strict=True):
        assert np.array_equal(ours, expected)


def test_nothing_at_all():
    truth = read_ground_truth(GROUND_TRUTH | {"images": [], "annotations": []})
    assert truth.box.shape == (0, 4) and truth.image_size.shape == (0, 2) and len(truth.image) == 0
    found = read_detections([], truth)
    assert len(found) == 0 and found.box.shape == (0, 4)


def test_ids_may_be_strings():
    truth = read_ground_truth(
        {
            "images": [{"id": "b", "width": 9, "height": 9}, {"id": "a", "width": 9, "height": 9}],
            "categories": [{"id": 1, "name": "cat"}],
            "annotations": [{"id": "x", "image_id": "b", "category_id": 1, "bbox": [0, 0, 1, 1]}],
        }
    )
    assert truth.image_ids == ["a", "b"] and truth.image.tolist() == [1]


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ([], r"must hold an object with 'images', 'annotations' and 'categories'; is it a results file"),
        (broken(GROUND_TRUTH, "annotations", delete=True), r"or a test set without annotations\?"),
        (broken(GROUND_TRUTH, "categories", value=[]), r"has no categories; list those"),
        (broken(GROUND_TRUTH, "images", value={}), r"images must be a list, got dict"),
        (broken(GROUND_TRUTH, "images", 1, value=3), r"images\[1\] is 3; it must be an object"),
        (broken(GROUND_TRUTH, "images", 1, "id", delete=True), r"images\[1\] has no 'id'"),
        (broken(GROUND_TRUTH, "images", 1, "id", value=20), r"images\[1\] has 'id' 20, as one before it"),
        (broken(GROUND_TRUTH, "images", 1, "id", value=[]), r"images\[1\] has 'id' \[\]; it must be an integer or"),
        (broken(GROUND_TRUTH, "images", 1, "id", value="4"), r"images have both numbers and strings as 'id'"),
        (broken(GROUND_TRUTH, "images", 0, "width", delete=True), r"images\[0\] has no 'width'"),
        (broken(GROUND_TRUTH, "images", 1, "height", value=0), r"images\[1\] has no extent; give its width"),
        (broken(GROUND_TRUTH, "categories", 1, "id", value=90), r"categories\[1\] has 'id' 90, as one before"),
        (broken(GROUND_TRUTH, "categories", 0, "name", delete=True), r"categories\[0\] has no 'name'"),
        (broken(GROUND_TRUTH, "annotations", 2, "id", value=1), r"annotations\[2\] has 'id' 1, as one before"),
        (
            broken(GROUND_TRUTH, "annotations", 1, "image_id", value=5),
            r"annotations\[1\] has 'image_id' 5, which is no image of the ground truth; remove the annotation",
        ),
        (
            broken(GROUND_TRUTH, "annotations", 0, "category_id", value=8),
            r"annotations\[0\] has 'category_id' 8, which is no category of the ground truth; remove",
        ),
        (broken(GROUND_TRUTH, "annotations", 1, "bbox", delete=True), r"annotations\[1\] has no 'bbox'"),
        (
            broken(GROUND_TRUTH, "annotations", 1, "bbox", 3, value=-1),
            r"annotations\[1\] has the box \[0.0, 0.0, 10.0, -1.0\]; a box must be finite",
        ),
        (broken(GROUND_TRUTH, "annotations", 0, "area", value=-1), r"annotations\[0\] has 'area' -1.0; it must not be"),
        (broken(GROUND_TRUTH, "annotations", 0, "iscrowd", value=2), r"annotations\[0\] has 'iscrowd' 2; it must be 0"),
        (broken(GROUND_TRUTH, "categories", 0, "name", value=None), r"categories\[0\] has 'name' None; it must be a"),
        (broken(GROUND_TRUTH, "categories", 0, "id", value=True), r"categories\[0\] has 'id' True; it must be an int"),
        (broken(GROUND_TRUTH, "annotations", 0, "area", value="big"), r"annotations\[0\] has 'area' 'big'; it must be"),
    ],
)
def test_bad_ground_truth_is_named(content, sentence):
    with pytest.raises(CocoFormatError, match=f"^ground truth.*{sentence}"):
        read_ground_truth(content)


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ({}, r"must hold a list of detections; are ground truth and detections swapped\?"),
        (broken(DETECTIONS, 2, value="x"), r"\[2\] is 'x'; it must be an object"),
        (broken(DETECTIONS, 3, "score", delete=True), r"\[3\] has no 'score'"),
        (broken(DETECTIONS, 3, "score", value=None), r"\[3\] has 'score' None; it must be a number"),
        (broken(DETECTIONS, 3, "score", value="0.5"), r"\[3\] has 'score' '0.5'; it must be a number"),
        (broken(DETECTIONS, 3, "score", value=[0.5]), r"\[3\] has 'score' \[0.5\]; it must be a number"),
        (broken(DETECTIONS, 3, "score", value=float("nan")), r"\[3\] has 'score' nan; it must be finite"),
        (broken(DETECTIONS, 3, "score", value=1.5), r"\[3\] has the score 1.5; scores must be probabilities"),
        (broken(DETECTIONS, 1, "score", value=-0.5), r"\[1\] has the score -0.5; scores must be probabilities"),
        (broken(DETECTIONS, 1, "score_before", value=2), r"\[1\] has the score_before 2.0; scores must be prob"),
        (broken(DETECTIONS, 0, "bbox", value=[1, 2, 3]), r"\[0\] has 'bbox' \[1, 2, 3\]; it must be 4 numbers"),
        (broken(DETECTIONS, 0, "bbox", value=7), r"\[0\] has 'bbox' 7; it must be 4 numbers"),
        (broken(DETECTIONS, 2, "bbox", 0, value=float("inf")), r"\[2\] has 'bbox' .*inf.*; it must be finite"),
        (broken(DETECTIONS, 2, "bbox", 2, value=-3), r"\[2\] has the box .*-3.*no negative size, not corners"),
        (broken(DETECTIONS, 1, "image_id", value=[4]), r"\[1\] has 'image_id' \[4\]; it must be an integer or a"),
        (broken(DETECTIONS, 1, "image_id", value=True), r"\[1\] has 'image_id' True; it must be an integer or a"),
        (broken(DETECTIONS, 1, "score", value=True), r"\[1\] has 'score' True; it must be a number"),
        (broken(DETECTIONS, 1, "bbox", 2, value=True), r"\[1\] has 'bbox' .*True.*; it must be 4 numbers"),
        (broken(DETECTIONS, 1, "bbox", 2, value=1e200), r"\[1\] has the box .*1e\+200.*; a box must be finite"),
        (broken(DETECTIONS, 1, "category_id", value=0), r"\[1\] has 'category_id' 0, which is no category .*; map the"),
    ],
)
def test_bad_detections_are_named(content, sentence):
    with pytest.raises(CocoFormatError, match=f"^detections.*{sentence}"):
        read_detections(content, read_ground_truth(GROUND_TRUTH))


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b'{"images": [', "is not valid JSON .*; write it again, it may be cut short"),
        (b"\xff\xfe\xff", "is not valid JSON"),
        (None, r"cannot be read \(No such file or directory\); give the path"),
    ],
)
def test_bad_files_are_named(tmp_path, content, sentence):
    path = tmp_path / "gt.json"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(CocoFormatError, match=f"gt.json {sentence}"):
        read_ground_truth(path)
    with pytest.raises(CocoFormatError, match=f"gt.json {sentence}"):
        read_detections(path, read_ground_truth(GROUND_TRUTH))


def test_errors_name_the_file(tmp_path):
    (tmp_path / "dt.json").write_text(json.dumps(broken(DETECTIONS, 2, "score", value=2)))
    with pytest.raises(CocoFormatError, match=r"dt.json: detections\[2\] has the score 2"):
        read_detections(tmp_path / "dt.json", read_ground_truth(GROUND_TRUTH))


def test_arrays_are_checked_as_files_are():
    index, box = np.zeros(2, np.int64), np.ones((2, 4))
    with pytest.raises(CocoFormatError, match=r"^detections\[1\] has the score nan"):
        check_detections(index, index, box, np.array([0.5, np.nan]))
    with pytest.raises(CocoFormatError, match=r"^detections\[0\] has the box \[nan"):
        check_detections(index, index, np.array([[np.nan, 1, 1, 1], [1, 1, 1, 1]]), np.array([0.5, 0.5]))


def test_detections_of_other_images_are_left_out_and_counted():
    truth = read_ground_truth(GROUND_TRUTH)
    found = [*DETECTIONS, DETECTIONS[0] | {"image_id": 5}, DETECTIONS[0] | {"image_id": 6}]
    with pytest.warns(DataWarning, match=r"2 of 6 are of images that the ground truth lacks, such as 5; they are left"):
        assert len(read_detections(found, truth)) == 4
    with pytest.raises(CocoFormatError, match=r"2 of 2 are of images .*; evaluate against the ground truth the detec"):
        read_detections(found[4:], truth)


def grid(boxes):
    """Detections of these boxes in the image of 640 x 480."""
    return [DETECTIONS[0] | {"bbox": box} for box in boxes]


def test_boxes_that_leave_their_images_are_counted():
    truth = read_ground_truth(GROUND_TRUTH)
    # one pixel is rounding, two are not
    with pytest.warns(DataWarning, match=r"1 of 3 boxes leave their images; scale boxes to the images of the ground"):
        read_detections(grid([[0, 0, 640, 480], [-1, 0, 642, 481], [0, 470, 10, 12]]), truth)


def test_corners_are_refused_and_few_of_them_named():
    truth = read_ground_truth(GROUND_TRUTH)
    corners = [[30 * k, 20 * k, 30 * k + 60, 20 * k + 40] for k in range(10, 20)]
    with pytest.raises(CocoFormatError, match=r"10 of 10 boxes leave their images, and none does if they are corners"):
        read_detections(grid(corners), truth)
    with pytest.warns(DataWarning, match=r"9 of 9 boxes leave their images; write corners as \[left, top, width, h"):
        read_detections(grid(corners[1:]), truth)


def test_boxes_of_which_none_can_be_right_are_refused():
    boxes = grid([[700 + k, 10, 20, 20] for k in range(10)])
    with pytest.raises(CocoFormatError, match=r"all 10 boxes lie outside their images; write them in pixels of these"):
        read_detections(boxes, read_ground_truth(GROUND_TRUTH))


def test_categories_of_one_name_are_told_apart():
    truth = read_ground_truth(broken(GROUND_TRUTH, "categories", 1, "name", value="zebra"))
    assert truth.category_names == ["zebra (7)", "zebra (90)"]


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ('[{"score": 0.1, "score": 0.9}]', "'score' is there twice in one object"),
        ("[" * 100_000, "it is nested too deeply"),
        ("[1" + "0" * 5000 + "]", "limit"),
    ],
)
def test_json_of_two_meanings_or_none(text, sentence, tmp_path):
    (tmp_path / "dt.json").write_text(text)
    with pytest.raises(CocoFormatError, match=f"dt.json is not valid JSON .*{sentence}"):
        read_detections(tmp_path / "dt.json", read_ground_truth(GROUND_TRUTH))

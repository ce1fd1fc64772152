"""What is said of a Cityscapes folder that is not all there."""

import pytest
from forked_tools import run_tool

from dudes_mmseg.data import check_cityscapes, cityscapes_tree, write_streets

FEW = {"train": 2, "val": 1, "test": 1}


@pytest.fixture
def tree(tmp_path, monkeypatch):
    """A whole data set, if Cityscapes had so few images."""
    monkeypatch.setattr(cityscapes_tree, "NUM_IMAGES", FEW)
    return write_streets(tmp_path / "cityscapes", FEW, (40, 32), progress=False)


def the_file(tree, pattern):
    return next(iter(sorted(tree.glob(pattern))))


def test_a_complete_folder_has_no_problems(tree):
    assert check_cityscapes(tree) == []
    assert check_cityscapes(tree, deep=True) == []


def test_labels_of_the_test_split_are_not_asked_for(tree):
    for path in tree.glob("gtFine/test/*/*"):
        path.unlink()
    assert check_cityscapes(tree, deep=True) == []


def test_an_empty_folder_is_told_where_to_register(tmp_path):
    images, labels = check_cityscapes(tmp_path)
    for problem, name in ((images, "leftImg8bit"), (labels, "gtFine")):
        assert problem.startswith(f"{tmp_path / name} is missing: register at https://www.cityscapes-dataset.com/")
        assert f"download {name}_trainvaltest.zip" in problem


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("leftImg8bit/test/*/*", ["leftImg8bit/test has 0 images, not 1: unpack"]),
        (
            "leftImg8bit/train/*/*000001*",
            ["leftImg8bit/train has 1 images, not 2", "1 of 2 labels of train have no image, the first being train00/"],
        ),
        (
            "gtFine/val/*/*labelIds*",
            ["1 of 1 images of val have no gtFine_labelIds.png, the first being val00/val00_000000_000000: unpack"],
        ),
        (
            "gtFine/train/*/*labelTrainIds*",
            ["2 of 2 labels of train have no gtFine_labelTrainIds.png, the first being train00/train00_000000_000000: "
             "make them once with cityscapesscripts: CITYSCAPES_DATASET="],
        ),
    ],
)  # fmt: skip
def test_what_is_missing_is_named_with_its_remedy(tree, pattern, expected):
    for path in tree.glob(pattern):
        path.unlink()
    problems = check_cityscapes(tree)
    assert len(problems) == len(expected)
    for problem, part in zip(problems, expected, strict=True):
        assert part in problem


def test_reading_every_file_finds_damage(tree):
    cut, swapped = the_file(tree, "leftImg8bit/train/*/*"), the_file(tree, "gtFine/val/*/*labelIds*")
    cut.write_bytes(cut.read_bytes()[:-100])
    other = write_streets(tree.parent / "other", {"val": 1}, (48, 32), progress=False)
    swapped.write_bytes(the_file(other, "gtFine/val/*/*labelIds*").read_bytes())
    assert check_cityscapes(tree) == []
    first, second = check_cityscapes(tree, deep=True)
    assert first.startswith(f"{cut} cannot be read (")
    assert "and its labels have different sizes, (40, 32), (48, 32), (40, 32): unpack them again" in second


def test_the_numbers_are_those_of_the_data_set():
    assert cityscapes_tree.NUM_IMAGES == {"train": 2975, "val": 500, "test": 1525}


def test_the_tool(tree):
    outcome = run_tool("check_cityscapes", tree, "--deep", folder=tree.parent)
    assert outcome.code == 0, outcome.err
    assert outcome.out == f"{tree} is complete: 2 images of train, 1 images of val, 1 images of test\n"
    outcome = run_tool("check_cityscapes", tree / "gtFine", folder=tree.parent)
    assert outcome.code == 1
    assert outcome.out.count("is missing: register at") == 2

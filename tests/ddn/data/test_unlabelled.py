"""Images without labels as data sets: which images they hold, and what tells them from others."""

import json
import shutil

import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog
from PIL import Image

from ddn_detectron2.data import DatasetError, register_unlabelled, unlabelled_dicts
from ddn_detectron2.data.unlabelled import images_fingerprint
from uncertainty_core.errors import UserError


@pytest.fixture(autouse=True)
def forget():
    """Names that a test has registered."""
    known = set(DatasetCatalog)
    yield
    for name in set(DatasetCatalog) - known:
        DatasetCatalog.remove(name)
        if name in MetadataCatalog:
            MetadataCatalog.remove(name)


@pytest.fixture
def folder(tmp_path):
    """Three images, one of them on its side, and a file that is none."""
    folder = tmp_path / "images"
    (folder / "more").mkdir(parents=True)
    for name, size in (("b.png", (8, 6)), ("a.jpg", (9, 7)), ("more/c.JPG", (5, 4))):
        exif = Image.Exif()
        if name == "a.jpg":
            exif[0x0112] = 6
        Image.new("RGB", size).save(folder / name, exif=exif)
    (folder / "notes.txt").touch()
    return folder


def test_all_images_of_a_folder(folder):
    register_unlabelled("u_all", folder)
    register_unlabelled("u_all", folder)  # the same again is no error
    found = unlabelled_dicts(["u_all"])
    assert [(d["image_id"], d["width"], d["height"]) for d in found] == [
        ("a.jpg", 7, 9),
        ("b.png", 8, 6),
        ("more/c.JPG", 5, 4),
    ]
    assert all(d["file_name"] == str(folder / d["image_id"]) for d in found)
    with pytest.raises(DatasetError, match=f"the name u_all is taken by {folder}"):
        register_unlabelled("u_all", folder / "more")


def test_those_of_a_file_without_their_labels(folder, tmp_path):
    images = [{"id": 7, "file_name": "more/c.JPG"}, {"id": 3, "file_name": "b.png", "width": 8, "height": 6}]
    (tmp_path / "some.json").write_text(json.dumps({"images": images, "annotations": [{"image_id": 3}]}))
    register_unlabelled("u_some", folder, tmp_path / "some.json")
    assert [(d["image_id"], d["width"]) for d in unlabelled_dicts(["u_some"])] == [(7, 5), (3, 8)]
    DatasetCatalog.register("u_labelled", lambda: [{"image_id": 1, "annotations": [{}], "sem_seg_file_name": "a"}])
    assert unlabelled_dicts(["u_labelled"]) == [{"image_id": 1}]


@pytest.mark.parametrize("content", ["{", "[]", '{"images": []}', '{"images": [{"file_name": "b.png"}]}', None])
def test_files_that_name_no_images(folder, tmp_path, content):
    path = tmp_path / "some.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(DatasetError, match=r"some.json is no COCO file that names images"):
        register_unlabelled("u_none", folder, path)


def test_folders_without_images_and_files_of_missing_ones(folder, tmp_path):
    with pytest.raises(UserError, match="holds no image"):
        register_unlabelled("u_none", tmp_path / "images" / "none")
    (tmp_path / "some.json").write_text(json.dumps({"images": [{"id": 1, "file_name": "d.png"}]}))
    with pytest.raises(DatasetError, match=r"lacks d.png of the 1 images"):
        register_unlabelled("u_none", folder, tmp_path / "some.json")
    (folder / "broken.png").write_bytes(b"no picture")
    register_unlabelled("u_broken", folder)
    with pytest.raises(DatasetError, match=r"broken.png cannot be decoded"):
        unlabelled_dicts(["u_broken"])


def test_the_fingerprint_is_of_the_images_wherever_they_are(folder, tmp_path):
    shutil.copytree(folder, tmp_path / "copy")
    shutil.copytree(folder, tmp_path / "other")
    Image.new("RGB", (8, 6), "red").save(tmp_path / "other" / "b.png", compress_level=0)
    names = ["u_here", "u_copy", "u_other"]
    for name, place in zip(names, (folder, tmp_path / "copy", tmp_path / "other"), strict=True):
        register_unlabelled(name, place)
    here, copy, other = map(images_fingerprint, names)
    assert here == copy != other

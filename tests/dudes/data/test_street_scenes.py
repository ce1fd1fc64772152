"""Drawn streets: painting against slow references, what they hold, and how they get onto the disk."""

import hashlib
import json
import os

import numpy as np
import pytest
from cityscapesscripts.helpers.labels import id2label
from forked_tools import KILLED, die_at_call, run, run_tool
from hypothesis import given
from hypothesis import strategies as st
from mmengine.registry import DATASETS, METRICS, init_default_scope
from PIL import Image

import dudes_mmseg
from dudes_mmseg.data import NUM_STREETS, cityscapes_labels, draw_street, write_streets
from dudes_mmseg.data.canvas import Canvas, inside
from dudes_mmseg.data.streets import VERSION
from uncertainty_core.errors import UserError
from uncertainty_core.textures import Random

init_default_scope("mmseg")

SMALL = (64, 32)
# Of the first four streets of "train". A change of the drawing on purpose changes VERSION too.
FINGERPRINT = "162954833eeb550d62931599600b928545d80643a73cea1c3d2a39ef88a05678"


def files(folder):
    paths = (path for path in folder.rglob("*") if path.is_file() and path.suffix != ".part")
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths}


# Painting

corners = st.lists(st.tuples(st.floats(-6, 20), st.floats(-6, 16)), min_size=3, max_size=7)


@given(corners)
def test_a_pixel_is_inside_when_a_ray_from_its_centre_crosses_the_outline_an_odd_number_of_times(polygon):
    # in sixteenths, where the outline really runs; exactly on an edge either answer is right
    points = [(round(x * 16), round(y * 16)) for x, y in polygon]
    rows, columns, mask = inside(np.array(points) / 16, 10, 14)
    whole = np.zeros((10, 14), dtype=bool)
    whole[rows, columns] = mask
    for y in range(10):
        for x in range(14):
            px, py, crossings, on_edge = 16 * x + 8, 16 * y + 8, 0, False
            for (x1, y1), (x2, y2) in zip(points, points[1:] + points[:1], strict=True):
                if (y1 <= py) != (y2 <= py):
                    side = (x2 - x1) * (py - y1) - (px - x1) * (y2 - y1)
                    on_edge |= side == 0
                    crossings += (side > 0) == (y2 > y1)
            assert on_edge or whole[y, x] == crossings % 2


def test_an_outline_outside_of_the_picture_paints_nothing():
    for shift in (-50, 50):
        for axis in (0, 1):
            polygon = np.array([(1.0, 1), (4, 1), (4, 4)])
            polygon[:, axis] += shift
            assert not inside(polygon, 10, 14)[2].any()


def test_blur_by_hand():
    canvas = Canvas(Random(0), 3, 4)
    canvas.image[1, 0] = 16
    canvas.blur()
    # along the columns 4, 8, 4; along the rows the border repeats the first pixel: (2 + 1) / 4 and 1 / 4 of them
    np.testing.assert_array_equal(canvas.image[..., 0], [[3, 1, 0, 0], [6, 2, 0, 0], [3, 1, 0, 0]])


# What streets hold


@pytest.fixture(scope="module")
def streets():
    return [draw_street(0, "train", index) for index in range(24)]


def test_streets_are_the_same_everywhere(streets):
    digest = hashlib.sha256()
    for street in streets[:4]:
        for values in street:
            digest.update(np.ascontiguousarray(values).astype("<u2").tobytes())
    assert (VERSION, digest.hexdigest()) == (1, FINGERPRINT)


def test_a_street_depends_on_its_number_split_and_seed_alone(streets):
    assert np.array_equal(draw_street(0, "train", 3).image, streets[3].image)
    for other in (draw_street(1, "train", 3), draw_street(0, "val", 3), draw_street(0, "train", 4)):
        assert (other.label_ids != streets[3].label_ids).mean() > 0.1


@pytest.mark.parametrize("size", [(256, 128), (128, 128), (33, 47), (300, 90)])
def test_any_size(size):
    image, label_ids, instance_ids = draw_street(0, "train", 1, *size)
    assert image.shape == (*size[::-1], 3)
    assert label_ids.shape == instance_ids.shape == size[::-1]
    assert (image.dtype, label_ids.dtype, instance_ids.dtype) == (np.uint8, np.uint8, np.uint16)


def test_labels_are_those_of_cityscapes():
    everything = np.arange(34)
    expected = [id2label[label].trainId if id2label[label].trainId >= 0 else 255 for label in everything]
    assert cityscapes_labels.train_ids(everything).tolist() == expected
    names = {name: value for name, value in vars(cityscapes_labels).items() if name.isupper() and name != "VOID"}
    for name, value in names.items():
        if isinstance(value, int):
            assert id2label[value].name.replace("unlabeled", "unlabelled") == name.lower().replace("_", " ")


def test_classes_are_many_and_of_very_different_frequency(streets):
    counts = np.bincount(np.concatenate([s.label_ids.ravel() for s in streets]), minlength=34)
    assert (counts[list(cityscapes_labels.TRAINED)] > 0).sum() >= 17
    shares = counts / counts.sum()
    assert shares[cityscapes_labels.ROAD] > 100 * shares[cityscapes_labels.RIDER] > 0
    void = 1 - shares[list(cityscapes_labels.TRAINED)].sum()
    assert 0.03 < void < 0.2
    assert counts[[cityscapes_labels.EGO_VEHICLE, cityscapes_labels.STATIC, cityscapes_labels.UNLABELLED]].all()


def test_instances_are_of_the_classes_that_cityscapes_counts(streets):
    for street in streets:
        counted = street.instance_ids >= 1000
        assert np.array_equal(street.instance_ids[counted] // 1000, street.label_ids[counted])
        assert np.array_equal(street.instance_ids[~counted], street.label_ids[~counted])
        labels = np.unique(street.label_ids)
        assert set(street.label_ids[counted]) == {label for label in labels if id2label[label].hasInstances}


def test_colours_tell_classes_apart_but_not_all_of_them(streets):
    # The colour of a pixel, in 8 x 8 x 8 boxes, and its row say its class as well as they can on the streets that
    # they were counted on: far better than the commonest class, and far from always.
    table = np.zeros((512 * 8, 19), dtype=int)
    for street in streets:
        label = cityscapes_labels.train_ids(street.label_ids)
        red, green, blue = np.moveaxis(street.image.astype(int) // 32, -1, 0)
        key = ((red * 8 + green) * 8 + blue) * 8 + (np.arange(128) // 16)[:, None]
        np.add.at(table, (key[label < 19], label[label < 19]), 1)
    right = table.max(axis=1).sum() / table.sum()
    assert table.sum(axis=0).max() / table.sum() + 0.15 < right < 0.9


# On disk

FEW = {"train": 3, "val": 2, "test": 1}


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """A folder that was written in one go. Not to be changed."""
    return write_streets(tmp_path_factory.mktemp("streets") / "all", FEW, SMALL, progress=False)


def dataset(root, split="train", kind="CityscapesDataset", **options):
    prefix = {"img_path": f"leftImg8bit/{split}", "seg_map_path": f"gtFine/{split}"}
    pipeline = [{"type": f"{name}"} for name in ("LoadImageFromFile", "LoadAnnotations", "PackSegInputs")]
    return DATASETS.build(
        {"type": f"{kind}", "data_root": str(root), "data_prefix": prefix, "pipeline": pipeline, **options}
    )


def test_mmsegmentation_reads_them_as_cityscapes(written):
    for split, number in FEW.items():
        images = dataset(written, split)
        assert len(images) == number
        for index in range(number):
            street, sample = draw_street(0, split, index, *SMALL), images[index]
            assert np.array_equal(sample["inputs"].permute(1, 2, 0).numpy()[..., ::-1], street.image)  # BGR
            expected = cityscapes_labels.train_ids(street.label_ids)
            assert np.array_equal(sample["data_samples"].gt_sem_seg.data[0].numpy(), expected)


def test_the_official_evaluation_runs_on_them(written, tmp_path, monkeypatch):
    # what cityscapesscripts 2.3 calls and numpy 2.4 no longer has
    monkeypatch.setattr(np, "in1d", np.isin, raising=False)
    metric = METRICS.build({"type": "CityscapesMetric", "output_dir": str(tmp_path / "out")})
    for sample in dataset(written, "val"):
        truth = sample["data_samples"]
        # all right but for void, where any class will do: it is not evaluated
        said = truth.gt_sem_seg.clone()
        said.data[said.data == 255] = 0
        truth.pred_sem_seg = said
        metric.process({}, [truth.to_dict()])
    result = metric.compute_metrics(metric.results)
    assert result["averageScoreCategories"] == pytest.approx(1)
    assert result["averageScoreInstCategories"] == pytest.approx(1)


def test_the_dataset_draws_itself(written, tmp_path):
    options = {"split": "train", "size": SMALL, "num_images": 3, "data_root": str(tmp_path)}
    kind = {"type": "StreetScenesDataset", **options}
    assert not list(tmp_path.iterdir())
    assert len(DATASETS.build(kind | {"lazy_init": True}).metainfo["classes"]) == 19
    assert not list(tmp_path.iterdir())
    assert len(DATASETS.build(kind)) == 3
    assert files(tmp_path / "gtFine" / "train") == files(written / "gtFine" / "train")
    with pytest.raises(UserError, match=r"no 0 streets of 'training'|no .* streets of 'training': ask for"):
        DATASETS.build(kind | {"split": "training"})


def write_and_die(folder, replacement):
    die_at_call(os, "replace", replacement)
    write_streets(folder, FEW, SMALL)


@pytest.mark.parametrize("replacement", [1, 4, 14])
def test_a_killed_writer_goes_on_and_ends_with_the_same_files(written, tmp_path, replacement):
    folder = tmp_path / "all"
    assert run(write_and_die, folder, replacement, folder=tmp_path).code == KILLED
    assert files(folder) != files(written)
    write_streets(folder, FEW, SMALL, progress=False)
    assert files(folder) == files(written)


def test_more_are_added_and_what_is_there_stays(tmp_path):
    write_streets(tmp_path, {"val": 1}, SMALL, progress=False)
    before = files(tmp_path)
    write_streets(tmp_path, {"val": 2}, SMALL, progress=False)
    after = files(tmp_path)
    assert len(after) == len(before) + 4
    assert {name: after[name] for name in before} == before


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"seed": 1}, "holds other streets, of seed 0, not 1: remove it, or choose another folder"),
        ({"size": (80, 32)}, "holds other streets, of width 64, not 80"),
        ({"num_streets": {"train": 2}}, "holds 3 streets of train, not 2"),
        ({"num_streets": {"train": -1}}, "there are no -1 streets of 'train'"),
        ({"num_streets": {"train ": 1}}, "there are no 1 streets of 'train '"),
        ({"size": (16, 16)}, "streets of 16 x 16 pixels show nothing"),
    ],
)
def test_a_folder_of_other_streets_is_refused(written, options, sentence):
    before = files(written)
    with pytest.raises(UserError, match=sentence):
        write_streets(written, **{"num_streets": FEW, "size": SMALL, "progress": False, **options})
    assert files(written) == before


def test_another_version_is_refused(written, tmp_path):
    content = json.loads((written / "streets.json").read_text())
    (tmp_path / "streets.json").write_text(json.dumps(content | {"version": VERSION + 1}))
    with pytest.raises(UserError, match=f"of version {VERSION + 1}, not {VERSION}"):
        write_streets(tmp_path, FEW, SMALL)
    (tmp_path / "streets.json").write_text("{}")
    with pytest.raises(UserError, match="was not written by this project"):
        write_streets(tmp_path, FEW, SMALL)


def test_somebody_elses_cityscapes_is_left_alone(tmp_path):
    (tmp_path / "leftImg8bit" / "train").mkdir(parents=True)
    with pytest.raises(UserError, match=r"holds images but no streets\.json"):
        write_streets(tmp_path, FEW, SMALL)


def test_the_tool(written, tmp_path):
    words = [word for split, number in FEW.items() for word in (f"--{split}", number)]
    outcome = run_tool("make_street_scenes", "all", *words, "--size", *SMALL, folder=tmp_path)
    assert (outcome.code, outcome.out) == (0, "all\n"), outcome.err
    assert files(tmp_path / "all") == files(written)
    outcome = run_tool("make_street_scenes", "all", "--size", 48, 48, folder=tmp_path)
    assert outcome.code == 2
    assert outcome.err.startswith("error: all holds other streets")


def test_usual_numbers():
    assert dudes_mmseg.StreetScenesDataset(data_root="x", split="val", lazy_init=True)._wanted == {
        "val": NUM_STREETS["val"]
    }


def test_pictures_are_rgb_png(written):
    [path] = (written / "leftImg8bit" / "test").glob("*/*.png")
    assert (Image.open(path).mode, Image.open(path).size) == ("RGB", SMALL)

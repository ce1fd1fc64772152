"""Targets in pipelines: on a ramp every pixel says where it was, so it shows where its target has gone."""

import pickle
import re

import numpy as np
import pytest
import torch
from mmcv.transforms import Compose
from mmcv.transforms import Pad as PadOfMMCV
from mmengine.registry import TRANSFORMS, init_default_scope
from PIL import Image

import dudes_mmseg
from dudes_mmseg.targets.codec import CODEC, encode_target
from uncertainty_core import TargetStoreError, write_targets
from uncertainty_core.errors import UserError

init_default_scope("mmseg")

HEIGHT, WIDTH, CLASSES = 40, 56, 6
REAL = 200  # of the blue of every pixel of the image; padding has none


def build(*configs):
    return Compose([TRANSFORMS.build({"type": kind, **options}) for kind, options in configs])


def position():
    """Row and column of each pixel (H, W)."""
    return np.mgrid[:HEIGHT, :WIDTH]


def target():
    """A number for each pixel, (H, W), from which its row and column can be read off."""
    y, x = position()
    return (y * WIDTH + x) / (HEIGHT * WIDTH) * 0.7


def pixel_of(values):
    """Row and column that targets came from; the steps of `target` are 40 times those of the store."""
    number = np.rint(values / 0.7 * (HEIGHT * WIDTH)).astype(int)
    return np.divmod(number, WIDTH)


@pytest.fixture(scope="module")
def image(tmp_path_factory):
    """A picture whose red is the row and green the column, its labels, and stores of one map and of six.

    That of one map has probabilities, too, whose largest classes are read off the row and the column.
    """
    folder = tmp_path_factory.mktemp("ramp")
    y, x = position()
    Image.fromarray(np.stack([4 * y, 4 * x, np.full_like(x, REAL)], axis=-1).astype(np.uint8)).save(folder / "ramp.png")
    labels = x.astype(np.uint8)
    labels[5:9] = 255  # void
    Image.fromarray(labels).save(folder / "labels.png")
    one = torch.from_numpy(target())
    maps = {"one": one, "six": torch.stack([one * (CLASSES - c) / CLASSES for c in range(CLASSES)])}
    scores = torch.zeros(WIDTH, HEIGHT, WIDTH, dtype=torch.float64)  # of as many classes as there are columns
    scores[y, y, x] += 3
    scores[x, y, x] += 4
    for name, std in maps.items():
        given = ({"entropy": one}, scores.softmax(0), 2) if name == "one" else ()
        codes = encode_target(std, folder / "ramp.png", *given)
        write_targets(folder / name, ["ramp.png"], lambda _, codes=codes: [codes], {"codec": CODEC}, progress=False)
    return folder


def load(folder, store="one"):
    loading = build(
        ("LoadImageFromFile", {}), ("LoadAnnotations", {}), ("LoadUncertaintyTarget", {"store": str(folder / store)}),
        ("MarkRealPixels", {}),
    )  # fmt: skip
    info = {"img_path": str(folder / "ramp.png"), "seg_map_path": str(folder / "labels.png")}
    return loading({**info, "seg_fields": [], "label_map": None, "reduce_zero_label": False})


RESIZE = ("RandomResize", {"scale": (WIDTH, HEIGHT), "ratio_range": (0.5, 2.0), "keep_ratio": True})
CROP = ("RandomCrop", {"crop_size": (24, 32), "cat_max_ratio": 0.75})
FLIP = ("RandomFlip", {"prob": 1.0, "direction": "horizontal"})
PAD = ("Pad", {"size": (128, 96)})  # width and height
ROTATE = ("RandomRotate", {"prob": 1.0, "degree": 30})
PIPELINES = {
    "nothing": [],
    "resize": [RESIZE],
    "stretch": [("Resize", {"scale": (100, 50), "keep_ratio": False})],
    "crop": [CROP],
    "flip": [FLIP],
    "flip-vertical": [("RandomFlip", {"prob": 1.0, "direction": "vertical"})],
    "flip-diagonal": [("RandomFlip", {"prob": 1.0, "direction": "diagonal"})],
    "pad": [PAD],
    "pad-to-divisor": [("Pad", {"size_divisor": 32})],
    "rotate": [ROTATE],
    "all": [RESIZE, CROP, FLIP, PAD, ROTATE],
    "padded-first": [PAD, ROTATE, FLIP, CROP, RESIZE],
}


@pytest.mark.parametrize("store", ["one", "six"])
@pytest.mark.parametrize("name", PIPELINES)
def test_targets_land_where_their_pixels_land(image, name, store):
    kinds = {kind for kind, _ in PIPELINES[name]}
    tolerance = 1.3 if len(kinds) < 2 else 2
    for seed in range(4):
        np.random.seed(seed)
        results = build(*PIPELINES[name], ("PackUncertaintyInputs", {}))(load(image, store))
        sample, inputs = results["data_samples"], results["inputs"].numpy().astype(int)
        maps = sample.gt_uncertainty.data.numpy()
        assert maps.dtype == np.float32
        assert maps.shape == ({"one": 1, "six": CLASSES}[store], *inputs.shape[1:])
        padded = maps[0] == 255
        # padding is padding in every channel, and everything else is a value
        assert (maps[:, padded] == 255).all()
        assert (maps[:, ~padded] <= 0.7).all()
        assert {"Pad", "RandomRotate"} & kinds or not padded.any()
        # labels go with their targets; void has targets, padding has neither
        row, column = pixel_of(maps[0])
        void = (row >= 5) & (row < 9)
        for found, expected in (
            (sample.real_pixels.data[0].numpy(), np.where(padded, 255, 0)),
            (sample.gt_sem_seg.data[0].numpy(), np.where(void | padded, 255, column)),
        ):
            # OpenCV rotates bytes and floats with other roundings, of which few matter
            assert np.array_equal(found, expected) or ("RandomRotate" in kinds and (found == expected).mean() > 0.99)
        if store == "one":
            coded = sample.gt_probabilities.data.numpy()
            assert coded.dtype == np.int32 and coded.shape == (2, *inputs.shape[1:])
            assert ((coded == 255) == padded).all() or (
                "RandomRotate" in kinds and (coded > 255)[:, ~padded].mean() > 0.99
            )
            # the class of the largest probability is the column, the next one the row, or where they are one, any
            differ = ~padded & (row != column)
            same = (coded[0] % 256 == column) & (coded[1] % 256 == row)
            assert same[differ].all() or ("RandomRotate" in kinds and same[differ].mean() > 0.97)
        # and the image with both, as far as its interpolation and rounding tell; not where it is mixed with padding
        green, red = inputs[1] / 4, inputs[2] / 4  # OpenCV reads blue, green, red
        clear = ~padded & (inputs[0] == REAL)
        assert clear.sum() > 0.8 * (~padded).sum()
        assert np.abs(red - row)[clear].max() <= tolerance
        assert np.abs(green - column)[clear].max() <= tolerance
        assert (inputs[0][padded] < REAL).all()
        for c, values in enumerate(maps):
            np.testing.assert_allclose(values[~padded], maps[0][~padded] * (CLASSES - c) / CLASSES, atol=1.2e-5)


@pytest.mark.parametrize("mode", ["reflect", "edge"])
def test_what_is_padded_with_copies_of_the_image_is_padding(image, mode):
    padded = build(("Pad", {"size": (70, 50), "padding_mode": mode}), ("PackUncertaintyInputs", {}))(load(image))
    expected = np.full((50, 70), 255)
    expected[:HEIGHT, :WIDTH] = 0
    assert np.array_equal(padded["data_samples"].real_pixels.data[0].numpy(), expected)
    assert np.array_equal(padded["data_samples"].gt_uncertainty.data[0].numpy() == 255, expected == 255)


def test_padding_without_targets_is_as_ever(image):
    results = build(("LoadImageFromFile", {}), PAD)({"img_path": str(image / "ramp.png")})
    expected = PadOfMMCV(**PAD[1])({"img": results["img"][:HEIGHT, :WIDTH]})
    assert np.array_equal(results["img"], expected["img"])
    assert results["pad_shape"] == expected["pad_shape"]


def test_packing_without_targets_is_as_ever(image):
    results = load(image)
    results = {name: value for name, value in results.items() if not re.match("real_pixels|gt_(?!seg_map)", name)}
    packed, plain = (build((kind, {}))(dict(results)) for kind in ("PackUncertaintyInputs", "PackSegInputs"))
    assert torch.equal(packed["inputs"], plain["inputs"])
    assert sorted(packed["data_samples"].keys()) == sorted(plain["data_samples"].keys()) == ["gt_sem_seg"]
    assert packed["data_samples"].metainfo == plain["data_samples"].metainfo


def test_the_data_sets_own_list_of_fields_is_not_written_to(image):
    fields = []
    loading = build(("LoadImageFromFile", {}), ("MarkRealPixels", {}))
    results = loading({"img_path": str(image / "ramp.png"), "seg_fields": fields})
    assert (results["seg_fields"], fields) == (["real_pixels"], [])


def test_a_store_is_opened_on_first_use_and_again_in_another_process(image):
    transform = dudes_mmseg.LoadUncertaintyTarget(str(image / "nowhere"))
    with pytest.raises(TargetStoreError, match=r"nowhere is not a target store: it has no manifest.json"):
        transform({"img_path": str(image / "ramp.png")})
    transform = dudes_mmseg.LoadUncertaintyTarget(str(image / "one"))
    results = {"img_path": str(image / "ramp.png"), "img": np.zeros((HEIGHT, WIDTH, 3))}
    first = transform(dict(results))["gt_uncertainty"]
    copy = pickle.loads(pickle.dumps(transform))
    assert np.array_equal(copy(dict(results))["gt_uncertainty"], first)
    assert repr(copy) == f"LoadUncertaintyTarget(store={str(image / 'one')!r})"


def test_a_target_of_another_size_is_refused(image):
    wrong = build(("LoadImageFromFile", {}), RESIZE, ("LoadUncertaintyTarget", {"store": str(image / "one")}))
    with pytest.raises(
        TargetStoreError, match=r"target for .*ramp.png in .*one has 56 x 40 pixels and the image \d+ x"
    ):
        wrong({"img_path": str(image / "ramp.png")})


def test_a_transform_that_leaves_targets_behind_is_named_by_its_effect(image):
    crop = build(("CenterCrop", {"crop_size": (20, 30)}), ("PackUncertaintyInputs", {}))
    with pytest.raises(
        UserError, match=r"of .*ramp.png has shape \(40, 56\) and the image \(30, 20\)|leaves seg_fields"
    ):
        crop(load(image))

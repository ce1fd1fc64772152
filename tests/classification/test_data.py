"""Data sets in memory: what is read, how it is split, what a batch goes through, and what is refused."""

import dataclasses
import gzip
import hashlib
import inspect
import pickle
import random
import sys
import warnings

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from torchvision import datasets

from classification import data
from classification.data import (
    DataError,
    ImageSet,
    adapt,
    channel_statistics,
    drop_pixels,
    load,
    random_crop,
    random_flip,
    resize,
    stratified_split,
    to_float,
    unlabelled,
)

SPLITS = ("train", "val", "test")


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def random_images(*shape, seed=0):
    return torch.randint(256, shape, generator=generator(seed), dtype=torch.uint8)


def an_image_set(count=6):
    return ImageSet(
        random_images(count, 3, 4, 5),
        torch.arange(count) % 2,
        ("cat", "dog"),
        tuple(f"{i}.png" for i in range(count)),
        "a",
    )


def quiet(name, split, root="nowhere", **options):
    return load(name, split, root, progress=False, **options)


def assert_same(a, b):
    assert a.images.equal(b.images)
    assert a.labels.equal(b.labels)
    assert (a.classes, a.ids, a.name) == (b.classes, b.ids, b.name)


def refusal(call, *arguments, **options):
    """The message of a DataError, which must be one line."""
    with pytest.raises(DataError) as refused:
        call(*arguments, **options)
    message = str(refused.value)
    assert "\n" not in message
    return message


def write_image(path, pixels):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels.permute(1, 2, 0).squeeze(2).numpy()).save(path)
    return pixels


def write_classes(folder, counts, channels=3, height=4, width=4):
    """A folder of PNG images per class; what they hold, by path."""
    written = {}
    for name, count in counts.items():
        for k in range(count):
            pixels = random_images(channels, height, width, seed=len(written))
            written[f"{name}/{k:02d}.png"] = write_image(folder / name / f"{k:02d}.png", pixels)
    return written


def write_mnist(root, count=40, packed=False):
    """idx files with `count` images for training and half as many for testing; the images of both."""
    folder = root / "MNIST" / "raw"
    folder.mkdir(parents=True)
    written = {}
    for part, number in (("train", count), ("t10k", count // 2)):
        images = random_images(number, 28, 28, seed=number)
        written[part] = images
        for name, header, values in (
            (f"{part}-images-idx3-ubyte", (number, 28, 28), images),
            (f"{part}-labels-idx1-ubyte", (number,), torch.arange(number, dtype=torch.uint8) % 10),
        ):
            content = bytes([0, 0, 8, len(header)]) + np.array(header, ">i4").tobytes() + values.numpy().tobytes()
            if packed:
                (folder / f"{name}.gz").write_bytes(gzip.compress(content))
            else:
                (folder / name).write_bytes(content)
    return written


def write_cifar(root, kind, monkeypatch, classes, per_file=20):
    """The batches of a CIFAR class of torchvision, which is told their checksums; all training images."""
    folder = root / kind.base_folder
    folder.mkdir(parents=True)

    def write(name, content):
        (folder / name).write_bytes(pickle.dumps(content))
        return hashlib.md5((folder / name).read_bytes()).hexdigest()

    images, key = [], "labels" if kind is datasets.CIFAR10 else "fine_labels"
    for listing in ("train_list", "test_list"):
        checksums = []
        for name, _ in getattr(kind, listing):
            pixels = random_images(per_file, 3, 32, 32, seed=len(images))
            images += [pixels] if listing == "train_list" else []
            batch = {"data": pixels.flatten(1).numpy(), key: [k % len(classes) for k in range(per_file)]}
            checksums.append([name, write(name, batch)])
        monkeypatch.setattr(kind, listing, checksums)
    checksum = write(kind.meta["filename"], {kind.meta["key"]: classes})
    monkeypatch.setattr(kind, "meta", kind.meta | {"md5": checksum})
    return torch.cat(images)


# --- image sets --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"images": torch.zeros(6, 3, 4, 5)}, "images must be"),
        ({"images": torch.zeros(6, 4, 5, dtype=torch.uint8)}, "images must be"),
        ({"labels": torch.zeros(5, dtype=torch.int64)}, "labels must be"),
        ({"labels": torch.zeros(6)}, "labels must be"),
        ({"labels": torch.full((6,), 2)}, r"labels must lie in \[0, 2\)"),
        ({"labels": torch.full((6,), -2)}, r"labels must lie in \[0, 2\)"),
        ({"ids": ("a",)}, "ids must be one per image"),
    ],
)
def test_an_image_set_is_consistent(change, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(an_image_set(), **change)


@pytest.mark.parametrize(
    "indices",
    [
        [4, 0, 4],
        (4, 0, 4),
        torch.tensor([4, 0, 4]),
        range(3),
        slice(1, 5, 2),
        torch.tensor([True, False, True, False, False, True]),
        [-1],
        [],
        torch.tensor([], dtype=torch.int64),
    ],
    ids=str,
)
def test_subset(indices):
    full = an_image_set()
    expected = range(6)[indices] if isinstance(indices, slice) else torch.as_tensor(indices).tolist()
    if expected and isinstance(expected[0], bool):
        expected = [position for position, chosen in enumerate(expected) if chosen]
    subset = full.subset(indices)
    assert len(subset) == len(expected)
    assert subset.ids == tuple(full.ids[i] for i in expected)
    for row, i in enumerate(expected):
        assert subset.images[row].equal(full.images[i])
        assert subset.labels[row] == full.labels[i]
    assert (subset.classes, subset.name) == (full.classes, full.name)


def test_subset_out_of_range():
    with pytest.raises(IndexError):
        an_image_set().subset([6])


def test_fingerprint_sees_every_part():
    full = an_image_set(3)
    variants = [full]
    for position in range(full.images.numel()):
        images = full.images.clone()
        images.view(-1)[position] += 1
        variants.append(dataclasses.replace(full, images=images))
    for position in range(3):
        labels, ids = full.labels.clone(), list(full.ids)
        labels[position] = -1
        ids[position] += "x"
        variants.append(dataclasses.replace(full, labels=labels))
        variants.append(dataclasses.replace(full, ids=tuple(ids)))
    variants.append(dataclasses.replace(full, ids=(1, 2, 3)))
    variants.append(dataclasses.replace(full, ids=("1", "2", "3")))
    variants.append(dataclasses.replace(full, classes=("cat", "dog", "cow")))
    variants.append(dataclasses.replace(full, images=full.images.view(3, 3, 5, 4)))
    variants += [full.subset([0, 1]), full.subset([0, 2, 1]), full.subset([])]
    fingerprints = [variant.fingerprint for variant in variants]
    assert len(set(fingerprints)) == len(variants)


def test_fingerprint_sees_nothing_else():
    full = an_image_set()
    expected = full.fingerprint
    assert dataclasses.replace(full, name="b").fingerprint == expected
    assert full.subset(range(6)).fingerprint == expected
    strided = torch.stack([full.labels, full.labels], 1)[:, 0]
    turned = full.images.to(memory_format=torch.channels_last)
    assert dataclasses.replace(full, labels=strided, images=turned).fingerprint == expected


# --- splits ------------------------------------------------------------------------------------------------------


@given(st.lists(st.integers(0, 4), max_size=60), st.floats(0, 1, exclude_max=True), st.randoms(use_true_random=False))
def test_stratified_split(labels, fraction, rng):
    ids = [f"image {i}" for i in range(len(labels))]
    stay, aside = stratified_split(torch.tensor(labels, dtype=torch.int64), ids, fraction, "key")
    assert stay.tolist() == sorted(stay.tolist())
    assert aside.tolist() == sorted(aside.tolist())
    assert sorted(stay.tolist() + aside.tolist()) == list(range(len(labels)))
    for label in set(labels):
        count = labels.count(label)
        chosen = sum(labels[i] == label for i in aside.tolist())
        assert abs(chosen - fraction * count) < 1
        assert chosen < count

    # in another order the same images are chosen
    order = list(range(len(labels)))
    rng.shuffle(order)
    shuffled = torch.tensor([labels[i] for i in order], dtype=torch.int64)
    _, again = stratified_split(shuffled, [ids[i] for i in order], fraction, "key")
    assert {order[i] for i in again.tolist()} == set(aside.tolist())


def test_splits_of_different_keys_are_independent():
    labels, ids = torch.zeros(1000, dtype=torch.int64), range(1000)
    first, second = (set(stratified_split(labels, ids, 0.5, key)[1].tolist()) for key in ("one", "other"))
    # hypergeometric around 250 with deviation 7.9
    assert 200 < len(first & second) < 300


@pytest.mark.parametrize("fraction", [-0.1, 1, float("nan")])
def test_the_fraction_must_leave_something(fraction):
    assert "validation fraction must lie in [0, 1)" in refusal(quiet, "digits", "train", validation=fraction)


def disturb_global_random_state(seed):
    torch.manual_seed(seed)
    np.random.seed(seed)
    random.seed(seed)


@pytest.fixture(params=["digits", "mnist", "cifar10", "cifar100", "folder", "folder with splits"])
def source(request, tmp_path, monkeypatch):
    """(name, root) of one data set of every kind, and how many images it holds."""
    kind, name = request.param, request.param
    count = 1797
    if kind == "mnist":
        write_mnist(tmp_path)
        count = 60
    elif kind.startswith("cifar"):
        cifar = {"cifar10": datasets.CIFAR10, "cifar100": datasets.CIFAR100}[kind]
        write_cifar(tmp_path, cifar, monkeypatch, ["ant", "bee"])
        count = 20 * len(cifar.train_list + cifar.test_list)
    elif kind.startswith("folder"):
        name = f"folder:{tmp_path}"
        if kind == "folder":
            write_classes(tmp_path, {"ant": 15, "bee": 25})
        else:
            write_classes(tmp_path / "train", {"ant": 15, "bee": 10})
            write_classes(tmp_path / "test", {"ant": 5, "bee": 10})
        count = 40
    return name, tmp_path, count


def test_splits_are_disjoint_and_complete(source):
    name, root, count = source
    splits = [quiet(name, split, root, validation=0.2) for split in SPLITS]
    contents = [{(image.numpy().tobytes(), id_) for image, id_ in zip(s.images, s.ids, strict=True)} for s in splits]
    assert sum(map(len, splits)) == count == len(set.union(*contents))
    assert all(len(set(s.ids)) == len(s) for s in splits)
    train, val, _ = splits
    for label in range(len(train.classes)):
        in_val, in_train = (int((s.labels == label).sum()) for s in (val, train))
        assert abs(in_val - 0.2 * (in_val + in_train)) < 1
    assert [s.name for s in splits] == [f"{name} {split}" for split in SPLITS]
    assert len({s.classes for s in splits}) == 1


def test_loading_is_deterministic(source):
    name, root, _ = source
    for split in SPLITS:
        disturb_global_random_state(1)
        first = quiet(name, split, root)
        disturb_global_random_state(2)
        state = torch.get_rng_state()
        second = quiet(name, split, root)
        assert torch.get_rng_state().equal(state)
        assert_same(first, second)
        assert first.fingerprint == second.fingerprint


def test_without_validation(source):
    name, root, _ = source
    val = quiet(name, "val", root, validation=0)
    train = quiet(name, "train", root, validation=0)
    cut = [quiet(name, split, root) for split in ("train", "val")]
    assert len(val) == 0
    assert val.images.shape[1:] == train.images.shape[1:]
    assert set(train.ids) == set(cut[0].ids) | set(cut[1].ids)
    assert quiet(name, "test", root, validation=0).fingerprint == quiet(name, "test", root).fingerprint


def test_the_splits_of_digits_stay_as_they_are():
    """Every number measured on digits depends on them, on any machine and with any version of torch."""
    train, val, test = (quiet("digits", split) for split in SPLITS)
    assert (len(train) + len(val), len(test)) == (1000, 797)
    assert train.images.shape[1:] == (1, 8, 8)
    assert train.classes == tuple("0123456789")
    assert train.fingerprint.startswith("1b9e5230de6564dc")
    assert val.fingerprint.startswith("5d57d23249e083de")
    assert test.fingerprint.startswith("8ed878d20c20f769")


def test_digits_span_the_whole_range():
    from sklearn.datasets import load_digits

    original = load_digits()
    for split in SPLITS:
        digits = quiet("digits", split)
        for image, label, i in zip(digits.images, digits.labels, digits.ids, strict=True):
            assert np.array_equal(image[0], np.round(original.images[i] / 16 * 255))
            assert label == original.target[i]
        assert (digits.images.min(), digits.images.max()) == (0, 255)


# --- MNIST and CIFAR ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("packed", [False, True])
def test_mnist(tmp_path, packed):
    written = write_mnist(tmp_path, packed=packed)
    train, test = quiet("mnist", "train", tmp_path, validation=0), quiet("mnist", "test", tmp_path)
    assert train.images.equal(written["train"][:, None])
    assert test.images.equal(written["t10k"][:, None])
    assert train.labels.tolist() == [k % 10 for k in range(40)]
    assert test.ids == tuple(range(20))
    assert test.classes == tuple("0123456789")


def test_mnist_is_read_as_torchvision_does(tmp_path):
    write_mnist(tmp_path)
    for split in ("train", "test"):
        ours = quiet("mnist", split, tmp_path, validation=0)
        theirs = datasets.MNIST(tmp_path, train=split == "train")
        assert ours.images[:, 0].equal(theirs.data)
        assert ours.labels.equal(theirs.targets)


@pytest.mark.parametrize(("size", "border"), [(28, 0), (30, 1), (32, 2)])
def test_mnist_gets_a_black_border(tmp_path, size, border):
    written = write_mnist(tmp_path)["t10k"]
    expected = np.pad(written.numpy()[:, None], ((0, 0), (0, 0), (border, border), (border, border)))
    assert np.array_equal(quiet("mnist", "test", tmp_path, image_size=size).images, expected)


@pytest.mark.parametrize("size", [14, 29, 34, 64])
def test_mnist_is_interpolated_to_other_sizes(tmp_path, size):
    written = write_mnist(tmp_path)["t10k"]
    assert quiet("mnist", "test", tmp_path, image_size=size).images.equal(resize(written[:, None], size))


@pytest.mark.parametrize(("name", "kind"), [("cifar10", datasets.CIFAR10), ("cifar100", datasets.CIFAR100)])
def test_cifar(tmp_path, monkeypatch, name, kind):
    images = write_cifar(tmp_path, kind, monkeypatch, ["ant", "bee", "cat"])
    train = quiet(name, "train", tmp_path, validation=0)
    assert train.images.equal(images)
    assert train.images.is_contiguous()
    assert train.labels[:5].tolist() == [0, 1, 2, 0, 1]
    assert train.classes == ("ant", "bee", "cat")
    assert train.ids == tuple(range(len(images)))


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("mnist", "t10k-images-idx3-ubyte, t10k-labels-idx1-ubyte"),
        ("cifar10", "data_batch_1, data_batch_2"),
        ("cifar100", "train, test, meta"),
    ],
)
def test_a_missing_data_set_names_its_files_and_the_flag(tmp_path, name, file):
    message = refusal(quiet, name, "test", tmp_path)
    assert file in message
    assert "--download" in message
    assert str(tmp_path) in message
    assert list(tmp_path.iterdir()) == []


def test_half_of_mnist_is_missing(tmp_path):
    write_mnist(tmp_path)
    (tmp_path / "MNIST/raw/train-labels-idx1-ubyte").unlink()
    assert "train-labels-idx1-ubyte" in refusal(quiet, "mnist", "train", tmp_path)
    assert len(quiet("mnist", "test", tmp_path)) == 20


def test_a_damaged_cifar_is_refused(tmp_path, monkeypatch):
    write_cifar(tmp_path, datasets.CIFAR10, monkeypatch, ["ant", "bee"])
    with open(tmp_path / "cifar-10-batches-py/data_batch_3", "ab") as file:
        file.write(b"!")
    assert "incomplete" in refusal(quiet, "cifar10", "train", tmp_path)


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("keep", [0, 3, 6, 100, -1])
def test_a_damaged_mnist_is_refused(tmp_path, packed, keep):
    write_mnist(tmp_path, packed=packed)
    path = tmp_path / "MNIST/raw" / ("train-images-idx3-ubyte" + (".gz" if packed else ""))
    path.write_bytes(path.read_bytes()[:keep])
    message = refusal(quiet, "mnist", "train", tmp_path)
    assert f"{path} is no idx file" in message


def test_something_else_in_place_of_mnist(tmp_path):
    write_mnist(tmp_path)
    path = tmp_path / "MNIST/raw/train-images-idx3-ubyte"
    path.write_bytes(b"<html>not found</html>")
    assert f"{path} is no idx file" in refusal(quiet, "mnist", "train", tmp_path)


@pytest.mark.parametrize(
    ("values", "message"),
    [([0] * 39, "labels must be (40,)"), ([0] * 39 + [10], "labels[39] is 10"), (None, "images must be (N, C, H, W)")],
)
def test_mnist_files_that_do_not_go_together(tmp_path, values, message):
    write_mnist(tmp_path)
    folder = tmp_path / "MNIST/raw"
    labels = folder / "train-labels-idx1-ubyte"
    if values is None:
        labels.replace(folder / "train-images-idx3-ubyte")
        values = [0] * 40
    labels.write_bytes(bytes([0, 0, 8, 1, 0, 0, 0, len(values), *values]))
    refused = refusal(quiet, "mnist", "train", tmp_path)
    assert f"in {folder} do not go together" in refused
    assert message in refused


@pytest.mark.parametrize("name", ["mnist", "cifar10"])
def test_a_failed_download_is_one_sentence(tmp_path, monkeypatch, name):
    def fail(*_, **__):
        raise RuntimeError("Error downloading:\nTried here, got:\n<urlopen error>\n")

    kind = {"mnist": datasets.MNIST, "cifar10": datasets.CIFAR10}[name]
    monkeypatch.setattr(kind, "download", fail)
    message = refusal(quiet, name, "train", tmp_path, download=True)
    assert message.startswith(f"{name} could not be downloaded to {tmp_path}")
    assert "Tried here, got: <urlopen error>" in message


@pytest.mark.parametrize("packed", [False, True])
def test_what_is_there_is_not_downloaded(tmp_path, monkeypatch, packed):
    write_mnist(tmp_path, packed=packed)
    monkeypatch.setattr(datasets.MNIST, "download", lambda self: pytest.fail("downloads"))
    assert len(quiet("mnist", "test", tmp_path, download=True)) == 20


def test_a_download_is_read(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.MNIST, "download", lambda self: write_mnist(tmp_path))
    assert len(quiet("mnist", "test", tmp_path, download=True)) == 20


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        (("cifar", "train"), {}, "data set must be one of digits, mnist, cifar10, cifar100, folder:<path>"),
        (("digits", "valid"), {}, "split must be one of train, val, test"),
        (("digits", "val"), {"bad_images": "ignore"}, "bad_images must be one of stop, skip"),
    ],
)
def test_unknown_choices(arguments, options, message):
    assert refusal(quiet, *arguments, **options).startswith(message)


@pytest.mark.parametrize("size", [0, -1])
def test_impossible_sizes(size):
    assert refusal(quiet, "digits", "test", image_size=size).startswith("image_size must be at least one pixel")


# --- image folders -----------------------------------------------------------------------------------------------


def test_folder_with_splits(tmp_path):
    written = {
        split: write_classes(tmp_path / split, counts)
        for split, counts in (
            ("train", {"bee": 3, "Ant": 2}),
            ("val", {"bee": 1, "Ant": 1}),
            ("test", {"bee": 2, "Ant": 1}),
        )
    }
    for split in SPLITS:
        found = quiet(f"folder:{tmp_path}", split, validation=0.9)  # of no effect beside val/
        assert found.classes == ("Ant", "bee")
        assert found.ids == tuple(sorted(f"{split}/{path}" for path in written[split]))
        for image, label, path in zip(found.images, found.labels, found.ids, strict=True):
            assert image.equal(written[split][path.removeprefix(f"{split}/")])
            assert f"/{found.classes[label]}/" in path


def test_folder_without_splits(tmp_path):
    written = write_classes(tmp_path, {"ant": 20, "bee": 11})
    train, val, test = (quiet(f"folder:{tmp_path}", split, validation=0.25) for split in SPLITS)
    # a fifth of 20 and of 11 images for testing, a quarter of the remaining 16 and 9 for validation
    assert [s.labels.bincount().tolist() for s in (train, val, test)] == [[12, 7], [4, 2], [4, 2]]
    for part in (train, val, test):
        for image, path in zip(part.images, part.ids, strict=True):
            assert image.equal(written[path])


def test_what_is_no_image_is_passed_over(tmp_path):
    write_classes(tmp_path, {"ant": 5, "bee": 5})
    (tmp_path / "ant/Thumbs.db").write_bytes(b"x")
    (tmp_path / "ant/._00.png").write_bytes(b"x")
    (tmp_path / ".git").mkdir()
    (tmp_path / "README.txt").write_text("x")
    write_image(tmp_path / "ant/LOUD.PNG", random_images(3, 4, 4))
    found = [quiet(f"folder:{tmp_path}", split) for split in SPLITS]
    assert found[0].classes == ("ant", "bee")
    assert sum(map(len, found)) == 11


def test_grey_only_if_all_are(tmp_path):
    write_classes(tmp_path / "train", {"ant": 2, "bee": 2}, channels=1)
    write_classes(tmp_path / "test", {"ant": 1, "bee": 1}, channels=1)
    assert quiet(f"folder:{tmp_path}", "train").images.shape == (4, 1, 4, 4)

    colour = write_image(tmp_path / "test/bee/99.png", random_images(3, 4, 4))
    train, test = (quiet(f"folder:{tmp_path}", split, validation=0) for split in ("train", "test"))
    assert train.images.shape == (4, 3, 4, 4)
    assert train.images.equal(train.images[:, :1].expand(-1, 3, -1, -1))
    assert test.images[-1].equal(colour)


def test_sixteen_bit_images_are_scaled(tmp_path):
    values = torch.tensor([[0, 255, 256, 65535]], dtype=torch.uint16)
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        Image.fromarray(values.numpy()).save(tmp_path / name / "0.png")
    images = quiet(f"folder:{tmp_path}", "train").images
    assert images.tolist() == [[[[0, 0, 1, 255]]]] * 2


@pytest.mark.parametrize("mode", ["1", "P", "LA", "RGBA", "CMYK"])
def test_any_mode_of_pillow(tmp_path, mode):
    grey = Image.fromarray(random_images(4, 4).numpy())
    suffix = "tif" if mode == "CMYK" else "png"
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        grey.convert(mode).save(tmp_path / name / f"0.{suffix}")
    channels = 1 if mode in ("1", "LA") else 3
    expected = np.array(grey.convert(mode).convert("L" if channels == 1 else "RGB")).reshape(4, 4, channels)
    images = quiet(f"folder:{tmp_path}", "train").images
    assert np.array_equal(images[0].permute(1, 2, 0), expected)


def test_floating_point_images_are_refused(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        Image.fromarray(np.full((4, 4), 0.5, np.float32)).save(tmp_path / name / "0.tif")
    assert "its pixels are floating point numbers" in refusal(quiet, f"folder:{tmp_path}", "train")


def test_images_of_different_size(tmp_path):
    write_classes(tmp_path, {"ant": 2, "bee": 2}, height=4, width=6)
    assert quiet(f"folder:{tmp_path}", "train").images.shape[2:] == (4, 6)
    write_image(tmp_path / "bee/01.png", random_images(3, 5, 7))
    message = refusal(quiet, f"folder:{tmp_path}", "train")
    assert "bee/01.png has 7x5 pixels, others 6x4" in message
    assert "image_size" in message
    assert quiet(f"folder:{tmp_path}", "train", image_size=8).images.shape == (4, 3, 8, 8)


def test_folder_images_are_resized_like_others(tmp_path):
    """Pillow rounds once per direction, hence the difference of one."""
    pixels = random_images(3, 20, 30)
    for name in ("a", "b"):
        write_image(tmp_path / name / "0.png", pixels)
    found = quiet(f"folder:{tmp_path}", "train", image_size=11).images[0]
    assert (found.int() - resize(pixels[None], 11)[0].int()).abs().max() <= 1


def test_home_is_expanded(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    write_classes(tmp_path / "images", {"ant": 2, "bee": 2})
    assert len(quiet("folder:~/images", "train")) == 4


def test_a_missing_folder(tmp_path):
    assert refusal(quiet, f"folder:{tmp_path}/none", "train") == f"folder {tmp_path}/none does not exist"
    (tmp_path / "file").touch()
    assert refusal(quiet, f"folder:{tmp_path}/file", "train") == f"{tmp_path}/file is no folder"


def test_a_folder_without_classes(tmp_path):
    assert "holds no class folders" in refusal(quiet, f"folder:{tmp_path}", "train")
    write_image(tmp_path / "0.png", random_images(3, 4, 4))
    assert "holds no class folders" in refusal(quiet, f"folder:{tmp_path}", "train")


@pytest.mark.parametrize("prefix", ["", "test/"])
def test_a_class_folder_without_images(tmp_path, prefix):
    for split in ("train", "test") if prefix else ("",):
        write_classes(tmp_path / split, {"ant": 2, "bee": 2})
    (tmp_path / f"{prefix}cow").mkdir()
    (tmp_path / f"{prefix}cow/notes.txt").touch()
    assert refusal(quiet, f"folder:{tmp_path}", "train").startswith(f"folder {tmp_path}/{prefix}cow holds no image (")


@pytest.mark.parametrize("split", ["val", "test"])
@pytest.mark.parametrize("counts", [{"ant": 1}, {"ant": 1, "bee": 1, "cow": 1}])
def test_classes_must_agree(tmp_path, split, counts):
    for name in SPLITS:
        write_classes(tmp_path / name, {"ant": 1, "bee": 1} if name != split else counts)
    message = refusal(quiet, f"folder:{tmp_path}", "train")
    odd = "bee" if len(counts) == 1 else "cow"
    assert message == f"folder {tmp_path} has other classes in {split} than in train: {odd}"


@pytest.mark.parametrize("splits", [["train"], ["train", "val"], ["test"]])
def test_splits_are_not_taken_for_classes(tmp_path, splits):
    for split in splits:
        write_classes(tmp_path / split, {"ant": 1, "bee": 1})
    assert "a folder with splits needs train and test" in refusal(quiet, f"folder:{tmp_path}", "train")


def truncate(path, share=0.5):
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])


@pytest.fixture
def damaged(tmp_path):
    """A folder with splits whose images ant/01 and bee/00 of train are cut off, in the pixels and in the header."""
    write_classes(tmp_path / "train", {"ant": 3, "bee": 3}, height=30, width=30)
    write_classes(tmp_path / "test", {"ant": 2, "bee": 2}, height=30, width=30)
    truncate(tmp_path / "train/ant/01.png")
    truncate(tmp_path / "train/bee/00.png", 0)
    return tmp_path


def test_a_truncated_image_stops(damaged):
    message = refusal(quiet, f"folder:{damaged}", "train", validation=0)
    assert message.startswith(f"{damaged}/train/ant/01.png cannot be decoded (")
    assert "bad_images=skip" in message
    assert len(quiet(f"folder:{damaged}", "test")) == 4


def test_truncated_images_are_skipped(damaged):
    with pytest.warns(UserWarning, match=r"^2 of 6 images in .* cannot be decoded: .*ant/01.png, .*bee/00.png$"):
        found = quiet(f"folder:{damaged}", "train", validation=0, bad_images="skip")
    expected = ["ant/00.png", "ant/02.png", "bee/01.png", "bee/02.png"]
    assert found.ids == tuple(f"train/{path}" for path in expected)
    assert found.labels.tolist() == [0, 0, 1, 1]
    for image, path in zip(found.images, found.ids, strict=True):
        assert np.array_equal(image.permute(1, 2, 0), np.array(Image.open(damaged / path)))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert len(quiet(f"folder:{damaged}", "test", bad_images="skip")) == 4


def test_skipping_moves_no_other_image(tmp_path):
    write_classes(tmp_path, {"ant": 20, "bee": 20}, height=30, width=30)
    before = {split: quiet(f"folder:{tmp_path}", split).ids for split in SPLITS}
    lost = before["train"][0]
    truncate(tmp_path / lost)
    with pytest.warns(UserWarning, match="1 of"):
        after = {split: quiet(f"folder:{tmp_path}", split, bad_images="skip").ids for split in SPLITS}
    assert after == before | {"train": before["train"][1:]}


def test_many_skipped_images_are_not_all_named(tmp_path):
    write_classes(tmp_path, {"ant": 20, "bee": 1}, height=30, width=30)
    for path in (tmp_path / "ant").iterdir():
        truncate(path)
    with pytest.warns(UserWarning, match=r"15 of 16 images") as caught:
        quiet(f"folder:{tmp_path}", "train", validation=0.05, bad_images="skip")
    message = str(caught[0].message)
    assert message.count(".png") == 10
    assert message.endswith(", ...")


@pytest.mark.parametrize("share", [0, 0.5])
def test_nothing_left_after_skipping(tmp_path, share):
    write_classes(tmp_path, {"ant": 2, "bee": 2}, height=30, width=30)
    for path in tmp_path.rglob("*.png"):
        truncate(path, share)
    message = refusal(quiet, f"folder:{tmp_path}", "train", bad_images="skip")
    assert message == f"none of the 4 images in {tmp_path} can be decoded"


@given(st.data())
def test_a_damaged_file_is_read_or_named(tmp_path_factory, draws):
    """Whatever is cut off or changed: an image, or a sentence with its name."""
    suffix = draws.draw(st.sampled_from(["png", "jpg", "bmp", "tif", "webp", "ppm"]))
    folder = tmp_path_factory.getbasetemp() / "damaged"
    for name in ("a", "b"):
        (folder / name).mkdir(parents=True, exist_ok=True)
        for old in (folder / name).iterdir():
            old.unlink()
        write_image(folder / name / f"0.{suffix}", random_images(3, 9, 9))
    path = folder / f"b/0.{suffix}"
    content = bytearray(path.read_bytes())
    for position in draws.draw(st.lists(st.integers(0, len(content) - 1), max_size=3)):
        content[position] = draws.draw(st.integers(0, 255))
    path.write_bytes(content[: draws.draw(st.integers(0, len(content)))])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow's own
        try:
            found = quiet(f"folder:{folder}", "train", image_size=9)
        except DataError as error:
            assert str(path) in str(error)
            assert "\n" not in str(error)
        else:
            assert found.images.shape == (2, 3, 9, 9)


def test_too_large_for_memory(tmp_path, monkeypatch):
    write_classes(tmp_path, {"ant": 5, "bee": 5})  # 48 bytes an image, of which there are 8 after the test split
    monkeypatch.setattr(data.image_set, "MEMORY_LIMIT", 8 * 48)
    assert len(quiet(f"folder:{tmp_path}", "train", validation=0)) == 8
    monkeypatch.setattr(data.image_set, "MEMORY_LIMIT", 8 * 48 - 1)
    message = refusal(quiet, f"folder:{tmp_path}", "train", validation=0)
    assert message.startswith(f"the 8 images of {tmp_path} would take")
    assert "3x4x4" in message
    assert "image_size" in message
    monkeypatch.undo()
    # 1000 x 90000² bytes = 8.1e12 / 2^30
    assert "would take 7543.7 GiB" in refusal(quiet, "digits", "train", validation=0, image_size=90_000)


def test_unlabelled(tmp_path):
    written = [write_image(tmp_path / f"{k}.png", random_images(3, 4, 4, seed=k)) for k in range(3)]
    write_classes(tmp_path, {"not among them": 1})
    found = unlabelled(tmp_path, None, 3, progress=False)
    assert found.images.equal(torch.stack(written))
    assert found.labels.tolist() == [-1, -1, -1]
    assert found.classes == ()
    assert found.ids == ("0.png", "1.png", "2.png")
    assert unlabelled(tmp_path, 6, 1, progress=False).images.shape == (3, 1, 6, 6)


def test_unlabelled_refusals(tmp_path):
    assert "does not exist" in refusal(unlabelled, tmp_path / "none", 8, 3)
    assert "holds no image" in refusal(unlabelled, tmp_path, 8, 3)
    write_image(tmp_path / "0.png", random_images(3, 30, 30))
    write_image(tmp_path / "1.png", random_images(3, 30, 30))
    truncate(tmp_path / "1.png")
    with pytest.raises(ValueError, match="channels must be 1 or 3"), pytest.warns(UserWarning, match="1 of 2 images"):
        unlabelled(tmp_path, 8, 2, "skip", progress=False)
    assert "image_size must be at least one pixel" in refusal(unlabelled, tmp_path, 0, 3)
    assert "bad_images must be one of stop, skip" in refusal(unlabelled, tmp_path, 8, 3, "ignore")
    assert "1.png cannot be decoded" in refusal(unlabelled, tmp_path, 8, 3, progress=False)
    with pytest.warns(UserWarning, match="1 of 2 images"):
        assert unlabelled(tmp_path, 8, 3, "skip", progress=False).ids == ("0.png",)


def test_progress_is_shown_on_request(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)  # else there is no bar, whatever is asked for
    write_classes(tmp_path, {"ant": 2, "bee": 2})
    quiet(f"folder:{tmp_path}", "train")
    assert capsys.readouterr() == ("", "")
    load(f"folder:{tmp_path}", "train")
    assert "/4 [" in capsys.readouterr().err  # so few are done before the bar is drawn a second time


# --- batches -----------------------------------------------------------------------------------------------------

batches = st.tuples(st.integers(0, 4), st.integers(1, 3), st.integers(1, 6), st.integers(1, 6), st.integers(0, 99)).map(
    lambda drawn: random_images(*drawn[:4], seed=drawn[4])
)


@pytest.mark.parametrize("count", [1, 255, 256, 600])
def test_statistics_equal_numpys(count):
    images = random_images(count, 3, 5, 7)
    images[:, 1] //= 2
    mean, std = channel_statistics(images)
    scaled = images.numpy() / 255
    np.testing.assert_allclose(mean, scaled.mean((0, 2, 3)), rtol=1e-12)
    np.testing.assert_allclose(std, scaled.std((0, 2, 3)), rtol=1e-12)


def test_statistics_of_nothing():
    with pytest.raises(ValueError, match="at least one image"):
        channel_statistics(random_images(0, 3, 4, 4))


@given(batches)
def test_to_float(images):
    channels = images.shape[1]
    mean, std = torch.linspace(0.1, 0.9, channels, dtype=torch.float64), torch.linspace(0.2, 0.5, channels)
    before = images.clone()
    values = to_float(images, mean, std)
    assert values.dtype == torch.float32
    assert images.equal(before)
    expected = (images.numpy() / 255 - mean.numpy()[:, None, None]) / std.double().numpy()[:, None, None]
    np.testing.assert_allclose(values, expected, atol=2e-6)


def test_normalised_images_have_mean_zero_and_deviation_one():
    images = random_images(50, 2, 8, 8)
    images[:, 1] = 7  # a constant channel
    values = to_float(images, *channel_statistics(images))
    np.testing.assert_allclose(values.mean((0, 2, 3)), [0, 0], atol=1e-6)
    np.testing.assert_allclose(values.std((0, 2, 3), correction=0), [1, 0], atol=1e-6)


AUGMENTATIONS = {
    "flip": random_flip,
    "crop": lambda images, rng: random_crop(images, 2, rng),
    "drop": lambda images, rng: drop_pixels(images, 0.3, rng),
}


@pytest.mark.parametrize("augment", AUGMENTATIONS.values(), ids=AUGMENTATIONS)
@given(images=batches)
def test_augmentation_depends_on_its_generator_alone(augment, images):
    before = images.clone()
    disturb_global_random_state(1)
    state = torch.get_rng_state()
    first = augment(images, generator(5))
    assert torch.get_rng_state().equal(state)
    disturb_global_random_state(2)
    assert augment(images, generator(5)).equal(first)
    assert (first.shape, first.dtype) == (images.shape, images.dtype)
    assert images.equal(before)


@pytest.mark.parametrize("augment", AUGMENTATIONS.values(), ids=AUGMENTATIONS)
def test_augmentation_goes_on_where_the_generator_is(augment):
    images, rng = random_images(20, 3, 8, 8), generator()
    assert not augment(images, rng).equal(augment(images, rng))


@given(batches, st.integers(0, 99))
def test_flip_against_a_loop(images, seed):
    flipped = random_flip(images, generator(seed))
    mirrored = torch.rand(len(images), 1, 1, 1, generator=generator(seed)) < 0.5
    for image, result, mirror in zip(images, flipped, mirrored.flatten(), strict=True):
        for row, result_row in zip(image.flatten(0, 1).tolist(), result.flatten(0, 1).tolist(), strict=True):
            assert result_row == (row[::-1] if mirror else row)


@given(batches, st.integers(0, 3), st.integers(0, 99))
def test_crop_against_a_loop(images, padding, seed):
    height, width = images.shape[2:]
    cropped = random_crop(images, padding, generator(seed))
    corners = torch.randint(2 * padding + 1, (2, len(images)), generator=generator(seed)).T.tolist()
    for image, result, (top, left) in zip(images.numpy(), cropped.numpy(), corners, strict=True):
        padded = np.pad(image, ((0, 0), (padding, padding), (padding, padding)))
        assert np.array_equal(result, padded[:, top : top + height, left : left + width])


@given(batches, st.floats(0, 1), st.integers(0, 99))
def test_drop_against_a_loop(images, p, seed):
    perturbed = drop_pixels(images, p, generator(seed))
    draws = torch.rand(len(images), 1, *images.shape[2:], generator=generator(seed))
    for n, _, row, column in np.ndindex(*draws.shape):
        expected = [0] * images.shape[1] if draws[n, 0, row, column] < p else images[n, :, row, column].tolist()
        assert perturbed[n, :, row, column].tolist() == expected


def test_half_of_the_images_are_mirrored():
    images = torch.tensor([0, 1], dtype=torch.uint8).expand(10_000, 1, 1, 2)
    share = random_flip(images, generator())[:, 0, 0, 0].double().mean()
    assert abs(share - 0.5) < 0.025  # five deviations


def test_crops_are_spread_evenly():
    """With one bright pixel in the middle its place tells the corner: (2 * 1 + 1)² places."""
    images = torch.zeros(9000, 1, 3, 3, dtype=torch.uint8)
    images[:, :, 1, 1] = 1
    counts = random_crop(images, 1, generator()).sum(0).flatten()
    assert counts.sum() == 9000
    assert (counts - 1000).abs().max() < 150  # five deviations of 30


def test_a_fifth_of_the_pixels_is_dropped():
    dropped = drop_pixels(torch.ones(100, 2, 10, 10, dtype=torch.uint8), 0.2, generator()) == 0
    assert dropped[:, 0].equal(dropped[:, 1])
    assert abs(dropped[:, 0].double().mean() - 0.2) < 0.02  # five deviations of 0.004


@pytest.mark.parametrize("shape", [(5, 3, 10, 10), (300, 1, 10, 10), (2, 1, 8, 12), (0, 3, 5, 5)])
@pytest.mark.parametrize("size", [1, 5, 10, 17])
def test_resize_against_pillow(shape, size):
    images = random_images(*shape)
    resized = resize(images, size)
    assert (resized.shape, resized.dtype) == ((*shape[:2], size, size), torch.uint8)
    for image, result in zip(images.flatten(0, 1)[:20], resized.flatten(0, 1), strict=False):
        expected = np.array(Image.fromarray(image.numpy()).resize((size, size), Image.Resampling.BILINEAR))
        assert np.abs(result.numpy().astype(int) - expected).max() <= 1


def test_adapt():
    grey = ImageSet(random_images(3, 1, 8, 8), torch.zeros(3, dtype=torch.int64), ("a",), (0, 1, 2), "g")
    colour = dataclasses.replace(grey, images=random_images(300, 3, 8, 8)[:3])
    repeated = adapt(grey, 3, 8)
    assert repeated.images.equal(grey.images.expand(3, 3, 8, 8))
    luma = adapt(colour, 1, 8)
    for image, result in zip(colour.images, luma.images, strict=True):
        assert np.array_equal(result[0], Image.fromarray(image.permute(1, 2, 0).numpy()).convert("L"))
    assert adapt(colour, 1, 12).images.equal(resize(luma.images, 12))
    assert adapt(colour, 3, 8).fingerprint == colour.fingerprint
    assert adapt(colour.subset([]), 1, 12).images.shape == (0, 1, 12, 12)
    assert (repeated.ids, repeated.name) == (grey.ids, grey.name)
    with pytest.raises(ValueError, match="channels must be 1 or 3"):
        adapt(colour, 2, 8)


def test_everything_public_is_documented():
    for name, item in vars(data).items():
        if not name.startswith("_") and getattr(item, "__module__", "").startswith(data.__name__):
            assert inspect.getdoc(item), name

"""Targets on disk: 16 bits that lose next to nothing, found by image, and refused when they are not of this image."""

import math
import os
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from mmengine.registry import DATASETS, init_default_scope
from PIL import Image

from dudes_mmseg.targets.check import CheckTargetsHook, base_datasets
from dudes_mmseg.targets.codec import (
    CODEC,
    LARGEST_STD,
    check_targets,
    decode_std,
    encode_std,
    encode_target,
    image_id,
    images_digest,
    read_maps,
    read_target,
)
from uncertainty_core import TargetStore, TargetStoreError, write_targets
from uncertainty_core.targets.top_k import encode_top_k

init_default_scope("mmseg")

# 16 bits


@given(st.lists(st.floats(0, LARGEST_STD), min_size=1, max_size=20))
def test_what_is_read_back_is_off_by_less_than_a_hundred_thousandth(values):
    std = torch.tensor(values, dtype=torch.float64)
    codes = encode_std(std)
    assert codes.dtype == torch.uint16
    back = decode_std(codes)
    assert back.dtype == torch.float32
    # half a step of sqrt(0.5) / 65535 is 5.39e-6; the rest is float32
    assert (back.double() - std).abs().max() < 5.5e-6
    assert torch.equal(encode_std(back).int(), codes.int())


@given(st.lists(st.floats(0, 1, width=32), min_size=2, max_size=9), st.sampled_from([0, 1]))
def test_the_deviation_of_any_members_can_be_stored(probabilities, ddof):
    std = torch.tensor(probabilities).std(correction=ddof)
    assert abs(decode_std(encode_std(std)) - std) < 6e-6


def test_the_ends_of_the_range():
    # two members, 0 and 1: mean 1/2, squares 2 * 1/4, divided by 2 - 1
    assert math.isclose(LARGEST_STD, torch.tensor([0.0, 1.0]).std().item(), rel_tol=1e-6)
    assert encode_std(torch.tensor([0.0, LARGEST_STD, LARGEST_STD / 65535])).int().tolist() == [0, 65535, 1]


@pytest.mark.parametrize("value", [-1e-4, 0.708, 255.0, math.nan, math.inf])
def test_what_cannot_be_a_deviation_is_an_error_that_names_the_image(value, tmp_path):
    path = tmp_path / "a.png"
    path.touch()
    with pytest.raises(TargetStoreError, match=rf"uncertainty for {path} is unusable: .* lies in \[0, 0.7071\], got "):
        encode_target(torch.tensor([[0.1, value]]), path)


# Images and their targets


def write_images(folder, names):
    for number, name in enumerate(names):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        # each of another size, so that no two files have as many bytes
        Image.fromarray(np.zeros((4, 5 + 40 * number, 3), dtype=np.uint8)).save(path)
    return folder


def write_store(store, root, names, maps=()):
    def make(ids):
        for name in ids:
            width, height = Image.open(root / name).size
            yield encode_target(torch.rand(*maps, height, width) / 2, root / name)

    digest = images_digest({name: root / name for name in names})
    write_targets(store, list(names), make, {"images": digest, "codec": CODEC}, shard_size=2, progress=False)
    return TargetStore(store)


NAMES = ("a/one.png", "a/two.png", "b/one.png")


@pytest.fixture
def root(tmp_path):
    return write_images(tmp_path / "images", NAMES)


@pytest.fixture
def store(root, tmp_path):
    return write_store(tmp_path / "store", root, NAMES)


def paths(root, names=NAMES):
    return [str(root / name) for name in names]


def test_an_image_is_known_by_the_end_of_its_path(store, root):
    assert [image_id(path, store) for path in paths(root)] == list(NAMES)
    assert image_id("/moved/to/b/one.png", store) == "b/one.png"
    for path in ("/data/xa/one.png", "one.png", "/data/a/one.png/three.png"):
        with pytest.raises(TargetStoreError, match=rf"store has no target for {path}: generate targets"):
            image_id(path, store)


def test_a_path_that_may_mean_two_targets_is_refused(root, tmp_path):
    write_images(root, ["one.png"])
    store = write_store(tmp_path / "other", root, ("one.png", "a/one.png"))
    with pytest.raises(TargetStoreError, match=r"several targets that .*a/one.png may mean, a/one.png and one.png"):
        image_id(str(root / "a" / "one.png"), store)


@pytest.mark.parametrize("maps", [(), (3,)], ids=["one map", "a map per class"])
def test_a_target_comes_back(root, tmp_path, maps):
    std = torch.rand(*maps, 4, 5) / 2
    target = encode_target(std, root / NAMES[0])
    write_targets(tmp_path / "store", [NAMES[0]], lambda ids: [target], {"codec": CODEC}, progress=False)
    found = read_target(str(root / NAMES[0]), TargetStore(tmp_path / "store"))
    torch.testing.assert_close(found, std, atol=6e-6, rtol=0)


def test_entropy_and_probabilities_come_back_beside_it(root, tmp_path):
    std, entropy, probabilities = torch.rand(4, 5) / 2, torch.rand(4, 5), torch.rand(6, 4, 5).softmax(0)
    target = encode_target(std, root / NAMES[0], {"entropy": entropy}, probabilities, 3)
    assert sum(values.nbytes for values in target.values()) == 4 * 5 * (2 + 2 + 6) + 8
    write_targets(tmp_path / "store", [NAMES[0]], lambda ids: [target], {"codec": CODEC}, progress=False)
    found = read_maps(str(root / NAMES[0]), TargetStore(tmp_path / "store"))
    assert found.keys() == {"uncertainty", "entropy", "probabilities"}
    torch.testing.assert_close(found["uncertainty"], std, atol=6e-6, rtol=0)
    torch.testing.assert_close(found["entropy"], entropy, atol=8e-6, rtol=0)
    assert torch.equal(found["probabilities"].int(), encode_top_k(probabilities[None], 3)[0].int())


def test_the_target_of_another_file_of_that_name_is_stale(store, root):
    (root / "a" / "one.png").write_bytes(b"?")
    with pytest.raises(TargetStoreError, match=r"target for .*a/one.png in .*store is stale: it was made from another"):
        read_target(paths(root)[0], store)


# Before a training


def damage(store):
    """So that whoever opens a shard fails."""
    for shard in store.folder.glob("*.safetensors"):
        shard.write_bytes(b"")


def test_a_whole_data_set_is_checked_without_opening_the_store(store, root):
    damage(store)
    check_targets(store, paths(root))
    check_targets(store, paths(root, NAMES[2:]))  # nor a selection of it


def test_a_stale_image_is_named_before_the_training(store, root):
    (root / NAMES[1]).write_bytes(b"?")
    with pytest.raises(TargetStoreError, match=r"the target for .*a/two.png .* is stale"):
        check_targets(store, paths(root))
    check_targets(store, paths(root, NAMES[2:]))  # which is not among these


def test_a_missing_image_is_named_before_the_training(store, root):
    write_images(root, ["c/new.png"])
    with pytest.raises(TargetStoreError, match=r"no target for .*c/new.png: generate targets for this data set"):
        check_targets(store, paths(root, (*NAMES, "c/new.png")))


def test_a_part_of_the_data_set_elsewhere_is_enough(store, root, tmp_path):
    moved = tmp_path / "elsewhere" / NAMES[0]
    moved.parent.mkdir(parents=True)
    os.replace(root / NAMES[0], moved)
    check_targets(store, [str(moved)])
    moved.write_bytes(b"?")
    with pytest.raises(TargetStoreError, match="stale"):
        check_targets(store, [str(moved)])


def dataset(root, store, folder=""):
    target = {"type": "LoadUncertaintyTarget", "store": str(store.folder)}
    return {
        "type": "BaseSegDataset",
        "data_prefix": {"img_path": str(root / folder)},
        "img_suffix": ".png",
        "pipeline": [{"type": "LoadImageFromFile"}, target],
    }


def run_hook(dataset, **cfg):
    CheckTargetsHook().before_train(SimpleNamespace(train_dataloader=SimpleNamespace(dataset=dataset), cfg=cfg))


def test_the_hook_looks_into_whatever_wraps_a_data_set(store, root):
    plain = dataset(root, store)
    repeated = {"type": "RepeatDataset", "times": 2, "dataset": plain}
    both = {"type": "ConcatDataset", "datasets": [dataset(root, store, "b"), repeated]}
    mixed = {"type": "MultiImageMixDataset", "dataset": plain, "pipeline": []}
    sets = [DATASETS.build(config) for config in (plain, both, mixed)]
    assert [len(list(base_datasets(dataset))) for dataset in sets] == [1, 2, 1]
    for built in sets:
        run_hook(built)
    (root / NAMES[0]).write_bytes(b"?")
    for built in sets:
        with pytest.raises(TargetStoreError, match="stale"):
            run_hook(built)


def test_the_hook_asks_nothing_of_other_trainings(store, root):
    (root / NAMES[0]).write_bytes(b"?")
    config = dataset(root, store)
    run_hook(DATASETS.build(config | {"pipeline": config["pipeline"][:1]}))


def test_an_unfinished_store_is_said_before_the_training(store, root):
    next(store.folder.glob("*.sha256")).unlink()
    with pytest.raises(TargetStoreError, match="unfinished: 1 of 2 shards are missing"):
        run_hook(DATASETS.build(dataset(root, store)))


def test_a_store_without_the_probabilities_that_a_student_learns_is_refused_before_the_training(store, root):
    built = DATASETS.build(dataset(root, store))
    student = {"loss_distillation": {"type": "MeanProbabilityLoss"}}
    with pytest.raises(
        TargetStoreError, match=r"store holds no probabilities, .* generate targets with --top-k 3 into"
    ):
        run_hook(built, model=student)
    run_hook(built, model=student | {"teacher": {"type": "DeepEnsembleSegmentor"}})  # which has them at hand
    run_hook(built, model={})
    with pytest.raises(TargetStoreError, match=r"holds no entropy, .*: generate targets with --outputs std entropy "):
        run_hook(built, model={"uncertainty_head": {"outputs": ["std", "entropy"]}})
    with pytest.raises(TargetStoreError, match=r"store holds no probabilities, .* the output error learn from: "):
        run_hook(built, model={"uncertainty_head": {"outputs": ["std", "error"]}})


@pytest.mark.parametrize("other", [{"version": 2}, {"dtype": "float16"}, {"largest": 1.0}])
def test_a_store_of_another_codec_is_refused(tmp_path, other):
    (tmp_path / "a.png").write_bytes(b"image")
    target = encode_target(torch.zeros(2, 2), tmp_path / "a.png")
    write_targets(tmp_path / "store", ["a.png"], lambda ids: [target], {"codec": CODEC | other}, progress=False)
    with pytest.raises(TargetStoreError, match=r"store is coded as .*, and this version reads .*uint16"):
        read_target(str(tmp_path / "a.png"), TargetStore(tmp_path / "store"))

"""Reading checkpoints: nothing but weights, and only if they fit."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_segmentors import build, head, segmentor_config, write_members

from dudes_mmseg.models.checkpoint import (
    CheckpointError,
    check_fits,
    check_same_classes,
    find_checkpoints,
    load_weights,
    read_checkpoint,
)


@pytest.fixture
def path(tmp_path):
    """A checkpoint as mmengine writes it."""
    return write_members(tmp_path, 1)[0]


def changed(path, **items):
    """The same checkpoint with other items of its state_dict; None removes them."""
    content = torch.load(path, weights_only=False)
    weights = content["state_dict"] | items
    content["state_dict"] = {name: values for name, values in weights.items() if values is not None}
    torch.save(content, path)
    return read_checkpoint(path)


def test_reads_what_mmengine_writes(path):
    checkpoint, expected = read_checkpoint(path), build(segmentor_config()).state_dict()
    assert checkpoint.weights.keys() == expected.keys()
    assert all(torch.equal(checkpoint.weights[name], values) for name, values in expected.items())
    assert checkpoint.classes == ("a", "b", "c", "d")
    model = build(segmentor_config(), seed=5)
    check_fits(model, checkpoint)
    load_weights(model, checkpoint)
    assert all(torch.equal(model.state_dict()[name], values) for name, values in expected.items())


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="only Linux says what is mapped")
def test_weights_are_mapped_while_they_are_needed(path):
    checkpoint = read_checkpoint(path)
    assert path in Path("/proc/self/maps").read_text()
    del checkpoint
    assert path not in Path("/proc/self/maps").read_text()


@pytest.mark.parametrize("legacy", [False, True])
def test_bare_weights_of_a_wrapped_model(tmp_path, legacy):
    weights = build(segmentor_config()).state_dict()
    path = tmp_path / "bare.pth"
    content = {f"module.{name}": values for name, values in weights.items()}
    torch.save(content, path, _use_new_zipfile_serialization=not legacy)
    checkpoint = read_checkpoint(str(path))
    assert checkpoint.weights.keys() == weights.keys()
    assert checkpoint.classes is None


class RunsSomething:
    """What a hostile pickle is made of."""

    def __reduce__(self):
        return os.mkdir, ("hostile",)


@pytest.mark.parametrize("name", ["meta", "message_hub"])
def test_nothing_is_run(path, tmp_path, name, monkeypatch):
    monkeypatch.chdir(tmp_path)
    content = torch.load(path, weights_only=False)
    content[name]["hostile"] = RunsSomething()
    torch.save(content, path)
    with pytest.raises(CheckpointError, match=r"iter_7.pth is not a checkpoint of weights alone.*mkdir"):
        read_checkpoint(path)
    assert not (tmp_path / "hostile").exists()


def test_getattr_is_no_way_out(path, tmp_path, monkeypatch):
    """The logs of mmengine mention getattr and numpy, which are read as nothing: so what they would give is not run."""

    class Writes:
        def __reduce__(self):
            return getattr, (np.zeros(1), "tofile")

    monkeypatch.chdir(tmp_path)
    content = torch.load(path, weights_only=False)
    content["meta"]["dataset_meta"]["classes"] = [Writes()]
    torch.save(content, path)
    (read,) = read_checkpoint(path).classes
    assert not callable(read)
    assert type(read).__module__ == "dudes_mmseg.models.checkpoint"


def test_files_that_are_no_checkpoints(path, tmp_path):
    with pytest.raises(CheckpointError, match=r"missing.pth does not exist: train this member first"):
        read_checkpoint(str(tmp_path / "missing.pth"))
    whole = Path(path).read_bytes()
    for content in (b"", b"no checkpoint", whole[: len(whole) // 2], whole[:-30]):
        (tmp_path / "bad.pth").write_bytes(content)
        with pytest.raises(CheckpointError, match=r"bad.pth is not a checkpoint of weights alone, or is damaged: \S"):
            read_checkpoint(str(tmp_path / "bad.pth"))
    for content in ({}, [1], {"state_dict": {"a": 1}}, torch.zeros(2)):
        torch.save(content, tmp_path / "bad.pth")
        with pytest.raises(CheckpointError, match=r"bad.pth is not a checkpoint of weights alone, or is damaged: \S"):
            read_checkpoint(str(tmp_path / "bad.pth"))


@pytest.mark.parametrize(
    ("items", "message"),
    [
        ({"decode_head.conv_seg.bias": None}, "it lacks 1 weights, first decode_head.conv_seg.bias"),
        ({"backbone.stages.4.0.weight": torch.zeros(1)}, "it has besides 1 weights, first backbone.stages.4.0.weight"),
        (
            {"decode_head.conv_seg.bias": torch.zeros(3)},
            r"decode_head.conv_seg.bias has shape \(3,\) there and \(4,\) here \(another number of classes",
        ),
    ],
)
def test_misfits_are_named(path, items, message):
    with pytest.raises(CheckpointError, match=rf"member_0/iter_7.pth does not fit the model: {message}"):
        check_fits(build(segmentor_config()), changed(path, **items))


def test_numbers_that_are_not_finite(path):
    with pytest.raises(CheckpointError, match=r"iter_7.pth holds numbers that are not finite, in decode_head.conv_seg"):
        check_fits(build(segmentor_config()), changed(path, **{"decode_head.conv_seg.bias": torch.full((4,), np.nan)}))


def test_what_a_teacher_does_not_need_may_be_there_or_not(path, tmp_path):
    auxiliary = {"auxiliary_head": head("FCNHead")}
    (other,) = write_members(tmp_path / "auxiliary", 1, **auxiliary)
    check_fits(build(segmentor_config()), read_checkpoint(other))
    check_fits(build(segmentor_config(**auxiliary)), read_checkpoint(path))
    branch = {"uncertainty_head.conv.weight": torch.zeros(1, 8, 1, 1)}
    counts = {"backbone.stages.0.1.num_batches_tracked": None}
    check_fits(build(segmentor_config()), changed(path, **branch, **counts))


def test_members_of_other_classes_are_named(tmp_path):
    paths = write_members(tmp_path / "x", 2) + write_members(tmp_path / "y", 1, classes=("a", "b", "car", "d"))
    read = [read_checkpoint(path) for path in paths]
    check_same_classes([*read[:2], read[2]._replace(classes=None)])
    with pytest.raises(
        CheckpointError, match=r"y/member_0.* other classes than .*x/member_0.* number 2 is 'car', not 'c'"
    ):
        check_same_classes(read)
    with pytest.raises(CheckpointError, match="3, not 4"):
        check_same_classes([read[0], read[1]._replace(classes=("a", "b", "c"))])


def test_patterns(tmp_path, monkeypatch):
    paths = write_members(tmp_path, 3)
    pattern = str(tmp_path / "member_*" / "iter_*.pth")
    assert find_checkpoints(pattern) == paths
    assert find_checkpoints([paths[2], pattern]) == [paths[2], *paths[:2]]
    monkeypatch.chdir(tmp_path)
    assert find_checkpoints(["member_1/iter_7.pth", "./member_1/../member_1/iter_7.pth"]) == ["member_1/iter_7.pth"]
    with pytest.raises(CheckpointError, match="no file matches nothing_"):
        find_checkpoints("nothing_*.pth")


def test_a_pattern_that_matches_two_files_of_one_training_is_refused(tmp_path):
    paths = write_members(tmp_path, 2)
    later = paths[0].replace("iter_7", "iter_8")
    torch.save({}, later)
    with pytest.raises(CheckpointError, match=r"iter_7.pth and .*iter_8.pth, which are of one training"):
        find_checkpoints(str(tmp_path / "*" / "iter_*.pth"))
    assert find_checkpoints([paths[0], later]) == [paths[0], later]

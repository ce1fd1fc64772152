"""Checkpoints of unknown origin, of the model zoo, damaged ones, and those that do not fit."""

import copy
import os
import pickle

import numpy as np
import pytest
import torch
from full_disk import full_disk
from tiny_detectors import ddn_model, every_head, plain_model

from ddn_detectron2.engine.checkpoint import CheckpointError, SafeCheckpointer


class Evil:
    """Unpickled, it leaves a file behind."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.system, (f"touch {self.path}",)


def zoo_file(path, weights, **others):
    """A file as Detectron2's model zoo has them: numpy arrays in a pickle."""
    arrays = {key: value.numpy() for key, value in weights.items()}
    with open(path, "wb") as file:
        pickle.dump({"model": arrays, "__author__": "Detectron2 Model Zoo"} | others, file)
    return path


def load(path, model=None, strict=True):
    model = model or ddn_model("FPN")
    SafeCheckpointer(model, strict=strict).load(str(path))
    return model


def assert_refused(path, message, model=None, strict=True):
    """One sentence that names the file, and no weight has moved if that can be known before."""
    with pytest.raises(CheckpointError, match=message) as caught:
        load(path, model, strict)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def equal(state, other):
    return state.keys() == other.keys() and all(torch.equal(state[key], other[key]) for key in state)


@pytest.fixture
def weights():
    return {key: value.clone() + 0.5 for key, value in plain_model("FPN").state_dict().items()}


# --- what loads --------------------------------------------------------------------------------------------------


@every_head
def test_plain_weights_load_into_the_student(name, tmp_path):
    expected = {key: value + 1 for key, value in plain_model(name).state_dict().items()}
    torch.save({"model": expected}, tmp_path / "plain.pth")
    assert equal(load(tmp_path / "plain.pth", ddn_model(name)).state_dict(), expected)


def test_a_bare_state_dict_loads(weights, tmp_path):
    torch.save(weights, tmp_path / "bare.pth")
    assert equal(load(tmp_path / "bare.pth").state_dict(), weights)


@pytest.mark.parametrize("protocol", [2, 4, 5])
def test_arrays_of_the_model_zoo_load(weights, tmp_path, protocol):
    arrays = {key: value.numpy() for key, value in weights.items()}
    with open(tmp_path / "zoo.pkl", "wb") as file:
        content = {"model": arrays, "__author__": "Detectron2 Model Zoo", "iteration": np.int64(3)}
        pickle.dump(content, file, protocol=protocol)
    assert equal(load(tmp_path / "zoo.pkl").state_dict(), weights)


def test_the_zoos_weights_may_go_by_similar_names(weights, tmp_path):
    # Old files; Detectron2 matches the ends of names.
    renamed = {key.replace("roi_heads.", ""): value for key, value in weights.items()}
    path = zoo_file(tmp_path / "old.pkl", renamed, matching_heuristics=True)
    found = load(path).state_dict()
    assert torch.equal(found["roi_heads.box_head.fc1.weight"], weights["roi_heads.box_head.fc1.weight"])


def test_what_was_saved_loads(tmp_path, weights):
    model = ddn_model("FPN")
    model.load_state_dict(weights)
    SafeCheckpointer(model, str(tmp_path)).save("saved")
    assert equal(load(tmp_path / "saved.pth").state_dict(), weights)


@pytest.mark.parametrize("room", [0, 50_000])
def test_a_full_disk_leaves_the_checkpoint_that_was_there(tmp_path, weights, room):
    model = ddn_model("FPN")
    model.load_state_dict(weights)
    checkpointer = SafeCheckpointer(model, str(tmp_path))
    checkpointer.save("first")
    for name in ("first", "second"):
        with pytest.raises(CheckpointError, match=rf"{name}\.pth cannot be written"), full_disk(room):
            checkpointer.save(name)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["first.pth", "last_checkpoint"]
    assert checkpointer.get_checkpoint_file() == str(tmp_path / "first.pth")
    assert equal(load(tmp_path / "first.pth").state_dict(), weights)


@pytest.mark.parametrize("at", ["killed.pth", "last_checkpoint"])
def test_a_kill_leaves_a_whole_checkpoint_to_resume_from(tmp_path, monkeypatch, at):
    checkpointer, replace = SafeCheckpointer(ddn_model("FPN"), str(tmp_path)), os.replace
    checkpointer.save("first")

    def kill(source, place):
        if place.name == at:
            raise KeyboardInterrupt
        replace(source, place)

    monkeypatch.setattr(os, "replace", kill)
    with pytest.raises(KeyboardInterrupt):
        checkpointer.save("killed")
    assert checkpointer.get_checkpoint_file() == str(tmp_path / "first.pth")


def test_a_trainers_state_comes_back(tmp_path):
    model = ddn_model("FPN")
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1, momentum=0.9)
    for group in optimizer.param_groups:
        for value in group["params"]:
            value.grad = torch.ones_like(value)
    optimizer.step()
    SafeCheckpointer(model, str(tmp_path), optimizer=optimizer).save("saved", iteration=7)
    other = ddn_model("FPN")
    fresh = torch.optim.SGD([p for p in other.parameters() if p.requires_grad], lr=0.1, momentum=0.9)
    rest = SafeCheckpointer(other, str(tmp_path), optimizer=fresh).load(str(tmp_path / "saved.pth"))
    assert rest["iteration"] == 7
    momenta = [fresh.state[value]["momentum_buffer"] for value in fresh.param_groups[0]["params"]]
    assert momenta
    assert all((momentum == 1).all() for momentum in momenta)


def test_no_path_is_no_checkpoint():
    model = ddn_model("FPN")
    before = copy.deepcopy(model.state_dict())
    assert equal(load("", model).state_dict(), before)


# --- what must not load ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", ["pkl", "pth", "pyth", "bin"])
@pytest.mark.parametrize("writer", ["pickle", "torch"])
def test_code_is_refused_and_not_run(tmp_path, weights, suffix, writer):
    content = {"model": weights, "__author__": "somebody", "extra": Evil(tmp_path / "ran")}
    path = tmp_path / f"evil.{suffix}"
    if writer == "torch":
        torch.save(content, path)
    else:
        with open(path, "wb") as file:
            pickle.dump(content, file)
    message = assert_refused(path, "is not a checkpoint of weights alone, or is damaged")
    assert str(path) in message
    assert not (tmp_path / "ran").exists()


def test_the_evil_file_is_evil(tmp_path):
    # Else the test above shows nothing.
    pickle.loads(pickle.dumps(Evil(tmp_path / "ran")))
    assert (tmp_path / "ran").exists()


@pytest.mark.parametrize("name", ["eval", "exec", "getattr", "__import__", "open"])
def test_builtins_are_refused(tmp_path, name):
    (tmp_path / "evil.pkl").write_bytes(f"cbuiltins\n{name}\n(S'1'\ntR.".encode())
    assert_refused(tmp_path / "evil.pkl", rf"it wants to run builtins\.{name}")


def test_arrays_of_objects_are_refused(tmp_path):
    # numpy's own reconstruction would otherwise carry anything.
    with open(tmp_path / "evil.pkl", "wb") as file:
        pickle.dump({"model": {"x": np.array([Evil(tmp_path / "ran")], dtype=object)}, "__author__": "x"}, file)
    assert_refused(tmp_path / "evil.pkl", "it wants to run (posix|nt).system")
    assert not (tmp_path / "ran").exists()


# --- what is damaged, missing or misfit --------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", ["pth", "pkl"])
@pytest.mark.parametrize("share", [0, 0.01, 0.3, 0.9, 0.999])
def test_truncated_files(tmp_path, weights, suffix, share):
    path = tmp_path / f"whole.{suffix}"
    if suffix == "pth":
        torch.save({"model": weights}, path)
    else:
        zoo_file(path, weights)
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    assert_refused(path, "is not a checkpoint of weights alone, or is damaged")


@pytest.mark.parametrize("suffix", ["pth", "pkl"])
@pytest.mark.parametrize(
    "content",
    [b"\x00" * 100, b"not a checkpoint", b"<html>404</html>", b"\x80\x04.", b"\x80\x04N.", b"\x80\x04]."],
    ids=["zeros", "text", "html", "empty-stack", "none", "list"],
)
def test_files_of_something_else(tmp_path, suffix, content):
    (tmp_path / f"other.{suffix}").write_bytes(content)
    assert_refused(tmp_path / f"other.{suffix}", "is not a checkpoint of weights alone, or is damaged")


def test_a_missing_file_is_named(tmp_path):
    assert str(tmp_path / "no.pth") in assert_refused(tmp_path / "no.pth", "not found")


def test_a_folder_is_no_checkpoint(tmp_path):
    assert str(tmp_path) in assert_refused(tmp_path, "not found")


def with_classes(weights, count):
    """As if the head were for `count` classes."""
    changed = dict(weights)
    for key, rows in (("cls_score", count + 1), ("bbox_pred", 4 * count)):
        for kind in ("weight", "bias"):
            name = f"roi_heads.box_predictor.{key}.{kind}"
            changed[name] = torch.zeros(rows, *weights[name].shape[1:])
    return changed


@pytest.mark.parametrize("suffix", ["pth", "pkl"])
def test_another_number_of_classes(tmp_path, weights, suffix):
    path = tmp_path / f"voc.{suffix}"
    if suffix == "pth":
        torch.save({"model": with_classes(weights, 20)}, path)
    else:
        zoo_file(path, with_classes(weights, 20))
    message = assert_refused(path, "the checkpoint does not fit the model: roi_heads.box_predictor.")
    assert "21" in message or "80" in message
    assert "another number of classes" in message
    # a plain baseline may start from it, as in Detectron2
    load(path, strict=False)


def test_another_architecture(tmp_path):
    torch.save({"model": plain_model("C4").state_dict()}, tmp_path / "c4.pth")
    assert_refused(tmp_path / "c4.pth", r"does not fit the model: proposal_generator.* \(.* or another architecture\)")


def test_a_backbone_alone(tmp_path, weights):
    backbone = {key: value for key, value in weights.items() if key.startswith("backbone.")}
    torch.save({"model": backbone}, tmp_path / "imagenet.pth")
    assert_refused(tmp_path / "imagenet.pth", r"it lacks \d+ of its \d+ weights, among them proposal_generator\.")
    load(tmp_path / "imagenet.pth", strict=False)


def test_a_lacking_weight_is_named(tmp_path, weights):
    del weights["roi_heads.box_head.fc1.weight"]
    torch.save({"model": weights}, tmp_path / "lacking.pth")
    assert_refused(
        tmp_path / "lacking.pth", r"it lacks 1 of its \d+ weights, among them roi_heads\.box_head\.fc1\.weight"
    )


def test_weights_that_are_too_many_do_no_harm(tmp_path, weights):
    torch.save({"model": weights | {"roi_heads.mask_head.extra": torch.zeros(3)}}, tmp_path / "mask.pth")
    assert equal(load(tmp_path / "mask.pth").state_dict(), weights)

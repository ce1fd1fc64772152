"""Weights and training state on disk."""

import json
import os
import shutil

import pytest
import torch
from full_disk import full_disk
from torch import nn

from classification.checkpoint import (
    CheckpointError,
    is_finished,
    load_checkpoint,
    load_model,
    save_checkpoint,
    save_model,
)


def network(units=3, seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(2, units), nn.BatchNorm1d(units), nn.Linear(units, 2))


def trained(kind="adam", steps=3, **options):
    """A network and its optimizer after some steps, which give it a state."""
    model = network(**options)
    optimizer = make(kind, model)
    for _ in range(steps):
        step(model, optimizer)
    return model, optimizer


def make(kind, model):
    if kind == "adam":
        return torch.optim.Adam(model.parameters(), lr=0.1)
    return torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9 if kind == "momentum" else 0.0)


def step(model, optimizer):
    optimizer.zero_grad()
    model(torch.arange(8.0).view(4, 2)).square().sum().backward()
    optimizer.step()


def folders(folder):
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("kind", ["sgd", "momentum", "adam"])
def test_a_checkpoint_brings_everything_back(tmp_path, kind):
    model, optimizer = trained(kind)
    save_checkpoint(tmp_path, 7, model, optimizer, {"log": [{"loss": 0.1}]})
    other = network(seed=1)
    its_optimizer = make(kind, other)
    record = load_checkpoint(tmp_path, other, its_optimizer)
    assert record == {"epoch": 7, "log": [{"loss": 0.1}]}
    for _ in range(2):  # the state of the optimizer shows in what it does next
        step(model, optimizer)
        step(other, its_optimizer)
    for name, value in model.state_dict().items():
        assert torch.equal(value, other.state_dict()[name]), name


def test_only_the_newest_is_kept(tmp_path):
    model, optimizer = trained()
    for epoch in (1, 2, 10):
        save_checkpoint(tmp_path, epoch, model, optimizer, {})
        assert folders(tmp_path) == [f"epoch-{epoch:04d}"]
    assert load_checkpoint(tmp_path, model, optimizer)["epoch"] == 10


def test_saving_the_same_epoch_again_replaces_it(tmp_path):
    model, optimizer = trained()
    save_checkpoint(tmp_path, 1, model, optimizer, {"a": 1})
    save_checkpoint(tmp_path, 1, model, optimizer, {"a": 2})
    assert load_checkpoint(tmp_path, model, optimizer)["a"] == 2


def test_a_checkpoint_appears_complete_or_not_at_all(tmp_path, monkeypatch):
    model, optimizer = trained()
    save_checkpoint(tmp_path, 1, model, optimizer, {})

    replace = os.replace

    def crash(source, place):
        if source.is_dir():
            assert folders(source) == ["state.json", "state.safetensors"]
            raise KeyboardInterrupt
        replace(source, place)

    monkeypatch.setattr(os, "replace", crash)
    with pytest.raises(KeyboardInterrupt):
        save_checkpoint(tmp_path, 2, model, optimizer, {})
    monkeypatch.undo()
    assert folders(tmp_path) == ["epoch-0001", "epoch.part"]
    assert load_checkpoint(tmp_path, model, optimizer)["epoch"] == 1
    save_checkpoint(tmp_path, 2, model, optimizer, {})  # what is left over is in nobody's way
    assert folders(tmp_path) == ["epoch-0002"]


def test_a_full_disk_leaves_the_older_checkpoint_alone(tmp_path):
    model, optimizer = trained(units=1000)  # 28 kB
    save_checkpoint(tmp_path, 1, model, optimizer, {})
    with full_disk(5000):
        with pytest.raises(OSError, match=r"state\.safetensors'$"):
            save_checkpoint(tmp_path, 2, model, optimizer, {})
        with pytest.raises(OSError, match=r"model\.safetensors'$"):
            save_model(tmp_path, model, {})
    assert folders(tmp_path) == ["epoch-0001"]
    assert load_checkpoint(tmp_path, model, optimizer)["epoch"] == 1


def test_of_two_the_newest_is_loaded(tmp_path):
    # as after a kill between the rename and the removal of the older one
    model, optimizer = trained()
    save_checkpoint(tmp_path / "a", 1, model, optimizer, {})
    save_checkpoint(tmp_path, 2, model, optimizer, {})
    shutil.move(tmp_path / "a" / "epoch-0001", tmp_path)
    assert load_checkpoint(tmp_path, model, optimizer)["epoch"] == 2


@pytest.mark.parametrize("left", [None, "epoch.part"])
def test_no_checkpoint_is_none(tmp_path, left):
    if left:
        (tmp_path / left).mkdir()
    assert load_checkpoint(tmp_path, *trained()) is None
    assert load_checkpoint(tmp_path / "nowhere", *trained()) is None


def test_another_networks_checkpoint_is_refused(tmp_path):
    save_checkpoint(tmp_path, 1, *trained(), {})
    with pytest.raises(
        CheckpointError, match=r"epoch-0001 holds another network: size mismatch for 0\.weight"
    ) as caught:
        load_checkpoint(tmp_path, *trained(units=4))
    assert "\n" not in str(caught.value)


def test_a_truncated_checkpoint_is_refused(tmp_path):
    save_checkpoint(tmp_path, 1, *trained(), {})
    path = tmp_path / "epoch-0001" / "state.safetensors"
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(CheckpointError, match=r"state\.safetensors cannot be read"):
        load_checkpoint(tmp_path, *trained())


def test_a_damaged_record_is_refused(tmp_path):
    save_checkpoint(tmp_path, 1, *trained(), {})
    (tmp_path / "epoch-0001" / "state.json").write_text('{"epoch": ')
    with pytest.raises(CheckpointError, match=r"state\.json cannot be read"):
        load_checkpoint(tmp_path, *trained())


# --- finished networks


def test_a_finished_network_comes_back(tmp_path):
    model, _ = trained()
    assert not is_finished(tmp_path)
    save_model(tmp_path / "new", model, {"identity": {"seed": 3}})
    assert is_finished(tmp_path / "new")
    other = network(seed=1)
    assert load_model(tmp_path / "new", other) == {"identity": {"seed": 3}}
    for name, value in model.state_dict().items():
        assert torch.equal(value, other.state_dict()[name]), name
    assert folders(tmp_path / "new") == ["model.json", "model.safetensors"]


def test_the_same_weights_give_the_same_bytes(tmp_path):
    for place in ("a", "b"):
        save_model(tmp_path / place, trained()[0], {})
    assert (tmp_path / "a/model.safetensors").read_bytes() == (tmp_path / "b/model.safetensors").read_bytes()


@pytest.mark.parametrize("crash_at", ["model.safetensors", "model.json"])
def test_a_network_is_finished_or_not(tmp_path, monkeypatch, crash_at):
    replace = os.replace

    def crash(source, place):
        if place.name == crash_at:
            raise KeyboardInterrupt
        replace(source, place)

    monkeypatch.setattr(os, "replace", crash)
    with pytest.raises(KeyboardInterrupt):
        save_model(tmp_path, trained()[0], {})
    assert not is_finished(tmp_path)
    with pytest.raises(CheckpointError, match="no finished network"):
        load_model(tmp_path, network())


def test_a_missing_network_is_refused(tmp_path):
    with pytest.raises(CheckpointError, match="holds no finished network: train it first"):
        load_model(tmp_path, network())


def test_another_finished_network_is_refused(tmp_path):
    save_model(tmp_path, trained()[0], {})
    with pytest.raises(CheckpointError, match="holds another network"):
        load_model(tmp_path, network(units=5))


@pytest.mark.parametrize("damage", [lambda content: content[:-5], lambda content: b"not safetensors at all"])
def test_damaged_weights_are_refused(tmp_path, damage):
    save_model(tmp_path, trained()[0], {})
    path = tmp_path / "model.safetensors"
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(CheckpointError, match=r"model\.safetensors cannot be read"):
        load_model(tmp_path, network())


def test_records_are_plain_json(tmp_path):
    save_model(tmp_path, trained()[0], {"identity": {"lr": 0.1}})
    assert json.loads((tmp_path / "model.json").read_text()) == {"identity": {"lr": 0.1}}

"""What mmengine itself reads when it resumes or starts from a checkpoint: whole states, and nothing that runs."""

import os

import numpy as np
import pytest
import torch
from mmengine.logging import HistoryBuffer
from mmengine.runner import CheckpointLoader
from tiny_segmentors import write_members

from uncertainty_core.io.checkpoints import CheckpointError


class Runs:
    """What a hostile pickle is made of."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


def load(path):
    return CheckpointLoader.load_checkpoint(str(path), "cpu")


def test_the_state_of_a_training_is_read_whole(tmp_path):
    log = HistoryBuffer([1.0, 2.0, 6.0], [1, 1, 1])
    state = {"step": np.int64(3), "rate": np.float64(0.5), "seen": np.arange(3, dtype=np.uint8), "on": np.bool_(True)}
    torch.save({"state_dict": {"w": torch.ones(2)}, "message_hub": {"log": log}, "optimizer": state}, tmp_path / "a")
    read = load(tmp_path / "a")
    assert read["message_hub"]["log"].statistics("mean", 2) == 4.0  # of 2 and 6
    assert {name: value.tolist() for name, value in read["optimizer"].items()} == {
        "step": 3,
        "rate": 0.5,
        "seen": [0, 1, 2],
        "on": True,
    }


@pytest.mark.parametrize("attack", [Runs(os.mkdir, "ran"), Runs(getattr, np.zeros(1), "tofile"), Runs(eval, "1")])
def test_nothing_in_a_file_is_run(tmp_path, monkeypatch, attack):
    monkeypatch.chdir(tmp_path)
    (path,) = write_members(tmp_path, 1)
    content = torch.load(path, weights_only=False)
    content["message_hub"]["attack"] = attack
    torch.save(content, path)
    with pytest.raises(
        CheckpointError, match=r"^.*iter_7.pth is not a checkpoint of weights alone, or is damaged: \S+"
    ):
        load(path)
    assert not (tmp_path / "ran").exists()


def test_a_file_that_is_absent_or_no_checkpoint(tmp_path):
    with pytest.raises(FileNotFoundError):
        load(tmp_path / "none.pth")
    (tmp_path / "text.pth").write_text("no weights")
    with pytest.raises(CheckpointError, match=r"text.pth is not a checkpoint"):
        load(tmp_path / "text.pth")

"""The bar of a training on a terminal, and nothing of it in a file."""

import io
from types import SimpleNamespace

import torch

from dudes_mmseg.hooks import ProgressHook


def train(iterations=3):
    """The calls that mmengine makes in a training that is resumed after its first iteration, and validated once."""
    hook = ProgressHook()
    runner = SimpleNamespace(work_dir="runs/member_0", max_iters=iterations, iter=1, val_dataloader=range(2))
    hook.before_train(runner)
    hook._training.mininterval = 0  # as if each iteration took longer than the time between two drawings
    for number in range(1, iterations):
        hook.after_train_iter(runner, number, outputs={"loss": torch.tensor(0.25)})
    hook.before_val_epoch(runner)
    for number in range(2):
        hook.after_val_iter(runner, number)
    hook.after_val_epoch(runner, {"mIoU": 12.345})
    hook.after_train(runner)


class Terminal(io.StringIO):
    """Keeps what a terminal is sent."""

    def isatty(self):
        return True


def test_a_terminal_shows_iterations_and_loss(monkeypatch, capsys):
    terminal = Terminal()
    monkeypatch.setattr("sys.stderr", terminal)
    train()
    shown = terminal.getvalue()
    assert "member_0:" in shown and "1/3" in shown and "2/3" in shown
    assert "loss=0.25" in shown
    assert "validate:" in shown
    assert shown.endswith("\r")  # the bar is wiped
    assert capsys.readouterr().out == "member_0: mIoU 12.35 on the validation images\n"


def test_a_file_gets_the_result_alone(capfd):
    train()
    assert capfd.readouterr() == ("member_0: mIoU 12.35 on the validation images\n", "")

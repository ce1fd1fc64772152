"""How a program starts and ends, and where what it prints goes."""

import os
import signal
import sys
from argparse import ArgumentParser, Namespace

import pytest

from uncertainty_core.cli import Steps, check_at_least, echo, log_to, program, progress
from uncertainty_core.errors import UserError


def missing_file(folder):
    (folder / "gone.json").read_text()


def file_for_a_folder(folder):
    (folder / "file").touch()
    (folder / "file").mkdir()


def bad_value(folder):
    raise UserError("num_bins must be positive, got 0: choose 15")


@pytest.mark.parametrize("verbose", [True, False])
@pytest.mark.parametrize(
    ("action", "sentence"),
    [
        (bad_value, "num_bins must be positive, got 0: choose 15"),
        (missing_file, "{}/gone.json: No such file or directory"),
        (file_for_a_folder, "{}/file: File exists"),
    ],
)
def test_one_sentence_and_exit_code_2(tmp_path, action, sentence, verbose, capfd):
    with pytest.raises(SystemExit) as stop, program(Namespace(verbose=verbose)):
        action(tmp_path)
    assert stop.value.code == 2
    said = capfd.readouterr()
    assert said.err == f"error: {sentence.format(tmp_path)}\n" and said.out == ""


@pytest.mark.parametrize("error", [OSError("no memory for a worker"), ConnectionResetError(104, "reset"), ValueError()])
def test_what_no_user_can_mend_keeps_its_traceback(error):
    with pytest.raises(type(error)) as raised, program(Namespace(verbose=False)):
        raise error
    assert raised.value is error


def swallowed():
    """As numpy's C code does while it is imported."""
    try:
        os.kill(os.getpid(), signal.SIGINT)
    except KeyboardInterrupt:
        raise ImportError("multiarray failed to import") from None


class Interrupted:
    def __del__(self):
        os.kill(os.getpid(), signal.SIGINT)
        for _ in range(100):  # until Python notices
            pass


def lost():
    """In a destructor, whose errors Python prints and forgets."""
    sys.unraisablehook, before = (lambda _: None), sys.unraisablehook
    Interrupted()
    sys.unraisablehook = before
    with progress(2, "train") as bar:
        bar.update()
    pytest.fail("the training went on")


def explained():
    """As by a checkpointer, which takes what torch's writer makes of it for a full disk."""
    try:
        os.kill(os.getpid(), signal.SIGINT)
    except KeyboardInterrupt:
        raise UserError("a file cannot be written") from None


@pytest.mark.parametrize("action", [lambda: os.kill(os.getpid(), signal.SIGINT), swallowed, lost, explained])
def test_sigint_ends_with_one_sentence_and_130(action, capfd):
    signal.signal(signal.SIGINT, signal.default_int_handler)  # which the background of a script ignores
    with pytest.raises(SystemExit) as stop, program(Namespace(verbose=False)):
        action()
    assert stop.value.code == 130
    assert capfd.readouterr() == ("", "interrupted; the same command goes on\n")


def test_an_interrupted_program_says_how_to_go_on(capfd):
    for resume, sentence in ((False, "the same command with --resume goes on"), (True, "the same command goes on")):
        with pytest.raises(SystemExit), program(Namespace(verbose=False, resume=resume)):
            raise KeyboardInterrupt
        assert capfd.readouterr().err == f"interrupted; {sentence}\n"


def test_frameworks_print_into_a_log_that_is_named_at_the_end(tmp_path, capfd):
    log = tmp_path / "run" / "log.txt"
    with program(Namespace(verbose=False)):
        print("python, before the log has a place")
        os.write(2, b"C code\n")
        log_to(log)
        os.system("echo a child")
        step = Steps(2)
        step("train")
        with progress(3, "train") as bar:
            bar.update()
        echo("a table")
    assert log.read_text() == "python, before the log has a place\nC code\na child\n"
    # standard error is no terminal here: the bar leaves nothing, no carriage return either
    assert capfd.readouterr() == ("[1/2] train\na table\n", f"log: {log}\n")


def test_an_error_names_the_log(tmp_path, capfd):
    with pytest.raises(ZeroDivisionError), program(Namespace(verbose=False)):
        log_to(tmp_path / "log.txt")
        raise ZeroDivisionError
    assert capfd.readouterr().err == f"log: {tmp_path / 'log.txt'}\n"


def test_verbose_shows_what_frameworks_print(tmp_path, capfd):
    with program(Namespace(verbose=True)):
        log_to(tmp_path / "log.txt")
        os.system("echo a child")
    assert capfd.readouterr() == ("a child\n", "") and not list(tmp_path.iterdir())


def test_threads_reach_libraries_that_are_imported_later(monkeypatch, tmp_path, capfd):
    (tmp_path / "nvidia-smi").touch(mode=0o755)
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    with program(Namespace(verbose=True, threads=None)):
        assert os.environ["OMP_NUM_THREADS"] == "7"
    with program(Namespace(verbose=True, threads=3)):
        assert os.environ["OMP_NUM_THREADS"] == "3"
    for programs, threads in (("", "1"), (tmp_path, None)):  # with and without a driver for GPUs
        monkeypatch.setenv("PATH", str(programs))
        monkeypatch.delenv("OMP_NUM_THREADS")
        with program(Namespace(verbose=True, threads=None)):
            assert os.environ.get("OMP_NUM_THREADS") == threads
        os.environ["OMP_NUM_THREADS"] = "7"
    with pytest.raises(SystemExit), program(Namespace(verbose=True, threads=0)):
        pass
    assert capfd.readouterr().err == "error: --threads must be at least 1, got 0\n"


def test_numbers_that_are_too_small(capsys):
    parser = ArgumentParser(prog="draw")
    check_at_least(parser, Namespace(num_images=1), 1, "num_images")
    with pytest.raises(SystemExit, match="2"):
        check_at_least(parser, Namespace(num_images=0), 1, "num_images")
    assert capsys.readouterr().err.endswith("draw: error: --num-images must be at least 1, got 0\n")

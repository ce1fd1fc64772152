"""How a program ends when a user can mend what is wrong, and when nobody can."""

import pytest

from uncertainty_core.errors import UserError, one_sentence_errors


def missing_file(folder):
    (folder / "gone.json").read_text()


def file_for_a_folder(folder):
    (folder / "file").touch()
    (folder / "file").mkdir()


def bad_value(folder):
    raise UserError("num_bins must be positive, got 0: choose 15")


@pytest.mark.parametrize(
    ("action", "sentence"),
    [
        (bad_value, "num_bins must be positive, got 0: choose 15"),
        (missing_file, "{}/gone.json: No such file or directory"),
        (file_for_a_folder, "{}/file: File exists"),
    ],
)
def test_one_sentence_and_exit_code_2(tmp_path, action, sentence, capsys):
    with pytest.raises(SystemExit) as stop, one_sentence_errors():
        action(tmp_path)
    assert stop.value.code == 2
    said = capsys.readouterr()
    assert said.err == f"error: {sentence.format(tmp_path)}\n" and said.out == ""


@pytest.mark.parametrize("error", [OSError("no memory for a worker"), ConnectionResetError(104, "reset"), ValueError()])
def test_what_no_user_can_mend_keeps_its_traceback(error):
    with pytest.raises(type(error)) as raised, one_sentence_errors():
        raise error
    assert raised.value is error


def test_nothing_wrong_ends_nothing():
    with one_sentence_errors():
        done = True
    assert done

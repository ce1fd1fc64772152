"""A note in a folder: absent, for this very request, for another, or somebody else's."""

import json

import pytest

from uncertainty_core.errors import UserError
from uncertainty_core.io.ownership import is_written_for

REQUEST = {"version": 1, "seed": 0}


def test_no_note_is_no_claim(tmp_path):
    assert not is_written_for(tmp_path / "note.json", REQUEST, "scenes")


@pytest.mark.parametrize("section", [None, "info"])
def test_a_note_with_the_same_values_and_others_beside_them(tmp_path, section):
    content = {**REQUEST, "fingerprint": "abc"}
    (tmp_path / "note.json").write_text(json.dumps(content if section is None else {section: content}))
    assert is_written_for(tmp_path / "note.json", REQUEST, "scenes", section)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"version": 1, "seed": 5}', r"note\.json holds other scenes, of seed 5, not 0: remove it, or choose another"),
        ('{"version": 1}', r"note\.json was not written by this project: move it away"),
        ("[]", "was not written by this project"),
        ("{", "was not written by this project"),
    ],
)
def test_other_notes_are_refused(tmp_path, content, message):
    (tmp_path / "note.json").write_text(content)
    with pytest.raises(UserError, match=message):
        is_written_for(tmp_path / "note.json", REQUEST, "scenes")


def test_what_to_remove_may_be_the_whole_folder(tmp_path):
    (tmp_path / "note.json").write_text('{"version": 2, "seed": 0}')
    with pytest.raises(UserError, match=rf"^{tmp_path} holds other streets, of version 2, not 1"):
        is_written_for(tmp_path / "note.json", REQUEST, "streets", place=tmp_path)

"""A folder that one run has claimed is refused to a run with other settings, in one sentence that names them."""

import json

import pytest

from uncertainty_core.io.claims import ClaimError, check_claim, check_claims, claim, clear, flatten, is_written_for

SETTINGS = {"SOLVER": {"BASE_LR": 0.1, "STEPS": (3, 4)}, "SEED": 0, "weights": None}
WAY_OUT = "choose another folder"


def work(folder, settings):
    """A claim, and a result."""
    claim(folder, settings)
    (folder / "weights.pth").write_bytes(b"")


def refusal(folder, settings):
    with pytest.raises(ClaimError) as caught:
        check_claim(folder, settings, WAY_OUT)
    return str(caught.value)


def test_the_same_settings_may_go_on(tmp_path):
    work(tmp_path / "step", SETTINGS)
    first = (tmp_path / "step" / "settings.json").read_bytes()
    check_claim(tmp_path / "step", SETTINGS, WAY_OUT)
    claim(tmp_path / "step", SETTINGS)
    assert (tmp_path / "step" / "settings.json").read_bytes() == first


@pytest.mark.parametrize("folder", ["absent", "empty", "claimed"])
def test_a_folder_without_work_is_free(tmp_path, folder):
    (tmp_path / "empty").mkdir()
    claim(tmp_path / "claimed", {"SEED": 5})  # and then something was wrong with the settings
    before = sorted(tmp_path.rglob("*"))
    check_claim(tmp_path / folder, SETTINGS, WAY_OUT)
    assert sorted(tmp_path.rglob("*")) == before  # a check writes nothing


def test_each_difference_is_named_with_both_values(tmp_path):
    work(tmp_path, SETTINGS)
    other = {"SOLVER": {"BASE_LR": 0.2, "STEPS": (3, 4), "NEW": "x"}, "SEED": 0}
    assert refusal(tmp_path, other) == (
        f"{tmp_path} holds the work of other settings: SOLVER.BASE_LR (there 0.1, now 0.2); "
        'SOLVER.NEW (there absent, now "x"); weights (there null, now absent): choose another folder'
    )


def test_many_and_long_differences_stay_readable(tmp_path):
    work(tmp_path, {f"k{number}": "a" * 1000 for number in range(30)})
    text = refusal(tmp_path, {f"k{number}": "b" * 1000 for number in range(30)})
    assert "and 26 more" in text
    assert len(text) < 900


@pytest.mark.parametrize(
    "content", ["", "{", "[]", "null", '{"format": 2, "settings": {}}', '{"format": 1, "settings": 3}']
)
def test_a_damaged_file_is_refused(tmp_path, content):
    work(tmp_path, {})
    (tmp_path / "settings.json").write_text(content)
    assert "damaged or of another version" in refusal(tmp_path, {})


def test_files_without_settings_are_refused_and_kept(tmp_path):
    (tmp_path / "photo.png").write_bytes(b"mine")
    assert "unknown settings" in refusal(tmp_path, SETTINGS)
    with pytest.raises(ClaimError, match="unknown settings"):
        check_claims({tmp_path: SETTINGS}, WAY_OUT, overwrite=True)
    assert (tmp_path / "photo.png").exists()


def test_a_pipeline_is_refused_before_its_first_step(tmp_path):
    work(tmp_path / "student", SETTINGS)
    other = {tmp_path / "baseline": SETTINGS, tmp_path / "student": SETTINGS | {"SEED": 1}}
    with pytest.raises(ClaimError, match=r"student holds the work of other settings: SEED \(there 0, now 1\)"):
        check_claims(other, WAY_OUT)
    assert not (tmp_path / "baseline").exists()


def test_overwriting_removes_the_folders_that_differ_alone(tmp_path):
    for name in ("same", "other"):
        work(tmp_path / name, SETTINGS)
    claims = {tmp_path / "same": SETTINGS, tmp_path / "other": SETTINGS | {"SEED": 1}}
    check_claims(claims, WAY_OUT, overwrite=True)
    assert [path.parent.name for path in tmp_path.glob("*/weights.pth")] == ["same"]
    check_claims(claims, WAY_OUT)


def test_a_folder_can_be_cleared_of_all_but_its_claim(tmp_path):
    work(tmp_path, SETTINGS)
    (tmp_path / "logs" / "deep").mkdir(parents=True)
    clear(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["settings.json"]
    clear(tmp_path / "absent")


def test_numbers_that_json_lacks_are_settings_like_others(tmp_path):
    work(tmp_path, {"limit": float("inf")})
    check_claim(tmp_path, {"limit": float("inf")}, WAY_OUT)
    assert "limit" in refusal(tmp_path, {"limit": 1.0})
    assert json.loads((tmp_path / "settings.json").read_text(), parse_constant=pytest.fail)


def test_settings_become_flat():
    assert flatten(SETTINGS) == {"SOLVER.BASE_LR": 0.1, "SOLVER.STEPS": [3, 4], "SEED": 0, "weights": None}


# --- notes in files of one's own ---------------------------------------------------------------------------------

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
    with pytest.raises(ClaimError, match=message):
        is_written_for(tmp_path / "note.json", REQUEST, "scenes")


def test_what_to_remove_may_be_the_whole_folder(tmp_path):
    (tmp_path / "note.json").write_text('{"version": 2, "seed": 0}')
    with pytest.raises(ClaimError, match=rf"^{tmp_path} holds other streets, of version 2, not 1"):
        is_written_for(tmp_path / "note.json", REQUEST, "streets", place=tmp_path)


def test_true_is_not_one(tmp_path):
    work(tmp_path, {"FLIP": True, "STEPS": [1, {"x": False}]})
    check_claim(tmp_path, {"FLIP": True, "STEPS": [1.0, {"x": False}]}, WAY_OUT)
    assert "FLIP (there true, now 1)" in refusal(tmp_path, {"FLIP": 1, "STEPS": [1, {"x": False}]})
    assert "STEPS" in refusal(tmp_path, {"FLIP": True, "STEPS": [True, {"x": 0}]})

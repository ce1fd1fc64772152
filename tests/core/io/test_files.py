"""What is written is complete or absent, and JSON is strict."""

import math
import os
import subprocess
import sys
from pathlib import Path

import pytest
from full_disk import full_disk
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.figure import Figure
from PIL import Image
from strict import strictly

from uncertainty_core.io.files import open_atomically, write_atomically, write_png
from uncertainty_core.io.strict_json import strict_json


def test_content_is_written_and_replaced(tmp_path):
    for content in (b"first", b"second, longer", b""):
        write_atomically(tmp_path / "a.bin", content)
        assert (tmp_path / "a.bin").read_bytes() == content
    assert [path.name for path in tmp_path.iterdir()] == ["a.bin"]


@pytest.mark.parametrize("step", ["fsync", "replace"])
def test_an_interruption_leaves_what_was_there(tmp_path, monkeypatch, step):
    write_atomically(tmp_path / "a.bin", b"old")

    def crash(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, step, crash)
    for name in ("a.bin", "b.bin"):
        with pytest.raises(KeyboardInterrupt):
            write_atomically(tmp_path / name, b"new", ".7.part")
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {
        "a.bin": b"old",
        "a.bin.7.part": b"new",
        "b.bin.7.part": b"new",
    }


FULL_DISK = """
import resource, sys
from argparse import Namespace
from pathlib import Path
from uncertainty_core.cli import program
from uncertainty_core.io.files import write_atomically
resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
with program(Namespace()):
    write_atomically(Path(sys.argv[1]), bytes(5000))
"""


FULL_LOG = """
import resource, sys
from argparse import Namespace
from pathlib import Path
from uncertainty_core.cli import log_to, program
from uncertainty_core.errors import UserError
with program(Namespace(verbose=False)):
    log_to(Path(sys.argv[1]))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    sys.stdout.write("what no disk holds")
    raise UserError("no room")
"""


def test_a_log_that_cannot_be_written_hides_no_sentence(tmp_path):
    done = subprocess.run([sys.executable, "-c", FULL_LOG, tmp_path / "log.txt"], capture_output=True, text=True)
    assert done.returncode == 2 and done.stderr.startswith("error: no room\n"), done.stderr


def test_a_full_disk_is_one_sentence_and_leaves_what_was_there(tmp_path):
    write_atomically(tmp_path / "a.bin", b"old")
    done = subprocess.run([sys.executable, "-c", FULL_DISK, tmp_path / "a.bin"], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (2, f"error: {tmp_path / 'a.bin'}: File too large\n")
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {"a.bin": b"old"}


@pytest.mark.parametrize("room", [0, 100])
def test_a_stream_that_breaks_off_leaves_what_was_there(tmp_path, room):
    write_atomically(tmp_path / "a.bin", b"old")
    with pytest.raises(OSError, match=r"File too large: '.*a\.bin'$"), full_disk(room):  # noqa: SIM117
        with open_atomically(tmp_path / "a.bin") as file:
            for _ in range(1000):
                file.write(bytes(100))
    with pytest.raises(ZeroDivisionError), open_atomically(tmp_path / "b.bin") as file:
        file.write(bytes(1 // 0))
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {"a.bin": b"old"}


contents = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(codec="utf-8")),
    lambda inner: st.lists(inner) | st.tuples(inner, inner) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=10,
)


def same(read, written):
    if isinstance(written, dict):
        return read.keys() == written.keys() and all(same(read[key], written[key]) for key in written)
    if isinstance(written, list | tuple):
        return len(read) == len(written) and all(map(same, read, written))
    if isinstance(written, float) and not math.isfinite(written):
        return isinstance(read, str) and repr(float(read)) == repr(written)
    return read == written


@given(contents)
def test_json_is_strict_and_loses_nothing(content):
    text = strict_json(content)
    assert text.endswith("\n")
    assert same(strictly(text), content)


@pytest.mark.parametrize("kind", ["figure", "image"])
def test_pictures_are_written_whole(tmp_path, kind):
    picture = Figure(figsize=(1, 1)) if kind == "figure" else Image.new("RGB", (4, 3), (1, 2, 3))
    write_png(tmp_path / "picture.png", picture)
    assert [path.name for path in tmp_path.iterdir()] == ["picture.png"]
    with Image.open(tmp_path / "picture.png") as read:
        assert read.format == "PNG" and read.size == ((100, 100) if kind == "figure" else (4, 3))


IN_PLACE = (".write_text(", ".write_bytes(", ".savefig(", "save_file(", "imwrite(", ".save(str(", '"wb"')


def test_no_file_is_written_in_place():
    root = Path(__file__).resolve().parents[3]
    packages = ("uncertainty_core", "ddn_detectron2", "dudes_mmseg", "classification")
    found = {
        f"{file.relative_to(root)}: {call}"
        for package in packages
        for file in (root / package).rglob("*.py")
        for call in IN_PLACE
        if call in file.read_text(encoding="utf-8")
    }
    assert found == {'uncertainty_core/io/files.py: "wb"'}

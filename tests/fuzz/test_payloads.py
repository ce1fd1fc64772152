"""What docs/limits.md promises about a stranger's pictures, checkpoints and records, each tried with a payload.

YAML: tests/core/cli/test_configs.py. Pickles in Detectron2's checkpoints: tests/ddn/engine/test_checkpoint.py.
"""

import os
import resource
import struct
import zlib

import numpy as np
import pytest
import torch
from PIL import Image
from report_runs import record

from classification.data import DataError, load
from uncertainty_core.errors import UserError
from uncertainty_core.intervals import FILE as IMAGES
from uncertainty_core.intervals.storage import read_images, read_resamples
from uncertainty_core.report.run_record import Picture, RunRecord


def png_of(width, height):
    """A PNG file of so many black pixels by its header, and of none in truth."""

    def chunk(kind, content):
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 9)) + chunk(b"IEND", b"")
    )


@pytest.fixture
def never_decoded(monkeypatch):
    """Decoding fails the test: a bomb must be refused by its header."""
    monkeypatch.setattr(Image.Image, "convert", lambda *arguments: pytest.fail("it was decoded"))


def test_a_picture_bomb_among_images(tmp_path, never_decoded):
    for split in ("train", "test"):
        (tmp_path / split / "cat").mkdir(parents=True)
        (tmp_path / split / "cat" / "bomb.png").write_bytes(png_of(30_000, 30_000))
    with pytest.raises(DataError, match="can be decoded"):
        load(f"folder:{tmp_path}", "train", image_size=8, progress=False)


def test_a_picture_bomb_to_draw_on(tmp_path, never_decoded):
    visualizer = pytest.importorskip("ddn_detectron2.evaluation.visualizer")
    (tmp_path / "bomb.png").write_bytes(png_of(30_000, 30_000))
    with pytest.raises(UserError, match=r"bomb.png cannot be decoded \(Image size \(900000000 pixels\)"):
        visualizer._read_image(tmp_path / "bomb.png")


def test_a_picture_bomb_for_a_segmentor(tmp_path):
    predict = pytest.importorskip("dudes_mmseg.inference.predict")
    from mmcv.transforms import LoadImageFromFile

    path = tmp_path / "bomb.png"
    path.write_bytes(png_of(33_000, 33_000))  # more than 2**30 pixels, 3 GB
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert predict._Images({"bomb.png": path}, [])[0] == ("bomb.png", None)  # which a message will name
    with pytest.raises(predict.cv2.error, match="CV_IO_MAX_IMAGE_PIXELS"):
        LoadImageFromFile()({"img_path": str(path)})
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss < before + 100_000  # kilobytes


class Payload:
    """Its unpickling makes a folder."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return os.mkdir, (self.path,)


def test_a_pickle_in_a_checkpoint_of_a_segmentor(tmp_path):
    checkpoint = pytest.importorskip("dudes_mmseg.models.checkpoint")
    torch.save({"state_dict": {"weight": torch.zeros(1)}, "meta": Payload(tmp_path / "ran")}, tmp_path / "member.pth")
    with pytest.raises(UserError, match="is not a checkpoint of weights alone"):
        checkpoint.read_checkpoint(str(tmp_path / "member.pth"))
    assert not (tmp_path / "ran").exists()


def test_a_pickle_among_what_is_kept_of_images(tmp_path):
    np.savez(tmp_path / IMAGES, **{"resamples.ece": np.array([Payload(tmp_path / "ran")], dtype=object)})
    for read in (read_images, read_resamples):
        with pytest.raises(UserError, match=r"images.npz is damaged \(.*\): evaluate the predictor again"):
            read(tmp_path)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("path", ["../secret.png", "/etc/secret.png", "a/../../secret.png"])
def test_a_record_that_wants_a_file_from_elsewhere(path, tmp_path):
    written = record().write(tmp_path)
    written.write_text(
        written.read_text().replace('"pictures": []', f'"pictures": [{{"path": "{path}", "caption": ""}}]')
    )
    with pytest.raises(UserError, match="is not in the folder of the record"):
        RunRecord.read(tmp_path)
    with pytest.raises(ValueError, match="is not in the folder of the record"):
        Picture(path, "")

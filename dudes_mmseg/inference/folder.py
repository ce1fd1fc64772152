"""The folder that holds what a segmentor predicts for images without labels, file by file, so that it can be continued.

Shapes: H rows, W columns, C classes.
"""

import csv
import io
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import numpy as np
from matplotlib.font_manager import findfont
from PIL import Image, ImageDraw, ImageFont
from PIL.PngImagePlugin import PngInfo

from uncertainty_core import file_sha256
from uncertainty_core.errors import UserError
from uncertainty_core.io.files import write_atomically, write_png
from uncertainty_core.io.images import claim_predictions

from .pictures import LARGEST_SIDE, strip

KINDS = ("classes", "strips", "uncertainty")  # in the order of writing: with the last an image is complete
_LARGEST_CODE = 2**16 - 1
_SHEET_WIDTH = 1200
_PALETTE_SIZE = 256  # of a PNG
_MADE_FROM, _NAME = "image_sha256", "image"  # notes in a PNG


def encode_unit_interval(uncertainty: np.ndarray) -> np.ndarray:
    """16-bit codes (H, W) of an uncertainty map (H, W) in [0, 1]: round(65535 · uncertainty), off by at most 7.7e-6.

    Raises ValueError for anything else, NaN above all.
    """
    if not ((uncertainty >= 0) & (uncertainty <= 1)).all():
        raise ValueError("the uncertainty is not in [0, 1] everywhere: did the network overflow?")
    return np.rint(uncertainty.astype(np.float64) * _LARGEST_CODE).astype(np.uint16)


class Row(NamedTuple):
    """What images.csv holds about an image.

    image: its path below the folder of the images.
    width, height: in pixels.
    mean_uncertainty: over all pixels.
    share_above: of the pixels, those whose uncertainty is above a level.
    """

    image: str
    width: int
    height: int
    mean_uncertainty: float
    share_above: float

    @classmethod
    def of(cls, image: str, codes: np.ndarray, level: float) -> "Row":
        """Of an image with the `codes` (H, W) of its uncertainty; `level` is that of `share_above`."""
        height, width = codes.shape
        mean = codes.mean(dtype=np.float64) / _LARGEST_CODE
        return cls(image, width, height, float(mean), float((codes > level * _LARGEST_CODE).mean()))


class PredictionFolder:
    """Predictions by one segmentor. Each image has its path below the folder of the images, once in each of

    - classes/: class map as PNG, whose palette is that of the classes
    - strips/: image, prediction and uncertainty side by side, at most `LARGEST_SIDE` pixels wide and high each
    - uncertainty/: 16-bit PNG, see `encode_unit_interval`, which knows name and checksum of the image it belongs to

    Args:
        root: made if need be; UserError if it holds predictions by another segmentor, or files that are none.
        fingerprint: JSON values of all that decides what the segmentor predicts.
        palette: C colours.
    """

    def __init__(self, root: Path, fingerprint: Mapping[str, Any], palette: Sequence[Sequence[int]]) -> None:
        if len(palette) > _PALETTE_SIZE:
            raise UserError(f"class maps are PNG, which hold {_PALETTE_SIZE} classes, and the model has {len(palette)}")
        self.root, self.palette = root, palette
        claim_predictions(root, fingerprint, KINDS, "predictions by other weights, or with another config")

    def path(self, kind: str, image: str) -> Path:
        """Where that of `KINDS` is for an image."""
        return self.root / kind / PurePosixPath(image).with_suffix(".png")

    def read(self, image: str, source: Path) -> np.ndarray | None:
        """Codes (H, W) of the uncertainty of the image in the file `source`; None unless all of it is there, whole."""
        if not all(self.path(kind, image).is_file() for kind in KINDS):
            return None
        try:
            with Image.open(self.path("uncertainty", image)) as picture:
                return np.array(picture) if picture.info.get(_MADE_FROM) == file_sha256(source) else None
        except (OSError, SyntaxError):  # Pillow's about files that were damaged
            return None

    def read_others(self, images: Collection[str]) -> Iterator[tuple[str, np.ndarray]]:
        """What is here of other images than these, by earlier runs: names, and codes (H, W) of their uncertainty."""
        asked = {self.path("uncertainty", image) for image in images}
        for path in sorted((self.root / "uncertainty").rglob("*.png")):
            try:
                with Image.open(path) as picture:
                    name = str(picture.info.get(_NAME) or path.relative_to(self.root / "uncertainty").as_posix())
                    if path not in asked and all(self.path(kind, name).is_file() for kind in KINDS):
                        yield name, np.array(picture)
            except (OSError, SyntaxError):  # Pillow's about files that were damaged
                continue

    def write(
        self, image: str, sha256: str, pixels: np.ndarray, classes: np.ndarray, uncertainty: np.ndarray
    ) -> np.ndarray:
        """Write the files of an image; returns the codes (H, W) of its uncertainty.

        Args:
            image: see `Row`.
            sha256: of its file.
            pixels: RGB (H, W, 3), bytes.
            classes: predicted ones (H, W).
            uncertainty: (H, W) in [0, 1].
        """
        codes = encode_unit_interval(uncertainty)
        indices = Image.fromarray(classes.astype(np.uint8), mode="P")
        indices.putpalette(np.array(self.palette, dtype=np.uint8).tobytes())
        note = PngInfo()
        note.add_text(_MADE_FROM, sha256)
        note.add_itxt(_NAME, image.encode(errors="surrogateescape"))
        self._save("classes", image, indices)
        self._save("strips", image, Image.fromarray(_small_strip(pixels, classes, uncertainty, self.palette)))
        self._save("uncertainty", image, Image.fromarray(codes), pnginfo=note)
        return codes

    def _save(self, kind: str, image: str, picture: Image.Image, **options: Any) -> None:
        path = self.path(kind, image)
        path.parent.mkdir(parents=True, exist_ok=True)
        # the default level takes four times as long to save a tenth
        write_png(path, picture, compress_level=1, **options)

    def write_index(self, rows: Sequence[Row], level: float, top: int) -> None:
        """Write images.csv, the most uncertain images first, and index.png with the strips of the first `top`.

        Args:
            rows: at least one.
            level: that of `Row.share_above`, for the head of the column.
            top: how many.
        """
        rows = sorted(rows, key=lambda row: (-row.mean_uncertainty, row.image))
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow([*Row._fields[:-1], f"share_above_{level:g}"])
        writer.writerows([*row[:3], f"{row.mean_uncertainty:.6f}", f"{row.share_above:.6f}"] for row in rows)
        write_atomically(self.root / "images.csv", text.getvalue().encode(errors="surrogateescape"))
        write_png(self.root / "index.png", self._sheet(rows[:top]))

    def _sheet(self, rows: Sequence[Row]) -> Image.Image:
        """The strips of these images below each other, under their names."""
        font, title = ImageFont.truetype(findfont("DejaVu Sans"), 18), 32
        strips = []
        for row in rows:
            with Image.open(self.path("strips", row.image)) as picture:
                strips.append(picture.resize((_SHEET_WIDTH, round(picture.height * _SHEET_WIDTH / picture.width))))
        sheet = Image.new("RGB", (_SHEET_WIDTH, sum(title + picture.height for picture in strips)), (255, 255, 255))
        draw, top = ImageDraw.Draw(sheet), 0
        for rank, (row, picture) in enumerate(zip(rows, strips, strict=True), start=1):
            text = f"{rank}. {row.image}: mean uncertainty {row.mean_uncertainty:.4f}"
            draw.text((4, top + 6), text, fill=(0, 0, 0), font=font)
            sheet.paste(picture, (0, top + title))
            top += title + picture.height
        return sheet


def _small_strip(
    pixels: np.ndarray, classes: np.ndarray, uncertainty: np.ndarray, palette: Sequence[Sequence[int]]
) -> np.ndarray:
    """`strip`, with each panel by a whole factor smaller if it is larger than `LARGEST_SIDE`."""
    step = -(-max(classes.shape) // LARGEST_SIDE)
    image, map_ = (np.asarray(Image.fromarray(part).reduce(step)) for part in (pixels, uncertainty))
    return strip(image, classes[::step, ::step], map_, palette)

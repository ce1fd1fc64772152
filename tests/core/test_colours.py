"""One set of colours: what is derived from it can be read, and what repeats it is the same."""

import colorsys
import re
from pathlib import Path

import pytest

from uncertainty_core.colours import CARD, COLOURS, DARK_CARD, GRID, PAPER, contrast, legible

CORE = Path(__file__).resolve().parents[2] / "uncertainty_core"


def css_values(name):
    """Of a variable of the page: on light, on dark ground."""
    light, dark, *_ = re.findall(rf"--{name}: (#\w+);", (CORE / "report" / "style.css").read_text(encoding="utf-8"))
    return light.upper(), dark.upper()


def hue(colour):
    return colorsys.rgb_to_hls(*(int(colour[k : k + 2], 16) / 255 for k in (1, 3, 5)))[0]


def test_contrast_by_hand():
    assert contrast("#000000", "#FFFFFF") == contrast("#FFFFFF", "#000000") == pytest.approx(21)
    # a grey of 0x80: ((128/255 + 0.055) / 1.055)^2.4 = 0.2159, and (1 + 0.05) / (0.2159 + 0.05) = 3.95
    assert contrast("#808080", "#FFFFFF") == pytest.approx(3.95, abs=0.005)
    assert contrast("#123456", "#123456") == 1


@pytest.mark.parametrize("colour", COLOURS)
def test_letters_have_the_hue_of_their_line_and_can_be_read_on_every_ground_of_the_page(colour):
    for card, page in zip((CARD, DARK_CARD), css_values("back"), strict=True):
        shade = legible(colour, card)
        assert hue(shade) == pytest.approx(hue(colour), abs=0.01)
        assert 4.5 <= contrast(shade, card) <= contrast(shade, page)


def test_a_colour_that_can_be_read_stays():
    assert legible("#0072B2", PAPER) == "#0072B2"


def test_the_page_has_the_same_grid_and_cards():
    assert css_values("grid")[0] == GRID
    assert css_values("panel") == (CARD, DARK_CARD)
    assert css_values("back")[0] == PAPER


def test_no_colour_is_written_down_elsewhere():
    packages = [CORE, *(CORE.parent / name for name in ("ddn_detectron2", "dudes_mmseg", "classification"))]
    files = [file for package in packages for file in package.rglob("*.py") if file.name != "colours.py"]
    assert not [file for file in files if re.search(r"#[0-9a-fA-F]{6}\b", file.read_text(encoding="utf-8"))]

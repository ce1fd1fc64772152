"""The strip of a prediction."""

import numpy as np
import pytest

from dudes_mmseg.inference.pictures import GAP, colour_classes, colour_uncertainty, strip, wrong_pixels

PALETTE = [(128, 64, 128), (70, 130, 180)]


def test_classes_have_their_colours_and_void_is_black():
    colours = colour_classes(np.array([[0, 1, 255]]), PALETTE)
    assert colours.tolist() == [[[128, 64, 128], [70, 130, 180], [0, 0, 0]]]


def test_wrong_and_void_pixels_are_white():
    # right, wrong, void
    assert wrong_pixels(np.array([[0, 1, 0]]), np.array([[0, 0, 255]]))[0, :, 0].tolist() == [0, 255, 255]


def test_more_uncertain_is_brighter_until_the_scale_ends():
    colours = colour_uncertainty(np.array([[0.0, 0.1, 0.2, 0.3, 0.9]])).astype(int).sum(2)[0]
    assert (np.diff(colours[:4]) > 0).all()
    assert colours[3] == colours[4]


@pytest.mark.parametrize("width", [40, 300])
def test_panels_stand_side_by_side(width):
    height = width // 2
    image = np.full((height, width, 3), 90, np.uint8)
    zeros = np.zeros((height, width), int)
    whole = strip(image, zeros, zeros + 0.5, PALETTE, zeros)
    without = strip(image, zeros, zeros + 0.5, PALETTE)
    assert whole.dtype == np.uint8
    panel = max(1, -(-160 // width)) * width
    assert whole.shape[1] - without.shape[1] == 2 * (panel + GAP)  # no truth, no errors
    bottom = whole[-2]
    assert bottom[panel // 2].tolist() == [90, 90, 90]
    for number in (1, 2):  # truth and prediction
        assert bottom[number * (panel + GAP) + panel // 2].tolist() == list(PALETTE[0])
    assert bottom[3 * (panel + GAP) + panel // 2].tolist() == [0, 0, 0]

"""Corruptions: identity at strength 0, ever stronger, and the same for an image whatever is beside it."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from classification.corruptions import STRENGTHS, corrupt

kinds = pytest.mark.parametrize("kind", STRENGTHS)


def some_images(*shape, seed=0):
    """Smooth in the middle of the range, so that neither clipping nor aliasing hides the effect."""
    rng = torch.Generator().manual_seed(seed)
    coarse = torch.rand(*shape[:2], 4, 4, generator=rng) * 200 + 28
    return torch.nn.functional.interpolate(coarse, shape[2:], mode="bilinear").byte()


def mean_change(images, kind, strength, seed=0):
    return (corrupt(images, kind, strength, seed).float() - images.float()).abs().mean().item()


def test_five_increasing_strengths_each():
    assert set(STRENGTHS) == {"noise", "blur", "rotation"}
    for levels in STRENGTHS.values():
        assert len(levels) == 5
        assert list(levels) == sorted(set(levels))
        assert levels[0] > 0


@kinds
def test_strength_zero_changes_nothing(kind):
    images = some_images(3, 3, 9, 9)
    corrupted = corrupt(images, kind, 0, 0)
    assert corrupted.equal(images)
    assert corrupted.data_ptr() != images.data_ptr()


@kinds
def test_change_grows_with_strength(kind):
    changes = [mean_change(some_images(20, 3, 32, 32), kind, strength) for strength in range(6)]
    growth = 1.0 if kind == "rotation" else 1.05  # what is turned further need not differ more
    assert all(after > growth * before for before, after in itertools.pairwise(changes))


@kinds
@pytest.mark.parametrize(
    "shape", [(4, 3, 32, 32), (4, 1, 8, 8), (2, 3, 9, 14), (2, 1, 3, 3), (1, 3, 1, 1), (0, 3, 8, 8)]
)
@pytest.mark.parametrize("strength", [1, 5])
def test_shape_and_type_are_kept(kind, shape, strength):
    images = some_images(*shape) if all(shape) else torch.zeros(shape, dtype=torch.uint8)
    before = images.clone()
    corrupted = corrupt(images, kind, strength, 0)
    assert (corrupted.shape, corrupted.dtype) == (images.shape, torch.uint8)
    assert images.equal(before)


@kinds
@given(order=st.permutations(range(6)), count=st.integers(0, 6), strength=st.integers(1, 5))
def test_an_image_does_not_depend_on_its_neighbours(kind, order, count, strength):
    images, ids = some_images(6, 3, 16, 16), ["a", "b", "c", 0, 1, "1"]
    full = corrupt(images, kind, strength, 3, ids)
    torch.manual_seed(count)
    state = torch.get_rng_state()
    part = corrupt(images[order[:count]], kind, strength, 3, [ids[i] for i in order[:count]])
    assert part.equal(full[order[:count]])
    assert torch.get_rng_state().equal(state)


@kinds
def test_positions_are_the_default_ids(kind):
    images = some_images(4, 1, 16, 16)
    assert corrupt(images, kind, 3, 0).equal(corrupt(images, kind, 3, 0, range(4)))


@pytest.mark.parametrize("kind", ["noise", "rotation"])
def test_draws_differ_by_seed_and_image(kind):
    images = some_images(1, 1, 16, 16).expand(20, -1, -1, -1)
    first, second = corrupt(images, kind, 3, 0), corrupt(images, kind, 3, 1)
    assert not first.equal(second)
    assert len(first.flatten(1).unique(dim=0)) == (20 if kind == "noise" else 2)


def test_draws_differ_by_strength():
    images = torch.full((20, 1, 32, 32), 128, dtype=torch.uint8)
    noises = torch.stack([corrupt(images, "noise", strength, 0).flatten() for strength in (1, 2)]).double()
    assert abs(noises.corrcoef()[0, 1]) < 5 / np.sqrt(images.numel())


def test_noise_has_the_deviation_of_the_table():
    images = torch.full((20, 1, 32, 32), 128, dtype=torch.uint8)
    for strength, deviation in enumerate(STRENGTHS["noise"][:3], 1):  # little is clipped
        noise = corrupt(images, "noise", strength, 0).double() - 128
        assert noise.std() == pytest.approx(255 * deviation, rel=0.03)
        assert abs(noise.mean()) < 4 * 255 * deviation / np.sqrt(images.numel())


def test_noise_is_clipped_not_wrapped():
    for value in (0, 255):
        images = torch.full((5, 1, 16, 16), value, dtype=torch.uint8)
        noisy = corrupt(images, "noise", 5, 0)
        assert 0.4 < (noisy == value).double().mean() < 0.6


@pytest.mark.parametrize(("strength", "deviation"), list(enumerate(STRENGTHS["blur"], 1)))
def test_blur_spreads_a_point_as_a_gaussian(strength, deviation):
    images = torch.zeros(1, 1, 33, 33, dtype=torch.uint8)
    images[..., 16, 16] = 255
    distance = torch.arange(33) - 16
    profile = torch.exp(-(distance**2) / (2 * deviation**2))
    expected = 255 * torch.outer(profile, profile) / profile.sum() ** 2
    assert (corrupt(images, "blur", strength, 0)[0, 0] - expected).abs().max() <= 0.51


@kinds
def test_a_uniform_image(kind):
    images = torch.full((1, 1, 33, 33), 100, dtype=torch.uint8)
    corrupted = corrupt(images, kind, 3, 0)
    if kind == "blur":
        assert corrupted.equal(images)
    if kind == "rotation":  # what stays in view around the centre, and what comes into view at the corners
        assert corrupted[..., 10:23, 10:23].eq(100).all()
        assert corrupted[..., 0, 0] == 0


def test_rotation_turns_by_the_angle_of_the_table():
    """A bright spot right of the centre moves along its circle, up or down."""
    images = torch.zeros(30, 1, 65, 65, dtype=torch.uint8)
    images[:, :, 31:34, 51:54] = 255  # 20 pixels right of the centre (32, 32)
    rows, columns = torch.meshgrid(torch.arange(65.0) - 32, torch.arange(65.0) - 32, indexing="ij")
    for strength, degrees in enumerate(STRENGTHS["rotation"], 1):
        angles = []
        for image in corrupt(images, "rotation", strength, 0)[:, 0].float():
            row, column = ((image * axis).sum() / image.sum() for axis in (rows, columns))
            angles.append(torch.rad2deg(torch.atan2(row, column)).item())
        assert np.abs(angles) == pytest.approx(degrees, abs=0.5)
        assert 5 < sum(angle > 0 for angle in angles) < 25


@pytest.mark.parametrize(
    ("kind", "strength", "message"),
    [
        ("fog", 1, "kind must be one of noise, blur, rotation, got 'fog'"),
        ("noise", 6, "strength must lie between 0 and 5, got 6"),
        ("noise", -1, "strength must lie between 0 and 5, got -1"),
    ],
)
def test_unknown_corruptions(kind, strength, message):
    with pytest.raises(ValueError, match=message):
        corrupt(some_images(1, 1, 8, 8), kind, strength, 0)


def test_one_id_per_image():
    with pytest.raises(ValueError, match="zip"):
        corrupt(some_images(2, 1, 8, 8), "noise", 1, 0, ["a"])

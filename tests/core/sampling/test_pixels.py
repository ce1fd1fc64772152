"""The sample of pixels of many images."""

import pytest
import torch

from uncertainty_core.sampling.pixels import PixelSample


def images(count=6):
    generator = torch.Generator().manual_seed(0)
    for k in range(count):
        labels = torch.randint(0, 3, (5, 7), generator=generator)
        labels[0, :3] = 255
        yield f"image {k}", torch.rand(3, 5, 7, generator=generator).softmax(0), labels


def test_sample_is_the_same_whatever_shards_and_order():
    whole, first, second = (PixelSample(50) for _ in range(3))
    for image in images():
        whole.add(*image)
    for k, image in enumerate(reversed(list(images()))):
        (first if k % 2 else second).add(*image)
    second.merge(first)
    assert torch.equal(whole.probabilities, second.probabilities) and torch.equal(whole.labels, second.labels)
    assert len(whole.labels) == 50 and whole.labels.max() < 3
    for image in images():  # as a sampler repeats images that give each rank as many
        whole.add(*image)
    assert torch.equal(whole.number, second.number) and torch.equal(whole.labels, second.labels)
    other = PixelSample(50, seed=1)
    for image in images():
        other.add(*image)
    assert not torch.equal(whole.probabilities, other.probabilities)


def test_sample_of_all_pixels_but_void():
    sample = PixelSample()
    for image in images(2):
        sample.add(*image)
    assert len(sample.labels) == 2 * (35 - 3)
    expected = sorted(
        row for _, values, labels in images(2) for row in values.flatten(1).T[labels.flatten() < 9].tolist()
    )
    assert sorted(sample.probabilities.tolist()) == expected


def test_sample_errors():
    sample = PixelSample()
    with pytest.raises(ValueError, match="the sample is empty"):
        _ = sample.labels
    sample.add("a", torch.ones(1, 2, 2), torch.full((2, 2), 255))
    with pytest.raises(ValueError, match="the sample is empty"):
        _ = sample.probabilities
    with pytest.raises(ValueError, match=r"labels must have shape \(2, 2\)"):
        sample.add("b", torch.ones(1, 2, 2), torch.zeros(2, 3, dtype=torch.int64))

"""Distributions in 16 bits an entry: what is read back, how far it is off, and what cannot be stored."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from uncertainty_core.targets.top_k import decode_top_k, encode_top_k


def drawn(classes, pixels=50, sharpness=2.0, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return (sharpness * torch.randn(pixels, classes, generator=generator, dtype=torch.float64)).softmax(1)


def kl(p, q):
    return torch.special.xlogy(p, p / q).sum(1)


def test_code_by_hand():
    # the largest are those of the classes 2, 0 and 1. The rest is 0.0244 = (39.8/255)², so 40 with class 2, whose own
    # probability is what the others leave; 0.16 = (102/255)² with class 0, 0.0156 = (31.85/255)², so 32, with class 1.
    probabilities = torch.tensor([[0.16, 0.0156, 0.8, 0.0144, 0.01]])
    codes = encode_top_k(probabilities, 3)
    assert codes.dtype == torch.uint16
    assert codes.int().tolist() == [[256 * 40 + 2, 256 * 102 + 0, 256 * 32 + 1]]
    small, rest = (32 / 255) ** 2, (40 / 255) ** 2
    expected = torch.tensor([[0.16, small, 1 - 0.16 - small - rest, rest / 2, rest / 2]])
    torch.testing.assert_close(decode_top_k(codes, 5), expected)


@given(st.integers(1, 256), st.integers(1, 6), st.sampled_from([0, 0.5, 2, 8]), st.integers(0, 2**31))
def test_the_kl_error_is_that_of_spreading_the_rest(classes, k, sharpness, seed):
    p = drawn(classes, 8, sharpness, seed)
    codes = encode_top_k(p, k)
    q = decode_top_k(codes, classes).double()
    assert codes.shape == (8, min(k, classes)) and (codes.int() >= 256).all()
    torch.testing.assert_close(q.sum(1), torch.ones(8).double(), atol=1e-6, rtol=0)
    assert (q >= 0).all()
    top = p.topk(min(k, classes), 1)
    spread = (1 - top.values.sum(1, keepdim=True)).clamp(min=1e-12) / max(classes - k, 1)
    even = spread.expand_as(p).scatter(1, top.indices, top.values)
    # 7.7e-6 for each amount, and as much again for the largest, which is what they leave; all of them times its share
    assert (kl(p, q) - kl(p, even)).max() < 1e-3
    if classes <= k:
        assert (p - q).abs().max() < 0.015


def test_all_classes_of_a_network_that_is_sure_are_kept():
    p = torch.tensor([[1 - 3e-7, 1e-7, 1e-7, 1e-7]], dtype=torch.float64)
    q = decode_top_k(encode_top_k(p, 2), 4).double()
    # nothing is 0, whose KL would be infinite
    assert (q > 0).all() and kl(p, q).item() < 2 * (1 / 255) ** 2


def test_maps_of_pixels():
    p = drawn(7, 12).T.reshape(1, 7, 3, 4)
    q = decode_top_k(encode_top_k(p, 3), 7)
    alone = decode_top_k(encode_top_k(p[:, :, 1, 2], 3), 7)
    assert q.shape == p.shape and q.dtype == torch.float32
    torch.testing.assert_close(q[:, :, 1, 2], alone)


def test_what_cannot_be_stored():
    with pytest.raises(ValueError, match="top-k codes hold 256 classes, got 257"):
        encode_top_k(drawn(257), 3)
    with pytest.raises(ValueError, match="k must be an integer >= 1, got 0"):
        encode_top_k(drawn(4), 0)
    with pytest.raises(ValueError, match="are these logits"):
        encode_top_k(3 * drawn(4), 3)

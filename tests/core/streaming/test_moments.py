"""RunningMoments against numpy, and what it keeps in memory."""

import weakref

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from uncertainty_core.streaming.moments import RunningMoments


def fed(samples):
    moments = RunningMoments()
    for sample in samples:
        moments.update(torch.as_tensor(sample))
    return moments


def streams(dtype, largest):
    """Arrays (M, ...) of 2 to 6 samples."""
    elements = st.floats(-largest, largest, width=np.dtype(dtype).itemsize * 8)
    shapes = array_shapes(min_dims=1, max_dims=3, max_side=3)
    return st.tuples(st.integers(2, 6), shapes).flatmap(lambda s: arrays(dtype, (s[0], *s[1]), elements=elements))


@given(samples=streams(np.float64, 1e3), ddof=st.sampled_from([0, 1]))
def test_equals_numpy_in_float64(samples, ddof):
    moments = fed(samples)
    np.testing.assert_allclose(moments.mean, samples.mean(0), rtol=1e-12, atol=1e-9)
    np.testing.assert_allclose(moments.std(ddof), samples.std(0, ddof=ddof), rtol=1e-9, atol=1e-9)


@given(samples=streams(np.float32, 1), ddof=st.sampled_from([0, 1]))
def test_equals_numpy_in_float32(samples, ddof):
    moments = fed(samples)
    wide = samples.astype(np.float64)
    assert moments.mean.dtype == moments.std(ddof).dtype == torch.float32
    np.testing.assert_allclose(moments.mean, wide.mean(0), atol=1e-6)
    # Deviations are exact to about 1e-7 each and are divided by at least 1.
    np.testing.assert_allclose(moments.std(ddof), wide.std(0, ddof=ddof), atol=2e-6)


@pytest.mark.parametrize("ddof", [0, 1])
def test_a_huge_offset_does_not_cancel(ddof):
    # At 1e6 float32 has steps of 1/16, so these values are exact; mean(x²) - mean(x)² would have steps of 65536.
    small = np.random.default_rng(0).integers(-40, 40, (50, 20)).astype(np.float64)
    moments = fed((1e6 + small).astype(np.float32))
    np.testing.assert_allclose(moments.std(ddof), small.std(0, ddof=ddof), rtol=2e-3)
    np.testing.assert_allclose(moments.mean.double(), 1e6 + small.mean(0), atol=1)


@given(offset=st.integers(-(10**6), 10**6), small=st.lists(st.integers(-64, 64), min_size=2, max_size=12))
def test_an_offset_leaves_the_deviation_alone(offset, small):
    shifted = fed(np.float32(offset) + np.array(small, np.float32)[:, None])
    assert shifted.std().item() == pytest.approx(np.std(small), abs=0.1)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_summed_in_float32(dtype):
    # In float16 itself 2049 ones and more would stop at 2048, and 300² would overflow.
    samples = torch.tensor([300.0, -300.0, 300.0, 1.0], dtype=dtype).unsqueeze(1)
    moments = fed(samples)
    assert moments.mean.dtype == moments.std().dtype == torch.float32
    np.testing.assert_allclose(moments.mean, samples.double().numpy().mean(0), rtol=1e-6)
    np.testing.assert_allclose(moments.std(), samples.double().numpy().std(0), rtol=1e-6)


def test_integers_are_averaged_as_floats():
    moments = fed([torch.tensor([1, 5]), torch.tensor([2, 5])])
    assert moments.mean.tolist() == [1.5, 5]
    assert moments.std().tolist() == [0.5, 0]


def test_equal_samples_deviate_by_exactly_zero():
    assert (fed([torch.full((3,), 0.1)] * 7).std(1) == 0).all()


def test_scalars_and_empty_tensors_work():
    assert fed([torch.tensor(1.0), torch.tensor(3.0)]).std(0).item() == 1
    assert fed([torch.zeros(0, 3), torch.zeros(0, 3)]).std(1).shape == (0, 3)


def test_one_sample_is_its_own_mean_without_deviation():
    moments = fed([torch.tensor([2.0, -1.0])])
    assert moments.mean.tolist() == [2, -1]
    assert moments.std(0).tolist() == [0, 0]
    assert moments.count == 1


@pytest.mark.parametrize(("count", "ddof"), [(0, 0), (0, 1), (1, 1), (2, 2), (2, 5)])
def test_too_few_samples_for_ddof_are_refused(count, ddof):
    with pytest.raises(ValueError, match=f"ddof={ddof} needs more than {ddof} samples, got {count}"):
        fed([torch.zeros(2)] * count).std(ddof)


def test_no_sample_has_no_mean():
    with pytest.raises(ValueError, match="update was never called"):
        _ = RunningMoments().mean


@pytest.mark.parametrize("shape", [(3,), (1,), (2, 1), ()])  # some would broadcast
def test_another_shape_is_refused(shape):
    with pytest.raises(ValueError, match="values must have shape"):
        fed([torch.zeros(2), torch.zeros(shape)])


def test_a_refused_sample_leaves_no_trace():
    moments = fed([torch.tensor([1.0]), torch.tensor([3.0])])
    with pytest.raises(ValueError, match="values must have shape"):
        moments.update(torch.zeros(2))
    assert moments.count == 2
    assert moments.std(0).item() == 1


def test_fed_tensors_are_neither_kept_nor_changed():
    moments, died = RunningMoments(), []
    for value in range(5):
        sample = torch.full((4,), float(value))
        moments.update(sample)
        assert (sample == value).all()
        sample.fill_(1e9)  # were its memory kept, this would show
        died.append(weakref.ref(sample))
        del sample
        assert all(ref() is None for ref in died)
    assert moments.mean.tolist() == [2] * 4


def test_memory_does_not_grow_with_the_stream():
    def kept(moments):
        assert all(isinstance(value, int | torch.Tensor) for value in vars(moments).values())
        return [value.shape for value in vars(moments).values() if isinstance(value, torch.Tensor)]

    assert kept(fed(torch.ones(1, 4))) == kept(fed(torch.ones(100, 4))) == [(4,), (4,)]


def test_no_graph_is_kept():
    moments = fed(torch.ones(3, 2, requires_grad=True).unbind())
    assert not moments.mean.requires_grad
    assert not moments.std().requires_grad


def test_a_mean_taken_earlier_stays_as_it_was():
    moments = fed([torch.zeros(2)])
    earlier = moments.mean
    moments.update(torch.ones(2))
    assert earlier.tolist() == [0, 0]

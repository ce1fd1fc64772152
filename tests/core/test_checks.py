"""Bad input is a ValueError that names the argument, the place and the value."""

import math
import re

import numpy
import pytest
import torch

from uncertainty_core.checks import (
    check_distribution,
    check_labels,
    check_positive_int,
    check_same_shape,
    check_unit_interval,
    warn_undefined,
)

NAN = math.nan


def refuses(message, check, *arguments):
    with pytest.raises(ValueError, match=re.escape(message)):
        check(*arguments)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_the_unit_interval_includes_its_ends(dtype):
    check_unit_interval("x", torch.tensor([0.0, -0.0, 0.5, 1.0], dtype=dtype))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([0.5, 1.5, 2.0], "x must lie in [0, 1], but x[1] is 1.5"),
        ([0.5, 0.5, -0.25], "x must lie in [0, 1], but x[2] is -0.25"),
        ([0.5, NAN, 7.0], "x must be finite, but x[1] is nan"),
        ([math.inf, NAN], "x must be finite, but x[0] is inf; find out what made the network diverge"),
        ([[0.0, 1.0], [0.5, -1.0]], "x must lie in [0, 1], but x[1, 1] is -1.0"),
        (3.0, "x must lie in [0, 1], but x is 3.0"),
        ([1.0 + 2**-23], "x must lie in [0, 1], but x[0] is 1.0000001"),
    ],
)
def test_the_first_value_outside_the_unit_interval_is_named(values, message):
    refuses(message, check_unit_interval, "x", torch.tensor(values))


@pytest.mark.parametrize("dtype", [torch.int64, torch.bool, torch.complex64])
def test_probabilities_are_floating_point(dtype):
    refuses(f"x must be floating point, got {dtype}", check_unit_interval, "x", torch.zeros(2, dtype=dtype))


def test_no_values_are_no_bad_values():
    check_unit_interval("x", torch.zeros(0))
    check_distribution("x", torch.zeros(0, 3))
    check_distribution("x", torch.zeros(2, 3, 0))
    check_labels("x", torch.zeros(0, dtype=torch.int64), 3)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([[0.5, 0.5], [2.0, -1.0]], "p must lie in [0, 1], but p[1, 0] is 2.0; are these logits? apply softmax first"),
        ([[0.5, 0.5], [0.5, 0.25]], "p must sum to 1 over dimension 1, but p[1, :] sums to 0.75; are these logits?"),
        ([[NAN, 0.5]], "p must be finite, but p[0, 0] is nan"),
        ([[[0.5, 0.5], [0.5, 1.0]]], "p must sum to 1 over dimension 1, but p[0, :, 1] sums to 1.5"),
        ([0.5, 0.5], "p must have shape (N, C, ...) with C >= 1, got (2,)"),
        ([[], []], "p must have shape (N, C, ...) with C >= 1, got (2, 0)"),
    ],
)
def test_what_is_no_distribution_is_refused(values, message):
    refuses(message, check_distribution, "p", torch.tensor(values))


@pytest.mark.parametrize(
    ("check", "arguments"),
    [
        (check_unit_interval, ()),
        (check_distribution, ()),
        (check_labels, (3,)),
        (check_same_shape, ("y", torch.zeros(2))),
    ],
)
def test_arrays_and_lists_are_no_tensors(check, arguments):
    for values, kind in ((numpy.zeros(2), "numpy.ndarray"), ([0.0, 0.0], "list")):
        message = f"x must be a tensor, got {kind}; torch.as_tensor(x) makes one of it"
        with pytest.raises(TypeError, match=re.escape(message)):
            check("x", values, *arguments)


def test_what_is_not_finite_is_not_taken_for_logits():
    with pytest.raises(ValueError, match=r"p\[0, 1\] is nan; find out") as error:
        check_distribution("p", torch.tensor([[7.0, NAN]]))
    assert "softmax" not in str(error.value)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("num_classes", [2, 19, 150, 1000])
def test_half_precision_softmax_is_a_distribution(dtype, num_classes):
    logits = torch.randn(200, num_classes, generator=torch.Generator().manual_seed(0)) * 4
    check_distribution("p", logits.to(dtype).softmax(1))
    check_distribution("p", logits.softmax(1).to(dtype))


@pytest.mark.parametrize(
    ("labels", "ignore_index", "message"),
    [
        ([0, 3, 5], None, "y must lie in [0, 3), but y[1] is 3"),
        ([0, -1], None, "y must lie in [0, 3), but y[1] is -1"),
        ([[0, 1], [255, 4]], 255, "y must lie in [0, 3) or be 255 (ignored), but y[1, 1] is 4"),
        ([255], -100, "y must lie in [0, 3) or be -100 (ignored), but y[0] is 255"),
    ],
)
def test_the_first_label_out_of_range_is_named(labels, ignore_index, message):
    refuses(message, check_labels, "y", torch.tensor(labels), 3, ignore_index)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64])
def test_labels_may_have_any_integer_type(dtype):
    check_labels("y", torch.tensor([0, 2, 1], dtype=dtype), 3)
    check_labels("y", torch.tensor([0, 2, 127], dtype=dtype), 3, 127)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.complex64])
def test_labels_are_integers(dtype):
    refuses(f"y must be integers, got {dtype}", check_labels, "y", torch.zeros(2, dtype=dtype), 3)


@pytest.mark.parametrize(("dtype", "num_classes"), [(torch.uint8, 256), (torch.uint8, 1000), (torch.int8, 200)])
def test_more_classes_than_the_label_type_can_count_are_fine(dtype, num_classes):
    check_labels("y", torch.tensor([0, 100, torch.iinfo(dtype).max], dtype=dtype), num_classes)


def test_an_ignored_label_that_the_type_cannot_hold_does_not_wrap_around():
    # -1 as an unsigned byte is 255, a label that nobody asked to ignore
    labels = torch.tensor([1, 255], dtype=torch.uint8)
    refuses("y must lie in [0, 2) or be -1 (ignored), but y[1] is 255", check_labels, "y", labels, 2, -1)


def test_different_shapes_are_refused():
    check_same_shape("a", torch.zeros(2, 3), "b", torch.zeros(2, 3))
    refuses(
        "a and b must have the same shape, got (2,) and (2, 1)",
        check_same_shape,
        *("a", torch.zeros(2), "b", torch.zeros(2, 1)),
    )


@pytest.mark.parametrize("value", [0, -1, 1.0, True, "3", None])
def test_a_number_of_things_is_a_positive_integer(value):
    check_positive_int("num_bins", 1)
    refuses(f"num_bins must be an integer >= 1, got {value!r}", check_positive_int, "num_bins", value)


def test_undefined_is_a_runtime_warning():
    with pytest.warns(RuntimeWarning, match="^ECE is NaN: there are no samples$"):
        warn_undefined("ECE", "there are no samples")

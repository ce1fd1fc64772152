"""What every metric asks of its input. Nothing is clipped or guessed: bad input is a ValueError that names it."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:  # settings are checked where no torch is needed
    from torch import Tensor

Edges = Literal["right", "left"]

# Softmax in half precision misses a sum of 1 by up to half a percent; logits miss it by far more.
SUM_TOLERANCE = 1e-2


def _first(bad: Tensor) -> tuple[int, ...]:
    return tuple(bad.nonzero()[0].tolist())


def _at(name: str, index: tuple[int, ...]) -> str:
    return f"{name}[{', '.join(map(str, index))}]" if index else name


def check_tensor(name: str, values: Tensor) -> None:
    """Raise TypeError unless `values` are a tensor, with the way to make one."""
    import torch

    if not isinstance(values, torch.Tensor):
        kind = type(values)
        module = "" if kind.__module__ == "builtins" else f"{kind.__module__}."
        raise TypeError(
            f"{name} must be a tensor, got {module}{kind.__qualname__}; torch.as_tensor({name}) makes one of it"
        )


def check_unit_interval(name: str, values: Tensor) -> None:
    """Raise ValueError unless all `values` (any shape, floating point) lie in [0, 1]; NaN does not."""
    check_tensor(name, values)
    if not values.is_floating_point():
        raise ValueError(f"{name} must be floating point, got {values.dtype}")
    if values.numel() == 0:
        return
    low, high = values.detach().aminmax()  # both NaN when any value is
    if low >= 0 and high <= 1:
        return
    if not values.isfinite().all():
        index = _first(~values.isfinite())
        raise ValueError(
            f"{name} must be finite, but {_at(name, index)} is {values[index].item()}; find out what made the network "
            "diverge, or overflow in half precision"
        )
    index = _first((values < 0) | (values > 1))
    raise ValueError(f"{name} must lie in [0, 1], but {_at(name, index)} is {values[index].item()}")


def check_distribution(name: str, probabilities: Tensor) -> None:
    """Raise ValueError unless `probabilities` (N, C, ...) are distributions over dimension 1."""
    check_tensor(name, probabilities)
    if probabilities.dim() < 2 or probabilities.shape[1] == 0:
        raise ValueError(f"{name} must have shape (N, C, ...) with C >= 1, got {tuple(probabilities.shape)}")
    try:
        check_unit_interval(name, probabilities)
    except ValueError as error:
        advice = "; are these logits? apply softmax first" if "must lie in" in str(error) else ""
        raise ValueError(f"{error}{advice}") from None
    if probabilities.numel() == 0:
        return
    import torch

    sums = probabilities.sum(1, dtype=torch.promote_types(probabilities.dtype, torch.float32))
    off = (sums - 1).abs() > SUM_TOLERANCE
    if off.any():
        index = _first(off)
        where = _at(name, (index[0], ":", *index[1:]))
        raise ValueError(
            f"{name} must sum to 1 over dimension 1, but {where} sums to {sums[index].item():.6g}; "
            "are these logits? apply softmax first"
        )


def check_labels(name: str, labels: Tensor, num_classes: int, ignore_index: int | None = None) -> None:
    """Raise ValueError unless integer `labels` (any shape) lie in [0, num_classes) or equal `ignore_index`."""
    check_tensor(name, labels)
    if labels.is_floating_point() or labels.is_complex():
        raise ValueError(f"{name} must be integers, got {labels.dtype}")
    if labels.numel() == 0:
        return
    labels = labels.long()  # a byte compared with -1 or 256 would wrap around
    bad = (labels < 0) | (labels >= num_classes)
    if ignore_index is not None:
        bad &= labels != ignore_index
    if bad.any():
        index = _first(bad)
        ignored = "" if ignore_index is None else f" or be {ignore_index} (ignored)"
        raise ValueError(
            f"{name} must lie in [0, {num_classes}){ignored}, but {_at(name, index)} is {labels[index].item()}"
        )


def check_same_shape(name: str, values: Tensor, other_name: str, other: Tensor) -> None:
    """Raise ValueError unless both tensors have the same shape."""
    check_tensor(name, values)
    check_tensor(other_name, other)
    if values.shape != other.shape:
        raise ValueError(
            f"{name} and {other_name} must have the same shape, got {tuple(values.shape)} and {tuple(other.shape)}"
        )


def check_label_shape(predictions: Tensor, labels: Tensor, name: str = "probabilities") -> None:
    """Raise ValueError unless `labels` are (N, ...) for `predictions` (N, C, ...), which are called `name`."""
    expected = predictions.shape[:1] + predictions.shape[2:]
    if labels.shape != expected:
        raise ValueError(
            f"labels must have shape {tuple(expected)} to go with {name} "
            f"{tuple(predictions.shape)}, got {tuple(labels.shape)}"
        )


def check_mask(mask: Tensor) -> None:
    """Raise ValueError unless `mask` is bool."""
    import torch

    if mask.dtype != torch.bool:
        raise ValueError(f"mask must be bool, got {mask.dtype}")


def check_positive_int(name: str, value: int) -> None:
    """Raise ValueError unless `value` is an int >= 1."""
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise ValueError(f"{name} must be an integer >= 1, got {value!r}")


def check_edges(edges: str) -> None:
    """Raise ValueError unless `edges` is one of the two rules."""
    if edges not in ("right", "left"):
        raise ValueError(f"edges must be 'right' or 'left', got {edges!r}")


def warn_undefined(what: str, why: str) -> None:
    """Warn that a metric is NaN, once per place as warnings are."""
    warnings.warn(f"{what} is NaN: {why}", RuntimeWarning, stacklevel=3)

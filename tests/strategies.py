"""What the property tests draw: inputs of the metrics, rich in the values where implementations differ."""

from typing import NamedTuple

import torch
from hypothesis import strategies as st
from torch import Tensor

DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
EDGES = ("right", "left")

dtypes = st.sampled_from(DTYPES)
edge_rules = st.sampled_from(EDGES)
bin_numbers = st.sampled_from([1, 2, 3, 10, 15, 1000]) | st.integers(1, 1000)


def unit_values(num_bins: int) -> st.SearchStrategy[float]:
    """Numbers in [0, 1] that often lie exactly on an edge k/K, on 0 or on 1."""
    return st.integers(0, num_bins).map(lambda k: k / num_bins) | st.floats(0, 1) | st.sampled_from([0.0, 1.0])


class Binned(NamedTuple):
    """Arguments of `bin_sums`: confidence and success (N,)."""

    confidence: Tensor
    success: Tensor
    num_bins: int
    edges: str


@st.composite
def binned(draw, min_size: int = 0) -> Binned:
    """Confidences of any dtype with boolean or partial success."""
    num_bins = draw(bin_numbers)
    confidence = draw(st.lists(unit_values(num_bins), min_size=min_size, max_size=30))
    size = {"min_size": len(confidence), "max_size": len(confidence)}
    if draw(st.booleans()):
        success = torch.tensor(draw(st.lists(st.booleans(), **size)), dtype=torch.bool)
    else:
        success = torch.tensor(draw(st.lists(unit_values(num_bins), **size)), dtype=draw(dtypes))
    return Binned(torch.tensor(confidence, dtype=draw(dtypes)), success, num_bins, draw(edge_rules))


class Predicted(NamedTuple):
    """probabilities (N, C) and labels (N,)."""

    probabilities: Tensor
    labels: Tensor


@st.composite
def predicted(draw, min_size: int = 0, max_classes: int = 6) -> Predicted:
    """Rows of w / sum(w) for small integers w: exact zeros and ones, ties, and values on the edges of the bins."""
    num_classes = draw(st.integers(1, max_classes))
    weights = st.lists(st.integers(0, 10), min_size=num_classes, max_size=num_classes).filter(any)
    rows = draw(st.lists(weights, min_size=min_size, max_size=12))
    labels = draw(st.lists(st.integers(0, num_classes - 1), min_size=len(rows), max_size=len(rows)))
    probabilities = torch.tensor([[w / sum(row) for w in row] for row in rows], dtype=torch.float64)
    return Predicted(
        probabilities.view(len(rows), num_classes).to(draw(dtypes)), torch.tensor(labels, dtype=torch.int64)
    )


class Ranked(NamedTuple):
    """uncertainty (N,) in [0, 1] and event (N,)."""

    uncertainty: Tensor
    event: Tensor


@st.composite
def ranked(draw, min_size: int = 0) -> Ranked:
    """Uncertainties with many ties."""
    uncertainty = draw(st.lists(unit_values(draw(st.sampled_from([3, 10, 100]))), min_size=min_size, max_size=25))
    event = draw(st.lists(st.booleans(), min_size=len(uncertainty), max_size=len(uncertainty)))
    return Ranked(torch.tensor(uncertainty, dtype=draw(dtypes)), torch.tensor(event, dtype=torch.bool))

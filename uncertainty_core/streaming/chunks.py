"""Large inputs cut into parts whose temporaries fit the cache: chunks of labels, pieces of predictions.

Shapes: N samples, C classes, `...` any dimensions, n x m samples of a piece.
"""

from collections.abc import Iterator

import torch
from torch import Tensor

from ..checks import check_labels

_UNSIGNED = (torch.uint16, torch.uint32, torch.uint64)  # of which torch knows no extremes
CHUNK = 2**17  # samples or pixels: enough to amortise a call, and their temporaries fit the cache
PIECE = 2**18  # predictions whose temporaries fit the cache


def chunk_length(values: Tensor) -> int:
    """How many of `values` to count at a time; on a GPU more, to launch less."""
    return 2**6 * CHUNK if values.is_cuda else CHUNK


def split_void(
    part: Tensor, name: str, labels: Tensor, num_classes: int, ignore_index: int | None
) -> tuple[Tensor, Tensor | None]:
    """`part` with some class for void labels, and where those are; None for nowhere.

    Raises ValueError for a label that is neither in [0, C) nor `ignore_index`.

    Args:
        part: of the `labels` that are called `name` and of which the error tells the place.
        name, labels, num_classes, ignore_index: as `check_labels`.
    """
    if part.numel() == 0:
        return part, None
    if part.dtype in _UNSIGNED:
        part = part.long()
    lowest, highest = (value.item() for value in part.aminmax())
    if lowest >= 0 and highest < num_classes and (ignore_index is None or not lowest <= ignore_index <= highest):
        return part, None
    if lowest >= -(2**31) and highest < 2**31:  # half the time; and a byte compared with -1 or 256 would wrap around
        part = part.int()
    void = None if ignore_index is None else part == ignore_index
    known = part if void is None else part.masked_fill(void, 0)
    lowest, highest = known.aminmax()
    if lowest < 0 or highest >= num_classes:
        check_labels(name, labels, num_classes, ignore_index)
    return known, void


def class_cells(name: str, labels: Tensor, num_classes: int, ignore_index: int | None = None) -> Iterator[Tensor]:
    """Chunks of the flattened `labels` (...) as int32, with C for void ones. See `split_void`."""
    if labels.is_floating_point() or labels.is_complex():
        check_labels(name, labels, num_classes)
    for chunk in labels.flatten().split(chunk_length(labels)):
        known, void = split_void(chunk, name, labels, num_classes, ignore_index)
        cell = known.int()
        yield cell if void is None else cell.masked_fill(void, num_classes)


def pieces(predictions: Tensor, *labels: Tensor, length: int | None = None) -> Iterator[tuple[Tensor, ...]]:
    """Cut `predictions` (N, C, ...) and each of `labels` (N, ...) into views (n, C, m) and (n, m).

    A piece has `length` samples, or about `PIECE` numbers in its predictions; on a GPU more, to launch less.
    """
    if predictions.numel() == 0:
        return
    if length is None:
        length = max(1, (2**6 * PIECE if predictions.is_cuda else PIECE) // predictions.shape[1])
    if predictions.dim() == 2:  # rows are contiguous
        for piece, *rest in zip(*(values.split(length) for values in (predictions, *labels)), strict=True):
            yield piece.unsqueeze(2), *(values.unsqueeze(1) for values in rest)
    else:  # classes are planes
        for image in zip(predictions.flatten(2), *(values.flatten(1) for values in labels), strict=True):
            for piece in zip(*(values.split(length, dim=-1) for values in image), strict=True):
                yield tuple(values.unsqueeze(0) for values in piece)

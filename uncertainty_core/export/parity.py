"""Files that are tried when they are written: does their runtime compute from them what the network computes?"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from .graph import IMAGE, ExportError, Graph, write_onnx, write_torchscript

TOLERANCE = 1e-4  # of probabilities and uncertainties, of boxes by their largest coordinate, of the share of integers


class Format(NamedTuple):
    """A kind of file.

    suffix: of its name.
    runtime: what computes from it.
    write: a graph to a path.
    run: all outputs that the file at a path gives for an image.
    """

    suffix: str
    runtime: str
    write: Callable[[Graph, Path], None]
    run: Callable[[Path, Tensor], Sequence[np.ndarray]]


class Written(NamedTuple):
    """A file that was tried.

    path: where it is.
    graph: what is in it.
    difference: the greatest one of each output, see `difference`.
    one_size: why it takes images of one size alone; None where it takes any.
    """

    path: Path
    graph: Graph
    difference: dict[str, float]
    one_size: str | None


def write_tried(kind: Format, make: Callable[[bool], Graph], folder: Path, other: Tensor) -> Written:
    """Write a file "model" for images of any size; where its format or the network cannot have that, of one size.

    Args:
        kind: of the file.
        make: gives the graph, for images of any size or not.
        folder: for the file.
        other: an image of another size than the one that the graph is traced on, to try it.
    """
    path = folder / f"model{kind.suffix}"
    try:
        graph = make(True)
        kind.write(graph, path)
        found = difference(kind, graph, path, _several(graph, other))
        if max(found.values()) <= TOLERANCE:
            return Written(path, graph, found, None)
        reason = "the network fixes the size of its feature maps when it is traced"
        path.unlink()
    except ExportError as error:
        reason = str(error)
    graph = make(False)
    kind.write(graph, path)
    found = difference(kind, graph, path, _several(graph, graph.example))
    if max(found.values()) > TOLERANCE:
        path.unlink()
        raise ExportError(f"{kind.runtime} computes something else than the network: the outputs differ by {found}")
    return Written(path, graph, found, reason)


def difference(kind: Format, graph: Graph, path: Path, image: Tensor) -> dict[str, float]:
    """The greatest difference of each output between the network and its file; of integers the share that differs.

    Relative to the largest number, where that is above 1, as of boxes in pixels. Infinity where the network or the file
    cannot take the image, an output has another shape, or something in it is no number.

    Args:
        kind: of the file.
        graph: that was written.
        path: of the file.
        image: what both are shown.
    """
    names = list(graph.description.outputs)
    try:
        with torch.no_grad():
            expected = graph.module(image)
        found = kind.run(path, image)
    except Exception:  # of the runtime, whose classes it alone knows, or of a network that takes one size alone
        return dict.fromkeys(names, float("inf"))
    return {name: _difference(x.numpy(), y) for name, x, y in zip(names, expected, found, strict=True)}


def _several(graph: Graph, image: Tensor) -> Tensor:
    """Two different images where the file is to take any number, else the one."""
    return torch.cat((image, image.flip(1))) if 0 in graph.axes.get(IMAGE, {}) else image


def _run_onnx(path: Path, image: Tensor) -> list[np.ndarray]:
    import onnxruntime

    session = onnxruntime.InferenceSession(path.read_bytes(), providers=["CPUExecutionProvider"])
    return session.run(None, {IMAGE: image.numpy()})


def _run_torchscript(path: Path, image: Tensor) -> list[np.ndarray]:
    with torch.no_grad():
        return [values.numpy() for values in torch.jit.load(path)(image)]


ONNX = Format(".onnx", "onnxruntime", write_onnx, _run_onnx)
TORCHSCRIPT = Format(".ts", "TorchScript", write_torchscript, _run_torchscript)


def noise(height: int, width: int, channels: int = 3) -> Tensor:
    """An image to try a graph on, uint8 (1, H, W, channels), every time the same."""
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (1, height, width, channels), dtype=torch.uint8, generator=generator)


def _difference(expected: np.ndarray, found: np.ndarray) -> float:
    if expected.shape != found.shape:
        return float("inf")
    if expected.dtype.kind != "f":
        return float((expected != found).mean()) if expected.size else 0.0
    scale = max(1.0, float(np.nan_to_num(np.abs(expected)).max(initial=0)))
    with np.errstate(invalid="ignore"):
        apart = np.where(expected == found, 0, np.abs(expected - found) / scale)
    return float(np.where(np.isnan(apart), np.inf, apart).max(initial=0))

"""Files that are tried when they are written: does onnxruntime compute from them what torch computes?"""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from .graph import IMAGE, ExportError, Graph, write_onnx

TOLERANCE = 1e-4  # of probabilities and uncertainties, and of the share of integers that differ


class Written(NamedTuple):
    """An ONNX file that was tried.

    graph: what is in it.
    difference: the greatest one of each output, see `onnx_difference`.
    one_size: why it takes images of one size alone; None where it takes any.
    """

    graph: Graph
    difference: dict[str, float]
    one_size: str | None


def write_tried(make: Callable[[bool], Graph], path: Path, other: Tensor) -> Written:
    """Write an ONNX file for images of any size; where ONNX or the network cannot have that, of one size.

    Args:
        make: gives the graph, for images of any size or not.
        path: of the file.
        other: an image of another size than the one that the graph is traced on, to try it.
    """
    try:
        graph = make(True)
        write_onnx(graph, path)
        difference = onnx_difference(graph, path, other)
        if max(difference.values()) <= TOLERANCE:
            return Written(graph, difference, None)
        reason = "the network fixes the size of its feature maps when it is traced"
    except ExportError as error:
        reason = str(error)
    graph = make(False)
    write_onnx(graph, path)
    difference = onnx_difference(graph, path, graph.example)
    if max(difference.values()) > TOLERANCE:
        path.unlink()
        raise ExportError(f"onnxruntime computes something else than torch: the outputs differ by {difference}")
    return Written(graph, difference, reason)


def onnx_difference(graph: Graph, path: Path, image: Tensor) -> dict[str, float]:
    """The greatest difference of each output between torch and onnxruntime; of integers the share that differs.

    Infinity where onnxruntime cannot take the image, or its output has another shape.

    Args:
        graph: that was written.
        path: of the ONNX file.
        image: what both are shown.
    """
    import onnxruntime

    names = list(graph.description.outputs)
    session = onnxruntime.InferenceSession(path.read_bytes(), providers=["CPUExecutionProvider"])
    with torch.no_grad():
        expected = graph.module(image)
    try:
        found = session.run(names, {IMAGE: image.numpy()})
    except Exception:  # whose classes are known to onnxruntime alone
        return dict.fromkeys(names, float("inf"))
    return {name: _difference(x.numpy(), y) for name, x, y in zip(names, expected, found, strict=True)}


def noise(height: int, width: int, channels: int = 3) -> Tensor:
    """An image to try a graph on, uint8 (1, H, W, channels), every time the same."""
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (1, height, width, channels), dtype=torch.uint8, generator=generator)


def _difference(expected: np.ndarray, found: np.ndarray) -> float:
    if expected.shape != found.shape:
        return float("inf")
    if expected.dtype.kind != "f":
        return float((expected != found).mean()) if expected.size else 0.0
    return float(np.abs(expected - found).max(initial=0))

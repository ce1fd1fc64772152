"""Networks as ONNX and TorchScript files.

What is written takes an image as it is read, bytes (B, H, W, 3) in RGB, and returns tensors by name: the normalisation
of pixels, the network and its calibrators are one graph.
"""

import io
import re
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook

from ..errors import UserError
from ..io.files import open_atomically, write_atomically
from ..io.strict_json import strict_json
from .description import Description

OPSET = 17  # of ONNX; onnxruntime reads it since version 1.12
IMAGE = "image"  # the input's name


class ExportError(UserError):
    """A network with a part that the format lacks; the message is one sentence that names it."""


@dataclass(frozen=True, eq=False)
class Graph:
    """What is to be written.

    module: from `example` to a tuple of tensors, in the order of `description.outputs`.
    example: an image that the module is traced on, uint8 (B, H, W, 3).
    axes: of the image and each output the names of those dimensions that may have another size.
    description: what the file tells about itself.
    """

    module: nn.Module
    example: Tensor
    axes: Mapping[str, Mapping[int, str]]
    description: Description


def write_onnx(graph: Graph, path: Path) -> None:
    """Write an ONNX file with the description as its metadata."""
    try:
        import onnx
        import onnxruntime  # noqa: F401 (what the file is tried with)
    except ImportError:
        raise UserError("ONNX is written by two more packages: pip install onnx onnxruntime") from None
    buffer = io.BytesIO()
    with _tracing(graph):
        torch.onnx.export(
            graph.module,
            (graph.example,),
            buffer,
            dynamo=False,  # the newer exporter knows no NMS, and takes a branch on a size for a rule
            opset_version=OPSET,
            input_names=[IMAGE],
            output_names=list(graph.description.outputs),
            dynamic_axes={name: dict(axes) for name, axes in graph.axes.items() if axes},
        )
    model = onnx.load_from_string(buffer.getvalue())
    onnx.helper.set_model_props(model, graph.description.metadata())
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, model.SerializeToString())


def write_torchscript(graph: Graph, path: Path) -> None:
    """Write a TorchScript file with the description as its extra file metadata.json."""
    with _tracing(graph):
        traced = torch.jit.trace(graph.module, graph.example, check_trace=False)
    path.parent.mkdir(parents=True, exist_ok=True)
    with open_atomically(path) as file:
        torch.jit.save(traced, file, {"metadata.json": strict_json(graph.description.metadata())})


@contextmanager
def _tracing(graph: Graph) -> Iterator[None]:
    """Errors become an ExportError with the name of the module; warnings of the tracer are left out."""
    entered: list[nn.Module] = []
    handles = (
        register_module_forward_pre_hook(lambda module, _: entered.append(module)),
        register_module_forward_hook(lambda *_: (entered.pop(), None)[1]),  # an empty Sequential is falsy
    )
    try:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")
            graph.module(graph.example)  # what a network makes on first use is not to be part of the graph
            yield
    except torch.onnx.errors.OnnxExporterError as error:
        raise ExportError(
            f"{_where(graph, str(error))} cannot be exported to ONNX {OPSET}: {_first_sentence(error)}"
        ) from error
    except (RuntimeError, TypeError, ValueError, NotImplementedError) as error:
        inner = [name for name, module in graph.module.named_modules() if entered and module is entered[-1]]
        name = _named(graph.module, inner[0] if inner else "")
        raise ExportError(f"{name} cannot be traced: {_first_sentence(error)}") from error
    finally:
        for handle in handles:
            handle.remove()


def _where(graph: Graph, message: str) -> str:
    """The module that an error is about, as "decode_head.pool (AdaptiveAvgPool2d)"."""
    return _named(graph.module, _calling(graph, message) or _before(graph.module, message) or "")


def _calling(graph: Graph, message: str) -> str | None:
    """The first module that calls the operator which the message names."""
    operator = re.search(r"operator '?(?:aten::)?(\w+)", message)
    if operator is None:
        return None
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        nodes = torch.jit.trace(graph.module, graph.example, check_trace=False).inlined_graph.nodes()
    kind = f"::{operator[1]}"
    scopes = (node.scopeName() for node in nodes if node.kind().endswith(kind))
    return next((scope.rpartition("/")[2].removeprefix("__module.") for scope in scopes), None)


def _before(module: nn.Module, message: str) -> str | None:
    """The module whose output the message is about, of which it has the end of the name alone."""
    scope = re.search(r"scope: \S*::(\S+)", message)
    names = (name for name, _ in module.named_modules() if scope and f".{name}".endswith(f".{scope[1]}"))
    return next(names, None)


def _named(module: nn.Module, name: str) -> str:
    kind = type(module.get_submodule(name)).__name__
    return f"{name} ({kind})" if name else kind


def _first_sentence(error: Exception) -> str:
    return re.split(r"\.\s|\n", str(error).strip())[0].removeprefix("Unsupported: ")

"""Networks as files that run without the framework that trained them."""

from .description import Description, versions_of
from .graph import IMAGE, OPSET, ExportError, Graph, write_onnx, write_torchscript
from .parity import ONNX, TOLERANCE, TORCHSCRIPT, Format, Written, difference, noise, write_tried

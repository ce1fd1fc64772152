"""Networks as files that run without the framework that trained them."""

from .description import Description, versions_of
from .graph import IMAGE, OPSET, ExportError, Graph, write_onnx, write_torchscript
from .parity import TOLERANCE, Written, noise, onnx_difference, write_tried

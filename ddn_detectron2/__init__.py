"""Distilled Dropout Networks for Detectron2: detectors whose scores mean what they say, in one forward pass."""

import importlib.util

if importlib.util.find_spec("detectron2") is None:
    raise ImportError(
        "ddn_detectron2 needs Detectron2, which is not on the package index: build it from its repository, "
        "or run `make setup`, which installs a Python-only build for the CPU (README, 'Installing Detectron2')"
    )

# imports that register with Detectron2
from .config import add_ddn_config
from .modeling import (
    DDNRCNN,
    DDNCascadeROIHeads,
    DDNOutputLayers,
    DDNPanopticFPN,
    DDNRes5ROIHeads,
    DDNStandardROIHeads,
    DropoutFastRCNNConvFCHead,
    build_small_backbone,
)

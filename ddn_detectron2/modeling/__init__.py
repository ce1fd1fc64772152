"""What a distilled detector is made of; importing registers it with Detectron2."""

from .dropout import DropoutFastRCNNConvFCHead
from .output_layers import DDNOutputLayers
from .rcnn import DDNRCNN, DDNPanopticFPN
from .roi_heads import DDNCascadeROIHeads, DDNRes5ROIHeads, DDNStandardROIHeads
from .small_backbone import build_small_backbone

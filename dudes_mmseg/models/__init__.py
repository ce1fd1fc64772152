"""Students, their losses, and teachers; importing registers them with mmsegmentation."""

from . import safe_loading
from .calibration import CalibratedCascadeEncoderDecoder, CalibratedEncoderDecoder, CalibratedMixin
from .losses import MeanProbabilityLoss, RMSLELoss, SoftBCELoss
from .segmentor import DUDESCascadeEncoderDecoder, DUDESEncoderDecoder
from .teacher import DeepEnsembleSegmentor, MCDropoutSegmentor
from .tta import DUDESTTAModel
from .uncertainty_head import UncertaintyHead

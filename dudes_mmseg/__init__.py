"""DUDES for mmsegmentation: an uncertainty map from any segmentor in one pass, taught by an ensemble.

Importing this registers everything here with mmsegmentation, which is all that `custom_imports` in a config has to do.
"""

from . import quiet  # before the others import mmsegmentation

# isort: split
from .data import CamVidDataset, StreetScenesDataset
from .hooks import UncertaintyVisualizationHook
from .losses import RMSLELoss
from .metrics import SegCalibrationMetric, SparsificationMetric, UncertaintyMetric
from .mmseg_package import find_mmseg_configs
from .resume import KeyedRandomnessHook
from .segmentor import DUDESCascadeEncoderDecoder, DUDESEncoderDecoder
from .target_check import CheckTargetsHook
from .teacher import DeepEnsembleSegmentor, MCDropoutSegmentor
from .transforms import LoadUncertaintyTarget, MarkRealPixels, PackUncertaintyInputs, Pad
from .tta import DUDESTTAModel
from .uncertainty_head import UncertaintyHead

"""DUDES for mmsegmentation: an uncertainty map from any segmentor in one pass, taught by an ensemble.

Importing this registers everything here with mmsegmentation, which is all that `custom_imports` in a config has to do.
"""

from .compat import find_mmseg_configs  # before the others import mmsegmentation

# isort: split
from .data import CamVidDataset, LoadNoAnnotations, StreetScenesDataset, WithUnlabelledImages
from .ensembles import HeadEnsembleEncoderDecoder, HeadEnsembleSegmentor
from .hooks import FiniteLossHook, KeyedRandomnessHook, ProgressHook, UncertaintyVisualizationHook
from .metrics import PixelSampleMetric, SegCalibrationMetric, SparsificationMetric, UncertaintyMetric
from .models import (
    CalibratedCascadeEncoderDecoder,
    CalibratedEncoderDecoder,
    CalibratedMixin,
    DeepEnsembleSegmentor,
    DUDESCascadeEncoderDecoder,
    DUDESEncoderDecoder,
    DUDESTTAModel,
    MCDropoutSegmentor,
    MeanProbabilityLoss,
    RMSLELoss,
    SoftBCELoss,
    UncertaintyHead,
)
from .targets import CheckTargetsHook, LoadUncertaintyTarget, MarkRealPixels, PackUncertaintyInputs, Pad

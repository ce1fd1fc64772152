"""Calibration and selective-prediction metrics, Monte-Carlo sampling, distillation losses, target stores and plots.

Knows torch and no framework. `uncertainty_core.plots` is imported on its own: it alone needs matplotlib.
"""

from .accumulators import CalibrationMetric, ConfidenceCalibration, GroupMean
from .calibration import (
    BinStatistics,
    CalibrationResult,
    bin_statistics,
    class_wise_ece,
    ece,
    mce,
    mce_abs,
    msce,
)
from .ensemble import EnsemblePrediction, ensemble
from .frozen import Frozen
from .losses import cross_entropy, ddn_loss, kd_loss, kl_distillation, rmsle, squared_distance
from .mc_dropout import (
    derive_seed,
    drawn_dropout,
    dropout_modules,
    masks_by_row,
    masks_of_shard,
    mc_dropout,
    mc_mean_std,
    split_at_dropout,
)
from .moments import RunningMoments
from .pixel_levels import PixelLevels, ause, pixel_levels, sparsification
from .scores import brier, entropy, mupe, nll_pred, nll_true, top_label
from .selective import Ranking, aupr, aurc, auroc, fpr_at_tpr, ranking, risk_coverage
from .selective_accumulators import PixelRanking, UncertaintyRanking
from .targets import TargetStore, TargetStoreError, file_sha256, state_dict_sha256, write_targets

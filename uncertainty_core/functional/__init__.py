"""Metrics and losses as pure functions of tensors."""

from .calibration import (
    BIN_METRICS,
    FINE_BIN_METRICS,
    BinStatistics,
    CalibrationResult,
    bin_edges,
    bin_index,
    bin_metrics,
    bin_statistics,
    bin_sums,
    class_wise_ece,
    ece,
    mce,
    mce_squared,
    msce,
)
from .logit_scores import logit_confidence, logit_entropy
from .losses import beta_nll, cross_entropy, crps, ddn_loss, kd_loss, kl_distillation, rmsle, squared_distance
from .scores import brier, crps_gaussian, entropy, mupe, nll_pred, nll_true, top_label
from .selective import Ranking, aupr, aurc, auroc, fpr_at_tpr, ranking, risk_coverage
from .sparsification import PixelLevels, ause, pixel_levels, sparsification

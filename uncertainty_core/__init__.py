"""Calibration and selective-prediction metrics, Monte-Carlo sampling, distillation losses, target stores and plots.

Knows torch and no framework. `uncertainty_core.plots` is imported on its own: it alone needs matplotlib.
"""

from .functional.calibration import (
    BinStatistics,
    CalibrationResult,
    bin_statistics,
    class_wise_ece,
    ece,
    mce,
    mce_abs,
    msce,
)
from .functional.losses import cross_entropy, ddn_loss, kd_loss, kl_distillation, rmsle, squared_distance
from .functional.scores import brier, entropy, mupe, nll_pred, nll_true, top_label
from .functional.selective import Ranking, aupr, aurc, auroc, fpr_at_tpr, ranking, risk_coverage
from .functional.sparsification import PixelLevels, ause, pixel_levels, sparsification
from .metrics.calibration import CalibrationMetric, ConfidenceCalibration, GroupMean
from .metrics.selective import PixelRanking, UncertaintyRanking
from .sampling.ensemble import EnsemblePrediction, ensemble
from .sampling.frozen import Frozen
from .sampling.mc_dropout import (
    derive_seed,
    drawn_dropout,
    dropout_modules,
    masks_by_row,
    masks_of_shard,
    mc_dropout,
    mc_mean_std,
    split_at_dropout,
)
from .streaming.moments import RunningMoments
from .targets.hashing import file_sha256, state_dict_sha256
from .targets.store import TargetStore, TargetStoreError, write_targets

from .functional.calibration import (
    BinStatistics as BinStatistics,
    CalibrationResult as CalibrationResult,
    bin_statistics as bin_statistics,
    class_wise_ece as class_wise_ece,
    ece as ece,
    mce as mce,
    mce_squared as mce_squared,
    msce as msce,
)
from .functional.losses import (
    cross_entropy as cross_entropy,
    ddn_loss as ddn_loss,
    kd_loss as kd_loss,
    kl_distillation as kl_distillation,
    rmsle as rmsle,
    squared_distance as squared_distance,
)
from .functional.risk import RiskThreshold as RiskThreshold, threshold_for_risk as threshold_for_risk
from .functional.scores import (
    brier as brier,
    entropy as entropy,
    mupe as mupe,
    nll_pred as nll_pred,
    nll_true as nll_true,
    top_label as top_label,
)
from .functional.selective import (
    Ranking as Ranking,
    aupr as aupr,
    aurc as aurc,
    auroc as auroc,
    fpr_at_tpr as fpr_at_tpr,
    ranking as ranking,
    risk_coverage as risk_coverage,
)
from .functional.sparsification import (
    PixelLevels as PixelLevels,
    ause as ause,
    pixel_levels as pixel_levels,
    sparsification as sparsification,
)
from .metrics.calibration import (
    CalibrationMetric as CalibrationMetric,
    ConfidenceCalibration as ConfidenceCalibration,
    GroupMean as GroupMean,
)
from .metrics.selective import (
    MapAgreement as MapAgreement,
    PixelRanking as PixelRanking,
    UncertaintyRanking as UncertaintyRanking,
)
from .sampling.ensemble import EnsemblePrediction as EnsemblePrediction, ensemble as ensemble
from .sampling.frozen import Frozen as Frozen
from .sampling.mc_dropout import (
    derive_seed as derive_seed,
    drawn_dropout as drawn_dropout,
    dropout_modules as dropout_modules,
    masks_by_row as masks_by_row,
    masks_of_shard as masks_of_shard,
    mc_dropout as mc_dropout,
    mc_mean_std as mc_mean_std,
    split_at_dropout as split_at_dropout,
)
from .streaming.moments import RunningMoments as RunningMoments
from .targets.hashing import file_sha256 as file_sha256, state_dict_sha256 as state_dict_sha256
from .targets.store import (
    TargetStore as TargetStore,
    TargetStoreError as TargetStoreError,
    write_targets as write_targets,
)

__version__: str

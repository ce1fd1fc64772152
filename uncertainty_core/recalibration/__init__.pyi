from .base import (
    Calibrator as Calibrator,
    CalibratorError as CalibratorError,
    check_fits as check_fits,
    from_json as from_json,
    load as load,
    save as save,
)
from .class_wise import N_MIN as N_MIN, ClassWise as ClassWise, fit_class_wise as fit_class_wise
from .detections import (
    apply_to_results as apply_to_results,
    fit_to_detections as fit_to_detections,
)
from .log_odds import (
    Beta as Beta,
    Platt as Platt,
    Temperature as Temperature,
    fit_beta as fit_beta,
    fit_platt as fit_platt,
    fit_temperature as fit_temperature,
)
from .operating_points import (
    OperatingPoints as OperatingPoints,
    fit_operating_points as fit_operating_points,
    kuzucu as kuzucu,
    lrp_optimal_thresholds as lrp_optimal_thresholds,
)
from .pixels import PixelSample as PixelSample
from .probabilities import (
    PROBABILITY_METHODS as PROBABILITY_METHODS,
    ClassTemperature as ClassTemperature,
    IsotonicClasses as IsotonicClasses,
    MatrixScaling as MatrixScaling,
    ProbabilityCalibrator as ProbabilityCalibrator,
    VectorScaling as VectorScaling,
    fit_class_isotonic as fit_class_isotonic,
    fit_class_temperature as fit_class_temperature,
    fit_dirichlet as fit_dirichlet,
    fit_matrix as fit_matrix,
    fit_vector as fit_vector,
)
from .recipes import SCORE_METHODS as SCORE_METHODS, Recipe as Recipe
from .scores import ScoreCalibrator as ScoreCalibrator
from .segments import (
    Histogram as Histogram,
    Isotonic as Isotonic,
    Linear as Linear,
    fit_histogram as fit_histogram,
    fit_isotonic as fit_isotonic,
    fit_linear as fit_linear,
)

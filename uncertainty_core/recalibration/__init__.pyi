from .base import (
    Calibrator as Calibrator,
    CalibratorError as CalibratorError,
    check_fits as check_fits,
    from_json as from_json,
    load as load,
    save as save,
)
from .class_wise import ClassWise as ClassWise, fit_class_wise as fit_class_wise
from .detections import (
    ConformalBoxes as ConformalBoxes,
    Samples as Samples,
    apply_to_results as apply_to_results,
    calibrated as calibrated,
    fit_to_boxes as fit_to_boxes,
    fit_to_detections as fit_to_detections,
    samples as samples,
    scale_boxes as scale_boxes,
)
from .held_out import before_and_after as before_and_after, fitted_half as fitted_half
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
from .recipes import METHODS as METHODS, N_MIN as N_MIN, Recipe as Recipe, fit_named as fit_named
from .scores import ScoreCalibrator as ScoreCalibrator
from .segments import (
    Histogram as Histogram,
    Isotonic as Isotonic,
    Linear as Linear,
    fit_histogram as fit_histogram,
    fit_isotonic as fit_isotonic,
    fit_linear as fit_linear,
)

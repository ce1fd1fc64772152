"""Calibrators as JSON: written, read, and refused in one sentence."""

import json

import pytest

from uncertainty_core.recalibration import (
    CalibratorError,
    ClassTemperature,
    ClassWise,
    Isotonic,
    IsotonicClasses,
    MatrixScaling,
    OperatingPoints,
    Platt,
    Temperature,
    VectorScaling,
    check_fits,
    from_json,
    load,
    save,
)

CLASS_WISE = ClassWise((Platt(0.5, 0.1), Platt(2.0, -0.1)), ("cat", "dog"), (30, 7), 20)
ALL = [
    Temperature(1 / 3),
    CLASS_WISE,
    OperatingPoints(CLASS_WISE, (0.1, 0.2), (0.3, 0.4)),
    ClassTemperature(0.7),
    VectorScaling((1.0, 2.0), (0.0, 0.1)),
    MatrixScaling(((1.0, 0.1), (0.2, 0.9)), (0.0, 0.3)),
    IsotonicClasses((Isotonic(), Isotonic((0.5,), (0.2,)))),
]


@pytest.mark.parametrize("calibrator", ALL, ids=lambda calibrator: type(calibrator).__name__)
def test_comes_back_bit_for_bit(calibrator, tmp_path):
    save(calibrator, tmp_path / "calibrator.json")
    assert load(tmp_path / "calibrator.json") == calibrator
    assert json.loads(calibrator.to_json())["format"] == 1


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("{", "not a calibrator, since it is no JSON"),
        ("[]", "not a calibrator, since it holds no 'kind'"),
        ({"format": 9}, "the calibrator has format 9, and format 1 is read; fit it again"),
        ({"kind": "spline"}, "there is no calibrator of the kind 'spline' for scores"),
        ({"task": "boxes"}, "there is no calibrator of the kind 'temperature' for boxes"),
        ({"slope": 1}, "a calibrator of the kind 'temperature' has other entries; look at slope"),
        ({"temperature": 0}, "temperature must be positive, got 0"),
        ({"temperature": "nan"}, "a calibrator of the kind 'temperature' cannot have the temperature 'nan'"),
        ({"temperature": 10**400}, "cannot have the temperature '1000"),
        ({"kind": ["platt"]}, "there is no calibrator of the kind \"['platt']\" for scores"),
        ({"kind": "isotonic", "temperature": None, "x": "01", "y": "01"}, "cannot have the x '01'"),
        ({"kind": "histogram", "temperature": None, "values": []}, "the values of a histogram must be some in"),
        ({"kind": "isotonic", "temperature": None, "x": [0, 1], "y": [0]}, "as many x as y, got 2 and 1"),
        ({"kind": "isotonic", "temperature": None, "x": [0, 1], "y": [1, 0]}, "isotonic knots must rise"),
    ],
)
def test_what_is_no_calibrator(content, sentence, tmp_path):
    if isinstance(content, dict):
        entries = {"format": 1, "task": "scores", "kind": "temperature", "temperature": 2.0} | content
        content = json.dumps({name: value for name, value in entries.items() if value is not None})
    path = tmp_path / "calibrator.json"
    path.write_text(content)
    with pytest.raises(CalibratorError) as stop:
        load(path)
    assert str(stop.value).startswith(f"{path}: ") and sentence in str(stop.value)


def test_no_file(tmp_path):
    with pytest.raises(CalibratorError, match=r"none.json cannot be read: No such file"):
        load(tmp_path / "none.json")


def test_of_another_task_or_other_classes():
    check_fits(Temperature(), "scores", 7)
    check_fits(CLASS_WISE, "scores", 2)
    with pytest.raises(CalibratorError, match="was fitted for 2 classes, and here are 3"):
        check_fits(CLASS_WISE, "scores", 3)
    with pytest.raises(CalibratorError, match="'vector' is for class probabilities, and one for scores is needed"):
        check_fits(ALL[4], "scores", 2)
    with pytest.raises(ValueError, match="a map, a name and a count of each class"):
        ClassWise((Temperature(),), ("cat", "dog"), (1, 2), 20)
    with pytest.raises(ValueError, match="of one kind"):
        ClassWise((Temperature(), Platt()), ("cat", "dog"), (1, 2), 20)
    assert from_json(CLASS_WISE.to_json()).pooled == ("dog",)

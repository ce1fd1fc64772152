"""A setting that several places take has one default in all of them."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("uncertainty_core", "ddn_detectron2", "dudes_mmseg", "classification")
SETTINGS = (
    *("alpha", "bad_images", "channels_last", "dd_weight", "ddof", "download", "edges", "gt_weight", "iou_threshold"),
    *("iou_thresholds", "num_bins", "precision", "root", "score_threshold", "validation", "width"),
)
OTHERS_OF_THE_NAME = {
    "ddof": {"streaming/moments.py", "sampling/mc_dropout.py"},  # numpy's default; members of an ensemble are a sample
    "iou_threshold": {"recalibration/operating_points.py"},  # any overlap, where the target is the IoU itself
    "num_bins": {"metrics/selective.py"},  # levels of an uncertainty
    "score_threshold": {"evaluation/visualizer.py", "inference/folder.py"},  # what is drawn
    "width": {"data/streets.py"},  # of a picture
}


def defaults(file: Path) -> Iterator[tuple[str, ast.expr]]:
    """Name and default of every parameter, and of every field of a class, in `file`."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef):
            with_default = node.args.args[len(node.args.args) - len(node.args.defaults) :]
            pairs = [*zip(with_default, node.args.defaults, strict=True)]
            pairs += zip(node.args.kwonlyargs, node.args.kw_defaults, strict=True)
            yield from ((parameter.arg, default) for parameter, default in pairs if default is not None)
        elif isinstance(node, ast.ClassDef):
            fields = (field for field in node.body if isinstance(field, ast.AnnAssign) and field.value is not None)
            yield from ((field.target.id, field.value) for field in fields)


@pytest.fixture(scope="module")
def places() -> dict[str, dict[str, set[str]]]:
    """For each setting its defaults as they are written, with the files; None and names are no values."""
    found = {}
    for file in sorted(file for package in PACKAGES for file in (ROOT / package).rglob("*.py")):
        for name, default in defaults(file):
            literal = not isinstance(default, (ast.Attribute, ast.Name)) and ast.unparse(default) != "None"
            if literal and not any(file.match(other) for other in OTHERS_OF_THE_NAME.get(name, ())):
                found.setdefault(name, {}).setdefault(ast.unparse(default), set()).add(str(file.relative_to(ROOT)))
    return found


@pytest.mark.parametrize("setting", SETTINGS)
def test_a_setting_has_one_default(places, setting):
    assert len(places[setting]) == 1, places[setting]

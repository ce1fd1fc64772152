"""Who may import whom, and what the packages need at the least."""

import ast
import subprocess
import sys
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PLUGINS = {"ddn_detectron2", "dudes_mmseg", "classification"}
FRAMEWORKS = {"detectron2", "fvcore", "mmseg", "mmengine", "mmcv", "torchvision"}
MAY_NOT_IMPORT = {
    "uncertainty_core": PLUGINS | FRAMEWORKS | {"tools", "tests"},
    "ddn_detectron2": PLUGINS - {"ddn_detectron2"} | {"mmseg", "mmengine", "mmcv", "tools", "tests"},
    "dudes_mmseg": PLUGINS - {"dudes_mmseg"} | {"detectron2", "fvcore", "tools", "tests"},
    "classification": PLUGINS - {"classification"}
    | {"detectron2", "fvcore", "mmseg", "mmengine", "mmcv", "tools", "tests"},
}


def imported(file):
    """Top-level names of everything that `file` imports absolutely, wherever in the file."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            yield node.module.split(".")[0]


@pytest.mark.parametrize("package", MAY_NOT_IMPORT)
def test_imports_point_one_way(package):
    wrong = {
        f"{file.relative_to(ROOT)} imports {name}"
        for file in (ROOT / package).rglob("*.py")
        for name in imported(file)
        if name in MAY_NOT_IMPORT[package]
    }
    assert not wrong


def rooms(package):
    """For each room of a package, a folder or a file in it, the others that its modules import from."""
    arrows = {}
    for file in (ROOT / package).rglob("*.py"):
        inside = file.relative_to(ROOT / package)
        room = inside.parts[0].removesuffix(".py")
        if room == "__init__":
            continue
        others = arrows.setdefault(room, set())
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and node.level == len(inside.parts):  # from the package's own folder
                names = [node.module.split(".")[0]] if node.module else [alias.name for alias in node.names]
                others.update(name for name in names if name != room)
            elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == package:
                raise AssertionError(f"{inside} imports from its own package by an absolute name")
    return arrows


@pytest.mark.parametrize("package", MAY_NOT_IMPORT)
def test_arrows_between_rooms_go_one_way(package):
    arrows = rooms(package)
    assert all(others <= arrows.keys() for others in arrows.values())
    try:
        TopologicalSorter(arrows).prepare()
    except CycleError as error:
        pytest.fail(f"rooms of {package} import each other: {' -> '.join(error.args[1])}")


def test_no_room_is_crowded():
    crowded = {}
    for package in MAY_NOT_IMPORT:
        for folder in (ROOT / package, *(path for path in (ROOT / package).rglob("*") if path.is_dir())):
            modules = list(folder.glob("*.py"))
            if len(modules) > 12:
                crowded[str(folder.relative_to(ROOT))] = len(modules)
    assert not crowded


def test_matplotlib_is_for_plots_alone():
    files = [file for file in (ROOT / "uncertainty_core").rglob("*.py") if "matplotlib" in imported(file)]
    assert [file.name for file in files] == ["plots.py"]


USES = """
import importlib, pkgutil, sys
import uncertainty_core
assert not {"torch", "numpy"} & sys.modules.keys()
sys.modules.update(dict.fromkeys(BLOCKED))  # None there makes an import fail

import torch
rooms = (
    "cli",
    "detection",
    "export",
    "functional",
    "intervals",
    "io",
    "recalibration",
    "report",
    "sampling",
    "streaming",
    "targets",
)
for room in rooms:
    folder = importlib.import_module(f"uncertainty_core.{room}").__path__
    for module in pkgutil.iter_modules(folder, f"uncertainty_core.{room}."):
        if module.name.rpartition(".")[2] not in ("metric", "__main__"):
            importlib.import_module(module.name)
for name in uncertainty_core.__all__:
    assert name in METRICS or getattr(uncertainty_core, name)

bins = uncertainty_core.bin_statistics(torch.tensor([0.8, 0.6]), torch.tensor([True, False]))
assert abs(uncertainty_core.ece(bins) - (0.2 + 0.6) / 2) < 1e-6
from uncertainty_core.detection import Settings, evaluate, match_images, read_detections, read_ground_truth
truth = read_ground_truth({
    "images": [{"id": 1, "width": 9, "height": 9}],
    "categories": [{"id": 1, "name": "a"}],
    "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "bbox": [0, 0, 4, 4], "area": 16, "iscrowd": 0}],
})
found = read_detections([{"image_id": 1, "category_id": 1, "bbox": [0, 0, 4, 4], "score": 0.9}], truth)
numbers = evaluate(truth, match_images(truth, found, Settings()), Settings()).calibration_metrics
assert abs(numbers["d_ece@50"] - 0.1) < 1e-6
"""


def test_functions_need_neither_torchmetrics_nor_any_framework():
    blocked = sorted(FRAMEWORKS | {"torchmetrics", "matplotlib", "sklearn", "pycocotools"})
    metrics = [*metric_classes()]
    subprocess.run([sys.executable, "-c", f"BLOCKED, METRICS = {blocked}, {metrics}\n{USES}"], check=True, cwd=ROOT)


def metric_classes():
    """Names in the core's table of contents that come from its room `metrics`, which alone needs torchmetrics."""
    for node in ast.parse((ROOT / "uncertainty_core" / "__init__.pyi").read_text(encoding="utf-8")).body:
        if isinstance(node, ast.ImportFrom) and node.module.startswith("metrics."):
            yield from (alias.name for alias in node.names)


def test_tools_are_scripts_not_a_package():
    # the registry's Detectron2 installs a top-level package `tools`, which ours must not shadow
    assert not list((ROOT / "tools").rglob("__init__.py"))

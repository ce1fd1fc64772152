"""What a pipeline will build and load, built and loaded once before anything is trained."""

from collections.abc import Mapping
from pathlib import Path

from detectron2.config import CfgNode
from torch import nn

from uncertainty_core.io.room import check_room

from ..boxes import without_box_std
from ..config import ConfigError
from .trainer import build_network, build_with_teacher


def rehearse(baseline: CfgNode | None, students: Mapping[str, CfgNode], output: Path) -> None:
    """Raise ConfigError, or another UserError, for what would end a pipeline later.

    Args:
        baseline: config of the detector to distil, if it is trained here; otherwise the weights are loaded.
        students: configs by name.
        output: folder of all checkpoints.
    """
    needed = 0
    shapes = None
    if baseline is not None:
        model = build_network(baseline)
        shapes, needed = _shapes(model), checkpoint_bytes(baseline, model)
    for name, cfg in students.items():
        model = build_network(cfg)
        needed += checkpoint_bytes(cfg, model)
        if shapes is None:
            build_with_teacher(cfg, model)
        else:
            _check_same_network(name, _shapes(model), shapes)
    check_room(output, needed, written="*.pth")


def checkpoint_bytes(cfg: CfgNode, model: nn.Module) -> int:
    """Of all checkpoints of a training: the weights, and the momentum of those that are trained."""
    weights = sum(tensor.numel() * tensor.element_size() for tensor in model.state_dict().values())
    momentum = sum(weight.numel() * weight.element_size() for weight in model.parameters() if weight.requires_grad)
    solver = cfg.SOLVER
    # one at the end of each period, and the final one
    return (solver.MAX_ITER // solver.CHECKPOINT_PERIOD + 1) * (weights + momentum)


def _shapes(model: nn.Module) -> dict[str, tuple[int, ...]]:
    return {name: tuple(tensor.shape) for name, tensor in without_box_std(model.state_dict()).items()}


def _check_same_network(name: str, student: Mapping[str, tuple], baseline: Mapping[str, tuple]) -> None:
    for weight in sorted(student.keys() | baseline.keys()):
        here, there = student.get(weight, "absent"), baseline.get(weight, "absent")
        if here != there:
            raise ConfigError(
                f"{name} is not the network of the baseline, {weight} is {here} in one and {there} in the other: write "
                "MODEL.* into both config files, since options at the end of the command line change students alone"
            )

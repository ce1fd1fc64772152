"""Training the members of an ensemble: whole detectors, or box heads on the trunk of one detector."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from detectron2.config import CfgNode
from detectron2.utils import comm

from uncertainty_core.cli import silent
from uncertainty_core.io.room import check_room
from uncertainty_core.sampling.folds import write_held_out

from ..convert import is_ddn
from .claims import training_settings
from .pipeline import Step, train, with_settings
from .rehearsal import checkpoint_bytes
from .trainer import build_network, build_with_teacher, left_out_images


def member_config(cfg: CfgNode, number: int, folds: int = 0) -> CfgNode:
    """The config of one member: its number is its seed, its folder `member_<number>` in the output.

    A plain config makes a whole detector, with proposals of its own. One of this package makes a box head that starts
    from random weights and learns labels alone; what decides proposals is that of `MODEL.WEIGHTS`.

    Args:
        cfg: of the ensemble.
        number: of the member.
        folds: of the images, of which it leaves out the one of its number modulo them; 0 for a member that sees all.
    """
    own = {"SEED": number, "OUTPUT_DIR": str(Path(cfg.OUTPUT_DIR) / f"member_{number}")}
    if is_ddn(cfg):
        of_members = {"FRESH_HEAD": True, "TARGETS__SOURCE": "none", "UNLABELLED": ()}
        own |= {f"MODEL__DDN__{key}": value for key, value in of_members.items()}
    if folds:
        own["MODEL__DDN__LEAVE_OUT"] = (number % folds, folds)
    return with_settings(cfg, **own)


def member_claims(cfg: CfgNode, numbers: Sequence[int], folds: int = 0) -> dict[Path, dict[str, Any]]:
    """The folders of members, each with what decides its outcome; see `check_claims`."""
    members = [member_config(cfg, number, folds) for number in numbers]
    return {Path(member.OUTPUT_DIR): training_settings(member) for member in members}


def rehearse_members(cfg: CfgNode, numbers: Sequence[int], folds: int = 0) -> None:
    """Raise ConfigError, or another UserError, for what would end the training of a member later."""
    member = member_config(cfg, numbers[0], folds)
    left_out_images(member)
    model = build_network(member)
    if is_ddn(cfg):
        build_with_teacher(member, model)
    check_room(cfg.OUTPUT_DIR, len(numbers) * checkpoint_bytes(member, model), written="*.pth")


def train_members(cfg: CfgNode, numbers: Sequence[int], step: Step = silent, folds: int = 0) -> list[str]:
    """Train members one after the other, those that are not finished; returns the paths of their weights."""
    trained = []
    for number in numbers:
        member = member_config(cfg, number, folds)
        folder = Path(member.OUTPUT_DIR)
        trained.append(train(member, folder, step))
        if folds and comm.is_main_process():
            write_held_out(folder, left_out_images(member), folds)
    return trained

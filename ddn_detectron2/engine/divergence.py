"""A training that has diverged ends with one sentence: which loss, when, and the key to lower."""

import math
from collections.abc import Callable, Mapping

from detectron2.config import CfgNode
from detectron2.engine import HookBase
from torch import Tensor, nn

from uncertainty_core import errors


def divergence(cfg: CfgNode, iteration: int, what: str) -> errors.DivergenceError:
    """The error for `what`, such as "loss_cls, loss_ddn", which is infinite or NaN."""
    to_lower = {"SOLVER.BASE_LR": cfg.SOLVER.BASE_LR}
    if "loss_ddn" in what:
        to_lower["MODEL.DDN.DD_WEIGHT"] = cfg.MODEL.DDN.DD_WEIGHT
    clip = "" if cfg.SOLVER.CLIP_GRADIENTS.ENABLED else ", or set SOLVER.CLIP_GRADIENTS.ENABLED True"
    return errors.divergence(what, iteration, to_lower, clip)


def not_finite(losses: Mapping[str, Tensor]) -> list[str]:
    """The names of those scalar losses that are infinite or NaN, or whose sum is."""
    if math.isfinite(sum(loss.detach() for loss in losses.values())):  # one wait for the device, not one for each loss
        return []
    return [name for name, loss in losses.items() if not loss.detach().isfinite()] or list(losses)


class FiniteLosses(HookBase):
    """Ends a training before a loss that is not finite reaches the weights."""

    def __init__(self, explained: Callable[[int, str], errors.DivergenceError], model: nn.Module) -> None:
        """
        Args:
            explained: makes the error, given the iteration and what is not finite.
            model: returns the losses.
        """
        self.explained, self.model = explained, model

    def before_train(self) -> None:
        """Look at what the model returns."""
        self.handle = self.model.register_forward_hook(self._check)

    def _check(self, model: nn.Module, inputs: object, output: object) -> None:
        if model.training and (names := not_finite(output)):
            raise self.explained(self.trainer.iter, ", ".join(names))

    def after_train(self) -> None:
        """Leave the model as it was."""
        self.handle.remove()

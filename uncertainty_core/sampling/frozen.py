"""A teacher that rides along in a student without being trained, saved or switched to training mode."""

from typing import Any

import torch
from torch import nn


class Frozen(nn.Module):
    """Holds `module` where no framework finds it.

    As an attribute of a student it adds nothing to `parameters()` (hence to no optimizer), nothing to `state_dict()`,
    and stays in eval mode whatever `.train()` is called; it does follow `.to()`, `.cuda()` and `.half()`. Calling it
    calls the module without gradients.
    """

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        # past nn.Module's own __setattr__, which would register it as a child
        object.__setattr__(self, "module", module.requires_grad_(False))
        self.train()

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """The module's output, without gradients."""
        with torch.no_grad():
            return self.module(*args, **kwargs)

    def train(self, mode: bool = True) -> "Frozen":
        """Stay in eval mode."""
        self.module.eval()
        return super().train(False)

    def _apply(self, fn: Any, *args: Any, **kwargs: Any) -> "Frozen":
        self.module._apply(fn, *args, **kwargs)
        return super()._apply(fn, *args, **kwargs)

    def extra_repr(self) -> str:
        """The type of what is held."""
        return type(self.module).__name__

"""The networks of the three papers, and one for scikit-learn's digits, by name: `build_model("densenet40")`.

Each of ours is a `Staged` chain of layers; its docstring gives the paper, the input size, where dropout is and how many
parameters there are. One of one's own goes by its import path, see `own`.
"""

import difflib
import inspect
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from uncertainty_core.checks import check_positive_int

from .cifar import allconv, nin, quick
from .densenet import densenet40
from .digits import digits
from .lenet import lenet, lenet_all
from .own import build_own, check_own, is_own, source_sha256
from .staged import Staged
from .vgg import sn1, sn2, vgg16_mnist

MODELS: dict[str, Callable[..., Staged]] = {
    "allconv": allconv,
    "densenet40": densenet40,
    "digits": digits,
    "lenet": lenet,
    "lenet_all": lenet_all,
    "nin": nin,
    "quick": quick,
    "sn1": sn1,
    "sn2": sn2,
    "vgg16_mnist": vgg16_mnist,
}


def build_model(
    name: str,
    num_classes: int = 10,
    in_channels: int | None = None,
    width: float = 1.0,
    dropout: float | None = None,
    **extra: Any,
) -> nn.Module:
    """The network called `name` in `MODELS`, or the one at the import path `name`.

    Args:
        name: see `MODELS`, or "package.module:Class".
        num_classes: C.
        in_channels: of the images, None for the paper's.
        width: factor on the channels and units of all hidden layers.
        dropout: rate of every dropout module, None for the paper's.
        extra: what this network takes beside (`penultimate` of `quick`); None, too, leaves the paper's.
    """
    check_positive_int("num_classes", num_classes)
    arguments = {"in_channels": in_channels, "dropout": dropout, **extra}
    arguments = {"num_classes": num_classes} | {key: value for key, value in arguments.items() if value is not None}
    if width != 1 or not is_own(name):  # which need not take one
        arguments["width"] = width
    if is_own(name):
        return build_own(name, arguments)
    if name not in MODELS:
        nearest = difflib.get_close_matches(name.lower(), MODELS, n=1, cutoff=0.0)[0]
        raise ValueError(
            f"unknown model {name!r}, did you mean {nearest!r}? There are {', '.join(MODELS)}, "
            "and package.module:Class for a network of your own"
        )
    if foreign := arguments.keys() - inspect.signature(MODELS[name]).parameters:
        raise ValueError(f"model {name!r} takes no {', '.join(sorted(foreign))}")
    return MODELS[name](**arguments)


def check_images(name: str, model: nn.Module, images: torch.Tensor, num_classes: int) -> None:
    """Raise ValueError unless the network called `name` makes logits (N, C) of `images` (N, channels, H, W) float."""
    if is_own(name):
        check_own(name, model, images, num_classes)
        return
    check, (height, width) = model.stages[0], images.shape[2:]
    if not check.takes(height, width):
        others = ", ".join(networks_for(height, width)) or "none of ours"
        raise ValueError(
            f"model {name!r} takes images of {check.pixels} pixels, not {height}x{width}: set data.image_size to "
            f"{check.size}, or model.name to one for {height}x{width} ({others})"
        )


def networks_for(height: int, width: int) -> list[str]:
    """Names of `MODELS` that take images of so many pixels."""
    with torch.device("meta"):  # nothing is allocated
        return [name for name, make in MODELS.items() if make().stages[0].takes(height, width)]

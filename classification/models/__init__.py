"""The networks of the three papers, and one for scikit-learn's digits, by name: `build_model("densenet40")`.

Each is a `Staged` chain of layers; its docstring gives the paper, the input size, where dropout is and how many
parameters there are.
"""

import difflib
import inspect
from collections.abc import Callable
from typing import Any

from uncertainty_core.checks import check_positive_int

from .cifar import allconv, nin, quick
from .densenet import densenet40
from .digits import digits
from .lenet import lenet, lenet_all
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
) -> Staged:
    """The network called `name` in `MODELS`.

    Args:
        name: see `MODELS`.
        num_classes: C.
        in_channels: of the images, None for the paper's.
        width: factor on the channels and units of all hidden layers.
        dropout: rate of every dropout module, None for the paper's.
        extra: what this network takes beside (`penultimate` of `quick`); None, too, leaves the paper's.
    """
    if name not in MODELS:
        nearest = difflib.get_close_matches(name.lower(), MODELS, n=1, cutoff=0.0)[0]
        raise ValueError(f"unknown model {name!r}, did you mean {nearest!r}? There are {', '.join(MODELS)}")
    check_positive_int("num_classes", num_classes)
    arguments = {"in_channels": in_channels, "dropout": dropout, **extra}
    arguments = {key: value for key, value in arguments.items() if value is not None}
    if foreign := arguments.keys() - inspect.signature(MODELS[name]).parameters:
        raise ValueError(f"model {name!r} takes no {', '.join(sorted(foreign))}")
    return MODELS[name](num_classes=num_classes, width=width, **arguments)

"""A network of one's own, named by its import path: `my_pkg.nets:MyNet`.

Shapes: N images, C classes, H rows, W columns.
"""

import importlib
import inspect
import os
import pkgutil
import sys
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from uncertainty_core.errors import did_you_mean
from uncertainty_core.targets import file_sha256


def is_own(name: str) -> bool:
    """Whether the name of a network is an import path."""
    return ":" in name


def own_class(path: str) -> type[nn.Module]:
    """The class at `package.module:Class`, installed or below the current folder; ValueError where there is none.

    Classes of networks alone: a configuration must not be able to call any function that is installed.
    """
    module_name, _, name = path.partition(":")
    if not all(part.isidentifier() for part in (*module_name.split("."), name)):
        raise ValueError(f"model {path!r} is no import path: write package.module:Class")
    module = _import(module_name)
    found = getattr(module, name, None)
    if not _is_network(found):
        networks = [key for key, value in vars(module).items() if _is_network(value)]
        fault = "is not there" if found is None else "is no class of torch.nn.Module"
        raise ValueError(f"model {path!r}: in {_file(module)} {name} {fault}{did_you_mean(name, networks)}")
    return found


def source_sha256(path: str) -> str:
    """SHA-256 of the file in which the class at an import path is written."""
    return file_sha256(inspect.getfile(own_class(path)))


def build_own(path: str, arguments: dict[str, Any]) -> nn.Module:
    """The network at an import path; a class that takes no `in_channels` is built without."""
    kind = own_class(path)
    known = inspect.signature(kind).parameters
    if not any(parameter.kind is parameter.VAR_KEYWORD for parameter in known.values()):
        arguments = {key: value for key, value in arguments.items() if key != "in_channels" or key in known}
        for key in arguments.keys() - known.keys():
            raise ValueError(f"model {path!r} takes no {key}{did_you_mean(key, known)}")
    try:
        return kind(**arguments)
    except Exception as error:  # any that somebody else's class raises
        given = ", ".join(f"{key}={value!r}" for key, value in arguments.items())
        raise ValueError(f"model {path!r} cannot be built with {given}: {_reason(error)}") from None


@torch.no_grad()
def check_own(path: str, model: nn.Module, images: Tensor, num_classes: int) -> None:
    """Raise ValueError unless `model` in eval mode makes logits (N, C) of float `images` (N, channels, H, W)."""
    shape = f"(N, {', '.join(map(str, images.shape[1:]))})"
    model.eval()
    try:
        logits = model(images)
    except Exception as error:
        raise ValueError(f"model {path!r} fails on images {shape}: {_reason(error)}") from None
    finally:
        model.train()
    wanted = (len(images), num_classes)
    if not isinstance(logits, Tensor) or logits.shape != wanted:
        found = str(tuple(logits.shape)) if isinstance(logits, Tensor) else f"a {type(logits).__name__}"
        raise ValueError(f"model {path!r} must return logits {wanted} for {len(images)} images {shape}, not {found}")
    if (logits >= 0).all() and torch.allclose(logits.sum(1), torch.ones(len(images), device=logits.device), atol=1e-4):
        raise ValueError(f"model {path!r} returns probabilities: leave out its softmax, so that it returns logits")


def _import(name: str) -> ModuleType:
    if os.getcwd() not in sys.path and "" not in sys.path:
        sys.path.append(os.getcwd())  # behind what is installed, which a file there must not replace
    importlib.invalidate_caches()
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{name}.".startswith(f"{error.name}."):
            raise ValueError(f"module {name} cannot be imported: {_reason(error)}") from None
        parent, _, missing = error.name.rpartition(".")
        places = sys.modules[parent].__path__ if hasattr(sys.modules.get(parent), "__path__") else [os.getcwd()]
        beside = [module.name for module in pkgutil.iter_modules(places)]
        where = parent or f"the current folder {os.getcwd()}, and is not installed"
        raise ValueError(f"there is no module {missing} in {where}{did_you_mean(missing, beside)}") from None
    except Exception as error:  # any that somebody else's file raises
        raise ValueError(f"module {name} cannot be imported: {_reason(error)}") from None


def _is_network(value: object) -> bool:
    return inspect.isclass(value) and issubclass(value, nn.Module)


def _file(module: ModuleType) -> str:
    return getattr(module, "__file__", None) or module.__name__


def _reason(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())}"

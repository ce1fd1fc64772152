"""Configs, found and looked into without importing the framework that they are for.

A kind of config is the folder in configs/ where those of one package are.
"""

import ast
import re
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import yaml

from ..errors import UserError
from ..io.safe_yaml import read_yaml_text

_SITE = Path(__file__).resolve().parents[2]  # a checkout, or where a wheel was installed: see setup.py
_INSTALLED = _SITE / "distilled_uncertainty" / "configs"
CONFIGS = _INSTALLED if _INSTALLED.is_dir() else _SITE / "configs"
SUFFIXES = {"ddn": ".yaml", "dudes": ".py", "classification": ".yaml"}
_WHAT = {
    "ddn": "a config of Detectron2: distilled-uncertainty train-net and distill-detector take it",
    "dudes": "a config of mmsegmentation: distilled-uncertainty train-seg and distill-segmentor take it",
    "classification": "an experiment with classifiers: distilled-uncertainty classification takes it",
    "lazy": "a LazyConfig of Detectron2: distilled-uncertainty train-net and export-student take it",
}


class TrustError(UserError):
    """A YAML file wants what only a trusted one may: to run code, or to be built on a download."""


def package_folder(name: str) -> Path | None:
    """The folder of an installed package, which is not imported; None without it."""
    spec = find_spec(name)
    return Path(spec.submodule_search_locations[0]) if spec and spec.submodule_search_locations else None


def find_config(name: str | Path, kind: str, zoo: Path | None = None) -> Path:
    """A path as it is, a name in configs/<kind> with or without its suffix, or a name in the folder `zoo`."""
    folder, suffix = CONFIGS / kind, SUFFIXES[kind]
    places = [Path(name), folder / name, folder / f"{name}{suffix}", *(() if zoo is None else (zoo / name,))]
    for path in places:
        if path.is_file():
            return path
    known = (path.relative_to(folder) for path in folder.rglob(f"*{suffix}") if "_base_" not in path.parts)
    in_zoo = "" if zoo is None else ", nor in the model zoo"
    raise UserError(f"config {str(name)!r} is neither a file{in_zoo}, nor one of {', '.join(sorted(map(str, known)))}")


def read_yaml(path: Path) -> dict[str, Any]:
    """The keys and values of a YAML file; UserError if it holds anything else, or a tag that would run code."""
    try:
        content = read_yaml_text(path.read_text(encoding="utf-8")) or {}
    except yaml.constructor.ConstructorError as error:
        text = " ".join(str(error).split())
        if "python/" not in text:
            raise UserError(f"{path} is not YAML: {text}") from None
        raise TrustError(f"{path} wants to run code, which no config may unasked: {text}") from None
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from None
    except (yaml.YAMLError, ValueError) as error:  # the latter: no UTF-8, dates and numbers that are none
        raise UserError(f"{path} is not YAML: {' '.join(str(error).split())}") from None
    if not isinstance(content, dict):
        raise UserError(f"{path} must hold keys and values, not a {type(content).__name__}")
    return content


def check_config(path: Path, kind: str) -> None:
    """Raise UserError if the config is one of another package, or damaged; what it is built on is read as well."""
    found = _kind_of(path)
    if found not in (kind, ""):
        raise UserError(f"{path} is {_WHAT[found]}")
    if kind == "ddn":
        _check_bases(path, ())
    elif kind == "dudes":
        _check_python_bases(path, ())


def _kind_of(path: Path) -> str:
    """A kind, "lazy", or "" for what could be any."""
    if path.suffix == ".py":
        text = path.read_text(encoding="utf-8", errors="replace")
        lazy = re.search(r"\bLazyCall\b|\bmodel_zoo\b|^from (detectron2|\.)", text, re.MULTILINE)
        return "lazy" if lazy and "read_base" not in text else "dudes"
    keys = read_yaml(path).keys()
    if any(isinstance(key, str) and key.isupper() for key in keys):
        return "ddn"
    return "classification" if keys else ""


def _check_bases(path: Path, heirs: tuple[Path, ...]) -> None:
    """Raise UserError if a file that the config is built on is absent, damaged, or built on the config itself."""
    content = read_yaml(path)
    if not content:
        raise UserError(f"{path} is empty: a config of Detectron2 holds at least _BASE_ or one section")
    bases = content.get("_BASE_", [])
    heirs = (*heirs, path.resolve())
    for base in bases if isinstance(bases, list) else [bases]:
        if not isinstance(base, str) or not base or "\0" in base:
            raise UserError(f"{path}: _BASE_ must name a file, got {base!r}")
        if "://" in base:
            raise TrustError(f"{path} is built on {base}, which would be downloaded: get it, and name the file")
        parent = path.parent / Path(base).expanduser()
        if parent.resolve() in heirs:
            raise UserError(f"{path} is a base of itself, through _BASE_: {base}")
        _check_bases(parent, heirs)


def _check_python_bases(path: Path, heirs: tuple[Path, ...]) -> None:
    """The same of a Python config, `_base_` and syntax."""
    try:
        tree = ast.parse(path.read_bytes())
    except (SyntaxError, ValueError) as error:  # the latter: null bytes
        raise UserError(f"{path}, line {getattr(error, 'lineno', 1)}, is not Python: {error.args[0]}") from None
    set_here = {
        target.id: node.value
        for node in tree.body
        if isinstance(node, ast.Assign)
        for target in node.targets
        if isinstance(target, ast.Name)
    }
    if not heirs and not set_here.keys() & {"model", "_base_"} and "read_base" not in ast.dump(tree):
        raise UserError(f"{path} is no config of a segmentor: it sets neither model nor _base_")
    heirs = (*heirs, path.resolve())
    for base in _texts(set_here.get("_base_")):
        parent = path.parent / base
        if "::" in base:  # of an installed package
            continue
        if not parent.is_file():
            raise UserError(f"{path} is built on {parent}, which is no file")
        if parent.resolve() in heirs:
            raise UserError(f"{path} is a base of itself, through _base_ = {base!r}")
        _check_python_bases(parent, heirs)


def _texts(node: ast.expr | None) -> list[str]:
    """The strings that an expression spells out, alone or in a list."""
    return [part.value for part in getattr(node, "elts", [node]) if isinstance(getattr(part, "value", None), str)]

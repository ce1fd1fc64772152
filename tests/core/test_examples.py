"""Examples in docstrings do what they show."""

import doctest
import importlib
import pkgutil

import pytest

import uncertainty_core

MODULES = [
    module.name
    for module in pkgutil.walk_packages(uncertainty_core.__path__, "uncertainty_core.")
    if not module.ispkg and not module.name.endswith("__main__")
]


@pytest.mark.parametrize("name", MODULES)
def test_documented_examples_work(name):
    failed, _ = doctest.testmod(importlib.import_module(name))
    assert failed == 0

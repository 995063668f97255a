from __future__ import annotations

import doctest
import importlib
import pkgutil

import pytest

import kidrails_guard.engine

MODULES = sorted(module.name for module in pkgutil.iter_modules(kidrails_guard.engine.__path__))


@pytest.mark.parametrize("name", MODULES)
def test_the_examples_in_the_docstrings_hold(name: str) -> None:
    module = importlib.import_module(f"kidrails_guard.engine.{name}")
    assert doctest.testmod(module).failed == 0

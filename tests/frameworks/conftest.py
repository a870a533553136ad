"""The framework under test, as the adapter that tests/frameworks/adapters has for it."""

from __future__ import annotations

import importlib

import pytest


@pytest.fixture(scope="session")
def framework(request: pytest.FixtureRequest):
    name = request.config.getoption("--framework").partition("-")[0]
    return importlib.import_module(f"tests.frameworks.adapters.{name}_adapter")

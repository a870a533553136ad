"""What `identify` finds of modules in the manner of public CBAMs, and of this project's own."""

from __future__ import annotations

import importlib

import numpy as np
import pytest

from cbam_core import CBAMSpec
from crosscheck import identify
from crosscheck.check import LIMITS
from tests import specs


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "row" in metafunc.fixturenames:
        name = metafunc.config.getoption("--framework").partition("-")[0]
        rows = importlib.import_module(f"tests.crosscheck.modules.{name}_rows").ROWS
        metafunc.parametrize("row", rows.values(), ids=rows)


def test_finds_the_spec(framework, row):
    found = identify(row.build(), channels=row.channels)
    assert found.departures == ()
    assert found.spec == row.spec
    assert {name: getattr(found, name) for name in row.facts} == row.facts
    assert found.difference < LIMITS[found.dtype]["output"]
    shapes = {name: array.shape for name, array in found.weights.items()}
    assert shapes == _shapes(found.spec)


def _shapes(spec: CBAMSpec) -> dict[str, tuple[int, ...]]:
    return {name: array.shape for name, array in specs.weights(spec).items()}


def test_finds_a_block_of_this_project_and_leaves_it_as_it_is(framework):
    spec = specs.SPECS["official"]
    block = framework.build("CBAM.from_spec", spec)
    weights = {n: w.astype(np.float32) for n, w in specs.weights(spec).items()}
    framework.package.load_canonical(block, weights)
    found = identify(getattr(block, "pair", block))
    after = framework.package.to_canonical(block)
    assert found.spec == spec
    assert found.ties == {"space": "even", "channels": "even"}
    assert found.running_variance == "unbiased"
    assert found.difference < LIMITS["float32"]["output"]
    for name, array in weights.items():
        assert after[name].tobytes() == array.tobytes(), name
        assert found.weights[name].tobytes() == array.tobytes(), name

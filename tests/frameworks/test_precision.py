"""Half precision, the way each framework's users train with it."""

from __future__ import annotations

import numpy as np
import pytest

from cbam_core import CBAMSpec, reference, reference_network
from tests import networks, specs
from tests.compare import assert_equal
from tests.frameworks.test_conformance import HALF_EPS

HALVES = pytest.mark.parametrize("dtype", HALF_EPS)
MODES = pytest.mark.parametrize("training", [False, True], ids=["eval", "train"])
OFFICIAL = CBAMSpec.preset("official", 8, hidden=2)
BLOCKS = {"official": OFFICIAL, "everything": specs.SPECS["everything"]}


def equals(mixed, x, step, training, limit):
    """Check output and statistics by a step of the reference."""
    y = mixed.call(x, training)
    assert_equal({"output": y.astype(np.float64)}, {"output": step.output}, limit)
    found = {name: array for name, array in mixed.weights().items() if name in step.statistics}
    assert_equal(found, step.statistics, limit)


def trains(mixed, x, target):
    """Check that SGD moves all float32 weights, behind what steps the loss scale skips at first."""
    before = mixed.weights()
    for _ in range(20):
        mixed.step(x, target)
        after = mixed.weights()
        moved = [name for name in after if not np.array_equal(after[name], before[name])]
        if len(moved) == len(after):
            break
    assert set(moved) == set(after)
    assert all(np.isfinite(array).all() for array in after.values())
    assert mixed.kinds() == {"float32"}


@HALVES
@MODES
@pytest.mark.parametrize("name", BLOCKS)
def test_a_block_is_within_a_few_eps(framework, name, dtype, training):
    spec, x = BLOCKS[name], specs.feature_map(BLOCKS[name])
    weights = specs.weights(spec)
    mixed = framework.Mixed("CBAM.from_spec", spec, dtype=dtype, weights=weights)
    step = reference.run(spec, weights, x, training=training)
    equals(mixed, x, step, training, 4 * HALF_EPS[dtype])


@HALVES
@MODES
@pytest.mark.parametrize("name", ["basic_cbam", "separable_cbam"])
def test_a_network_is_within_a_few_eps(framework, name, dtype, training):
    architecture, x = networks.NETWORKS[name], networks.picture()
    weights = networks.weights(architecture)
    mixed = framework.Mixed("Backbone", architecture, dtype=dtype, weights=weights)
    step = reference_network.run(architecture, weights, x, training=training)
    # An eps for each convolution on the way.
    equals(mixed, x, step, training, 8 * HALF_EPS[dtype])


@HALVES
def test_large_maps_with_large_values_do_not_overflow(framework, dtype):
    """The sum over such a map is 300 times what float16 holds."""
    spec, weights = OFFICIAL, specs.weights(OFFICIAL)
    # No hidden unit is dead, and no gate is 0 or 1, which it would be by the map's last digit.
    weights["channel.reduce.kernel"] = np.abs(weights["channel.reduce.kernel"]) / 1024
    weights["spatial.conv.kernel"] /= 1024
    x = 500 * np.abs(np.random.default_rng(0).standard_normal((1, 224, 224, 8)))
    mixed = framework.Mixed("CBAM.from_spec", spec, dtype=dtype, weights=weights)
    step = reference.run(spec, weights, x)
    equals(mixed, x, step, False, 4 * HALF_EPS[dtype])
    trains(mixed, x, np.ones_like(x))


@HALVES
def test_large_pictures_with_large_values_do_not_overflow(framework, dtype):
    architecture = networks.NETWORKS["basic_cbam"]
    weights = networks.weights(architecture)
    x = 300 * networks.picture(224, 224)
    mixed = framework.Mixed("Backbone", architecture, dtype=dtype, weights=weights)
    step = reference_network.run(architecture, weights, x)
    equals(mixed, x, step, False, 8 * HALF_EPS[dtype])
    trains(mixed, x, np.ones_like(step.output))

"""A folded norm changes nothing that an evaluation computes, and refuses where there is none."""

from __future__ import annotations

import re

import numpy as np
import pytest

from cbam_core import (
    Architecture,
    CBAMSpec,
    check_weights,
    fold,
    initial_weights,
    network_shapes,
    reference,
    reference_network,
)
from tests import networks
from tests.compare import assert_equal
from tests.networks import NETWORKS, picture

SPECS = {
    "official": CBAMSpec.preset("official", channels=8, reduction=2, norm_eps=1e-3),
    "biased": CBAMSpec.preset("official", channels=8, spatial_bias=True, pooling="light"),
    "volume": CBAMSpec(4, order="spatial", spatial_norm=True, kernel_size=3, rank=3),
}


def drawn(spec):
    """Weights of which none is what it is before training."""
    rng = np.random.default_rng(0)
    return {
        name: rng.uniform(0.5, 1.5, array.shape) for name, array in initial_weights(spec).items()
    }


@pytest.mark.parametrize("spec", SPECS.values(), ids=SPECS)
def test_a_folded_block_computes_what_it_did(spec):
    weights = drawn(spec)
    x = np.random.default_rng(1).standard_normal((2, *[5] * spec.rank, spec.channels))
    folded, fewer = fold(spec, weights)
    check_weights(folded, fewer)
    want = reference.run(spec, weights, x).output
    assert_equal({"": reference.run(folded, fewer, x).output}, {"": want}, 1e-14)


def test_a_folded_network_computes_what_it_did():
    architecture = NETWORKS["basic_cbam"]
    weights = networks.weights(architecture)
    folded, fewer = fold(architecture, weights)
    check_weights(network_shapes(folded), fewer)
    want = reference_network.run(architecture, weights, picture()).output
    assert_equal({"": reference_network.run(folded, fewer, picture()).output}, {"": want}, 1e-12)


def test_the_dtype_stays():
    weights = {name: array.astype(np.float32) for name, array in drawn(SPECS["official"]).items()}
    assert {array.dtype.name for array in fold(SPECS["official"], weights)[1].values()} == {
        "float32"
    }


@pytest.mark.parametrize("described", [CBAMSpec(8), Architecture("basic", (1,), (8,))])
def test_nothing_to_fold_is_refused(described):
    shapes = (
        initial_weights(described)
        if isinstance(described, CBAMSpec)
        else {name: np.zeros(shape) for name, shape in network_shapes(described).items()}
    )
    with pytest.raises(ValueError, match=re.escape(f"{described!r} has no norm in a spatial gate")):
        fold(described, shapes)

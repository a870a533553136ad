"""The trained network that ships reads all digits alike in every framework."""

from __future__ import annotations

import numpy as np
import pytest

from cbam_core import reference_network
from crosscheck import trained
from crosscheck.training.data import digits
from tests.compare import assert_equal


@pytest.fixture(scope="module")
def expected():
    """The logits of all 1,797 digits."""
    architecture, weights = trained.network()
    return reference_network.run(architecture, weights, digits().pictures).output


def logits(framework, dtype):
    architecture, weights = trained.network()
    network = framework.build("Backbone", architecture, dtype=dtype)
    framework.package.load_canonical(network, weights)
    return framework.call(network, digits().pictures.astype(dtype))


def test_its_logits_are_those_of_the_reference(framework, expected):
    assert_equal({"logits": logits(framework, "float64")}, {"logits": expected}, 1e-12)


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_it_predicts_the_same_of_all_digits(framework, expected, dtype):
    predicted = logits(framework, dtype).argmax(1)
    assert np.flatnonzero(predicted != expected.argmax(1)).tolist() == []

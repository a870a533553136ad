"""The trained network that ships: that it is what its figures and the docs say."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest

from cbam_core import Architecture, Recipe, network_shapes, reference, reference_network
from crosscheck import trained
from crosscheck.training.data import digits

ROOT = Path(__file__).parent.parent.parent
RUNS = json.loads(trained.PATH.with_suffix(".json").read_text())


@pytest.fixture(scope="module")
def correct():
    """Of each of the held-out digits and of those trained on, whether it is read right."""
    architecture, weights = trained.network()

    def judged(data):
        output = reference_network.run(architecture, weights, data.pictures).output
        return output.argmax(1) == data.targets

    trained_on, held_out = digits().split(RUNS[0]["held_out"]["digits"])
    return {"trained_on": judged(trained_on), "held_out": judged(held_out)}


def test_its_accuracy_is_the_one_that_is_told(correct):
    page = (ROOT / "docs" / "training.md").read_text()
    correct = correct | {"all": np.concatenate(list(correct.values()))}
    for part, right in correct.items():
        told = {"digits": len(right), "right": int(right.sum())}
        assert {run["framework"]: run[part] for run in RUNS} == {
            run["framework"]: told for run in RUNS
        }
        assert f"{right.sum():,} of {len(right):,}" in page
    assert correct["held_out"].mean() > 0.98


def test_every_framework_has_written_this_file():
    checksum = hashlib.sha256(trained.PATH.read_bytes()).hexdigest()
    assert [run["framework"] for run in RUNS] == ["torch", "tf", "keras-tensorflow", "flax"]
    assert {run["sha256"] for run in RUNS} == {checksum}


def test_every_framework_has_drawn_the_same_curve():
    first = np.array(RUNS[0]["losses"])
    recipe = Recipe.from_dict(RUNS[0]["recipe"])
    assert len(first) == recipe.steps
    for run in RUNS:
        assert Recipe.from_dict(run["recipe"]) == recipe
        np.testing.assert_allclose(run["losses"], first, rtol=0, atol=1e-12)


def test_the_file_is_small_and_whole():
    architecture, weights = trained.network()
    assert trained.PATH.stat().st_size < 2**18
    assert {name: array.shape for name, array in weights.items()} == network_shapes(architecture)
    assert {array.dtype for array in weights.values()} == {np.dtype("float32")}


def test_the_cases_are_an_attention_on_what_it_is_given_and_the_network():
    attention, network = trained.cases()
    assert isinstance(network.described, Architecture)
    path, spec = next(network.described.attentions())
    assert attention.described == spec
    step = reference_network.run(network.described, network.weights, network.x)
    assert attention.x.tobytes() == step.attended[path].tobytes()
    alone = reference.run(spec, attention.weights, attention.x)
    for name, gate in alone.gates.items():
        np.testing.assert_array_equal(gate, step.gates[f"{path}.{name}"])
        # Neither open nor closed throughout: training has moved it.
        assert np.ptp(gate) > 0.1

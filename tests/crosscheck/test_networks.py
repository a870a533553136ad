"""The cases of whole networks: what they are to have, and that a difference in meaning shows."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from cbam_core import Architecture, check_weights, network_shapes, reference_network
from crosscheck.check import NETWORK_LIMITS, plan, select_networks
from crosscheck.compare import compare_pass
from crosscheck.frameworks import FRAMEWORKS
from crosscheck.networks import network_case

NETWORKS = [("resnet18", "cbam"), ("resnet50", None), ("resnet50", "se"), ("mobilenet", "cbam")]


@pytest.fixture(scope="module", params=NETWORKS, ids=lambda p: f"{p[0]}-{p[1]}")
def case(request):
    name, attention = request.param
    return network_case(name, Architecture.named(name, attention=attention), size=64)


def test_maps_keep_their_magnitude_in_both_modes(case):
    check_weights(network_shapes(case.described), case.weights)
    outputs = []
    for training in (False, True):
        step = reference_network.run(case.described, case.weights, case.x, training=training)
        outputs.append(step.output)
        for features in step.features:
            assert 0.1 < features.std() < 10
            # A relu that stops nothing, or everything, would leave its gradient unseen.
            assert 0.02 < (features <= 0).mean() < 0.5
        for path, gate in step.gates.items():
            assert (gate > 0.01).all(), path
            assert (gate < 0.99).all(), path
            assert abs(gate - 0.5).min() > 0, path
    # Near enough for one scale, far enough to tell the modes apart.
    assert 1e-3 < np.abs(outputs[0] - outputs[1]).max() / np.abs(outputs[0]).max() < 1


def test_no_gradient_is_0(case):
    step = reference_network.run(case.described, case.weights, case.x, training=True)
    _, gradients = step.pullback(case.cotangent)
    assert [name for name, gradient in gradients.items() if not gradient.any()] == []


def test_a_picture_has_no_flat_areas(case):
    for picture in case.x:
        assert len(np.unique(picture)) == picture.size


def test_a_case_is_the_same_every_time(case):
    again = network_case(case.name, case.described, size=64)
    assert again.x.tobytes() == case.x.tobytes()
    assert all(again.weights[name].tobytes() == w.tobytes() for name, w in case.weights.items())


@pytest.mark.parametrize(
    "changes",
    [{"stride_on": "1x1"}, {"spec": {"spatial_norm": True, "norm_eps": 1e-3}}],
    ids=str,
)
def test_a_difference_in_meaning_shows(changes):
    """Networks whose weights have the same names and shapes, but which are not the same."""
    one = Architecture.named("resnet50", attention="cbam", num_classes=10)
    case = network_case("resnet50", one, size=64)
    other = dataclasses.replace(case, described=dataclasses.replace(one, **changes))
    for training in (False, True):
        right, wrong = case.expected(training), other.expected(training)
        judged = {c.quantity: c for c in compare_pass(wrong, right, NETWORK_LIMITS["float64"])}
        assert not judged["output"].ok
        assert not judged["grad:stem.conv.kernel"].ok


def test_a_sample_runs_training_alone():
    one = Architecture("basic", (1,), (8,), num_classes=2)
    case = network_case("small", one, size=64)
    plans = plan([case], ["float64"], ["eval", "train"])
    assert [p.mode for p in select_networks(plans, FRAMEWORKS["torch"])] == ["eval", "train"]
    assert [p.mode for p in select_networks(plans, FRAMEWORKS["torch-compile"])] == ["train"]
    evaluated = plan([case], ["float64"], ["eval"])
    assert select_networks(evaluated, FRAMEWORKS["torch-compile"]) == evaluated

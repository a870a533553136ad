"""The cases of whole networks: what they are to have, and that a difference in meaning shows."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from cbam_core import Architecture, check_weights, network_shapes, pullbacks, reference_network
from crosscheck.check import NETWORK_LIMITS, Plan, check, plan, select_networks
from crosscheck.compare import compare_pass
from crosscheck.faults.norm import NORM
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
            assert 0.005 < (features <= 0).mean() < 0.5
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


def _same(x):
    """x as the windows of TensorFlow's and Keras' SAME find it where sides are even and strides 2.

    They have one row and column less of padding in front and one more behind.
    """
    return np.pad(x[:, 1:, 1:], [(0, 0), (0, 1), (0, 1), (0, 0)])


def _convolved_as_same(x, weights, *, stride=1, groups=1):
    shifted = _same(x) if stride > 1 and weights["kernel"].shape[0] > 1 else x
    return pullbacks.convolve(shifted, weights, stride=stride, groups=groups)


def _biased(x, weights, *, momentum):
    kept = pullbacks.running_statistics(x, weights, momentum=momentum)
    unbiased = x.reshape(-1, x.shape[-1]).var(0, ddof=1)
    count = x.size // x.shape[-1]
    return kept | {"var": kept["var"] - momentum * unbiased / count}


# What a port of a network gets wrong: the reference's own code, and what stands there instead.
# A max pool padded with 0 is not among them: behind a relu it has the same value and gradient.
FAULTS = {
    "same-padding": {"convolve": _convolved_as_same},
    "same-padding-of-the-pool": {"max_pool": lambda x: pullbacks.max_pool(_same(x))},
    "eps-of-keras": {"NORM_EPS": 1e-3},
    "momentum-of-keras": {"NORM_MOMENTUM": 0.01},
    "momentum-complement": {"NORM_MOMENTUM": 0.9},
    "biased-running-variance": {"running_statistics": _biased},
    "sum-for-average": {"avg": lambda x, axes: pullbacks.avg(x * x[0, ..., 0].size, axes)},
}


@pytest.fixture(scope="module")
def small():
    """A network of few layers, which has what the large ones have."""
    fields = {"attention": "cbam", "spec": {"kernel_size": 3}, "num_classes": 2}
    return network_case("small", Architecture("bottleneck", (1, 1), (4, 8), **fields), size=64)


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_shows(small, fault, monkeypatch):
    """In the reference itself, so that no framework is needed to tell that the case reveals it."""
    right = {training: small.expected(training) for training in (False, True)}
    for name, faulty in FAULTS[fault].items():
        monkeypatch.setattr(reference_network, name, faulty)
    caught = [
        comparison.quantity
        for training in (False, True)
        for comparison in compare_pass(
            small.expected(training), right[training], NETWORK_LIMITS["float64"]
        )
        if not comparison.ok
    ]
    assert caught


def test_a_relu6_shows_in_a_mobilenet(monkeypatch):
    """Maps have to exceed 6 for it, which they do in a network of many layers."""
    case = network_case("mobilenet", Architecture.named("mobilenet", attention="cbam"), size=64)
    right = case.expected(training=False)
    relu6 = reference_network._weightless(lambda x: pullbacks.relu(np.minimum(x, 6.0)))
    monkeypatch.setattr(reference_network, "_RELU", relu6)
    faulty = {c.quantity: c for c in compare_pass(case.expected(False), right, {"output": 1e-12})}
    assert not faulty["output"].ok


def test_a_fault_in_a_package_is_caught(small):
    """Those of crosscheck.faults stand in a network's attentions too."""
    names = ["missing-norm", *(fault.name for fault in NORM if fault.mode == "train")]
    plans = [Plan(small, "float64", "train", name) for name in ("", *names)]
    report = check([FRAMEWORKS["torch"]], {"torch": plans})
    assert [str(row.comparison) for row in report.rows if not row.fault and not row.ok] == []
    assert [row.fault for row in report.rows if row.fault and row.caught] == names
    assert report.ok


def test_a_sample_runs_training_alone():
    one = Architecture("basic", (1,), (8,), num_classes=2)
    case = network_case("small", one, size=64)
    plans = plan([case], ["float64"], ["eval", "train"])
    assert [p.mode for p in select_networks(plans, FRAMEWORKS["torch"])] == ["eval", "train"]
    assert [p.mode for p in select_networks(plans, FRAMEWORKS["torch-compile"])] == ["train"]
    evaluated = plan([case], ["float64"], ["eval"])
    assert select_networks(evaluated, FRAMEWORKS["torch-compile"]) == evaluated

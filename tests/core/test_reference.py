"""The judge, judged: by finite differences, by hand, and by the rules where no derivative is."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cbam_core import STATISTICS, CBAMSpec, reference
from tests import specs


@pytest.mark.parametrize("training", [False, True], ids=["eval", "train"])
@pytest.mark.parametrize("name", specs.SPECS)
def test_gradients_are_finite_differences(name, training):
    spec = specs.SPECS[name]
    rng = np.random.default_rng(2)
    # Without ties, and away from kinks: there a difference quotient is the derivative.
    x, weights = rng.standard_normal(specs.feature_map(spec).shape), specs.weights(spec)
    cotangent = rng.standard_normal(x.shape)
    dx, gradients = reference.run(spec, weights, x, training=training).pullback(cotangent)

    def slope(direction, **changed):
        step = 1e-6
        ends = [
            reference.run(
                spec,
                weights | {n: weights[n] + sign * step * d for n, d in changed.items()},
                x + sign * step * direction,
                training=training,
            ).output
            for sign in (1, -1)
        ]
        return ((ends[0] - ends[1]) * cotangent).sum() / (2 * step)

    direction = rng.standard_normal(x.shape)
    assert slope(direction) == pytest.approx((dx * direction).sum(), rel=1e-6, abs=1e-6)
    for weight, gradient in gradients.items():
        direction = rng.standard_normal(gradient.shape)
        found = slope(np.zeros_like(x), **{weight: direction})
        assert found == pytest.approx((gradient * direction).sum(), rel=1e-6, abs=1e-6), weight
    assert set(gradients) == set(weights) - set(STATISTICS)


def test_a_channel_gate_by_hand():
    # Two channels, one hidden unit: MLP(v) = (2, -1) relu(v1 + v2).
    spec = CBAMSpec(2, hidden=1, order="channel")
    weights = {
        "channel.reduce.kernel": np.array([[1.0], [1.0]]),
        "channel.expand.kernel": np.array([[2.0, -1.0]]),
    }
    x = np.array([[[[1.0, 0.0], [3.0, -2.0]]]])
    # avg = (2, -1) -> 1; max = (3, 0) -> 3; logits = (2, -1) * (1 + 3) = (8, -4).
    gate = 1 / (1 + np.exp([-8.0, 4.0]))
    step = reference.run(spec, weights, x)
    np.testing.assert_allclose(step.gates["channel"].ravel(), gate, rtol=1e-15)
    np.testing.assert_allclose(step.output, x * gate, rtol=1e-15)


def test_a_spatial_gate_by_hand():
    # A kernel with 1 for the average at the left and 10 for the maximum in the middle.
    spec = CBAMSpec(2, kernel_size=3, order="spatial", rank=1)
    kernel = np.zeros((3, 2, 1))
    kernel[0, 0], kernel[1, 1] = 1.0, 10.0
    x = np.array([[[0.2, 0.0], [0.1, -0.3], [0.0, 0.4]]])
    # avg = (0.1, -0.1, 0.2), max = (0.2, 0.1, 0.4); left of the first there is padding.
    logits = np.array([2.0, 0.1 + 1.0, -0.1 + 4.0])
    step = reference.run(spec, {"spatial.conv.kernel": kernel}, x)
    np.testing.assert_allclose(step.gates["spatial"].ravel(), 1 / (1 + np.exp(-logits)))


def test_batch_statistics_by_hand():
    spec = CBAMSpec(1, kernel_size=1, order="spatial", spatial_norm=True, norm_momentum=0.25)
    weights = {
        "spatial.conv.kernel": np.array([[[[1.0], [0.0]]]]),
        "spatial.norm.scale": np.ones(1),
        "spatial.norm.bias": np.zeros(1),
        "spatial.norm.mean": np.zeros(1),
        "spatial.norm.var": np.ones(1),
    }
    x = np.array([0.0, 2.0, 4.0]).reshape(1, 3, 1, 1)
    step = reference.run(spec, weights, x, training=True)
    # Mean 2; the biased variance 8/3 normalises, the unbiased 4 is kept.
    assert step.statistics["spatial.norm.mean"] == pytest.approx(0.25 * 2)
    assert step.statistics["spatial.norm.var"] == pytest.approx(0.75 + 0.25 * 4)
    normal = (x - 2) / np.sqrt(8 / 3 + 1e-5)
    np.testing.assert_allclose(step.gates["spatial"], 1 / (1 + np.exp(-normal)), rtol=1e-14)
    still = reference.run(spec, weights, x)
    assert still.statistics["spatial.norm.var"] == 1.0


@pytest.mark.parametrize(
    ("pool", "x", "value", "gradient"),
    [
        ("avg", [1.0, 2.0, 6.0], 3.0, [1 / 3] * 3),
        ("max", [4.0, 4.0, 1.0], 4.0, [0.5, 0.5, 0.0]),
        ("max", [0.0, 0.0, 0.0], 0.0, [1 / 3] * 3),
        ("lp", [3.0, 0.0, 4.0], 5.0, [0.6, 0.0, 0.8]),
        ("lp", [0.0, 0.0, 0.0], 0.0, [0.0] * 3),
        ("lse", [0.0, 0.0, 0.0], np.log(3), [1 / 3] * 3),
        ("lse", [1000.0, 0.0, 0.0], 1000.0, [1.0, 0.0, 0.0]),
    ],
)
def test_the_pools_and_their_rules(pool, x, value, gradient):
    found, pullback = reference.POOLS[pool](np.array(x).reshape(1, 3, 1), (1,))
    assert found.item() == pytest.approx(value)
    np.testing.assert_allclose(pullback(np.ones((1, 1, 1))).ravel(), gradient)


@pytest.mark.parametrize(
    ("gate", "x", "value", "slope"),
    [
        ("sigmoid", 0.0, 0.5, 0.25),
        ("sigmoid", -1000.0, 0.0, 0.0),
        ("sigmoid", np.inf, 1.0, 0.0),
        ("double_sigmoid", 0.0, 1.0, 0.5),
        ("hard_sigmoid", 1.0, 4 / 6, 1 / 6),
        ("hard_sigmoid", 3.0, 1.0, 0.0),
        ("hard_sigmoid", -3.0, 0.0, 0.0),
        ("hard_sigmoid_keras2", 1.0, 0.7, 0.2),
        ("hard_sigmoid_keras2", 2.5, 1.0, 0.0),
        ("hard_sigmoid_keras2", -9.0, 0.0, 0.0),
    ],
)
def test_the_gates_and_their_kinks(gate, x, value, slope):
    found, pullback = reference.GATES[gate](np.array(x))
    assert found == pytest.approx(value)
    assert pullback(1.0) == pytest.approx(slope)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32), st.sampled_from(sorted(specs.SPECS)), st.booleans())
def test_samples_and_positions_are_independent_as_they_should_be(seed, name, mirrored):
    """The block commutes with a permutation of the batch, and eval with taking one sample."""
    spec = specs.SPECS[name]
    weights = specs.weights(spec, seed)
    x = np.random.default_rng(seed).standard_normal(specs.feature_map(spec).shape)
    whole = reference.run(spec, weights, x).output
    np.testing.assert_allclose(reference.run(spec, weights, x[:1]).output, whole[:1], rtol=1e-12)
    order = np.array([2, 0, 1])
    trained = reference.run(spec, weights, x, training=True).output
    permuted = reference.run(spec, weights, x[order], training=True).output
    np.testing.assert_allclose(permuted, trained[order], rtol=1e-10)
    if mirrored and spec.has_spatial_gate:
        kernel = {"spatial.conv.kernel": weights["spatial.conv.kernel"][::-1]}
        flipped = reference.run(spec, weights | kernel, x[:, ::-1]).output
        np.testing.assert_allclose(flipped[:, ::-1], whole, rtol=1e-10)


def test_the_order_of_the_weights_does_not_matter():
    spec = CBAMSpec.preset("official", 8, hidden=2)
    weights, x = specs.weights(spec), specs.feature_map(spec)
    turned = dict(reversed(weights.items()))
    for training in (False, True):
        steps = [reference.run(spec, w, x, training=training) for w in (weights, turned)]
        assert steps[0].output.tobytes() == steps[1].output.tobytes()
        assert steps[0].statistics == steps[1].statistics


def test_nan_and_infinity_pass():
    spec = CBAMSpec(4, hidden=2)
    weights = specs.weights(spec)
    x = specs.feature_map(spec)
    x[1, 2, 2, 0] = np.nan
    step = reference.run(spec, weights, x)
    assert np.isnan(step.output[1]).all()
    assert np.isfinite(step.output[[0, 2]]).all()
    dx, gradients = step.pullback(np.ones_like(x))
    assert np.isfinite(dx[[0, 2]]).all()
    assert all(np.isnan(gradient).any() for gradient in gradients.values())


def test_an_empty_batch_keeps_the_statistics():
    spec = CBAMSpec.preset("official", 8)
    weights = specs.weights(spec)
    step = reference.run(spec, weights, np.zeros((0, 4, 4, 8)), training=True)
    assert step.output.shape == (0, 4, 4, 8)
    assert step.statistics["spatial.norm.var"] == weights["spatial.norm.var"]


def test_what_does_not_fit_is_refused():
    spec = CBAMSpec(8, spatial_norm=True)
    weights = specs.weights(spec)
    with pytest.raises(ValueError, match=r"x has 4 channels \(shape \(1, 3, 3, 4\)"):
        reference.run(spec, weights, np.zeros((1, 3, 3, 4)))
    with pytest.raises(ValueError, match=r"missing: channel\.reduce\.kernel"):
        reference.run(spec, {}, np.zeros((1, 3, 3, 8)))
    with pytest.raises(ValueError, match="batch statistics need at least 2"):
        reference.run(spec, weights, np.zeros((1, 1, 1, 8)), training=True)

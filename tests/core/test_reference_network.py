"""The judge of networks, judged: by finite differences, by hand, and by what it is made of."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from cbam_core import (
    Architecture,
    network_shapes,
    reference_network,
    weight_shapes,
)
from cbam_core.costs import is_statistic
from cbam_core.pullbacks import convolve, max_pool
from tests import networks
from tests.networks import NETWORKS, picture


@pytest.mark.parametrize("training", [False, True], ids=["eval", "train"])
@pytest.mark.parametrize("name", NETWORKS)
def test_gradients_are_finite_differences(name, training):
    architecture, x = NETWORKS[name], picture()
    weights = networks.weights(architecture)
    step = reference_network.run(architecture, weights, x, training=training)
    cotangent = np.random.default_rng(1).standard_normal(step.output.shape)
    dx, gradients = step.pullback(cotangent)
    rng = np.random.default_rng(2)

    def slope(direction, **changed):
        # So short that no map on the way changes the side of a relu.
        reach = 1e-8
        ends = [
            reference_network.run(
                architecture,
                weights | {n: weights[n] + sign * reach * d for n, d in changed.items()},
                x + sign * reach * direction,
                training=training,
            ).output
            for sign in (1, -1)
        ]
        return ((ends[0] - ends[1]) * cotangent).sum() / (2 * reach)

    direction = rng.standard_normal(x.shape)
    assert slope(direction) == pytest.approx((dx * direction).sum(), rel=1e-5, abs=1e-5)
    for weight, gradient in gradients.items():
        direction = rng.standard_normal(gradient.shape)
        found = slope(np.zeros_like(x), **{weight: direction})
        assert found == pytest.approx((gradient * direction).sum(), rel=1e-5, abs=1e-5), weight
    assert set(gradients) == {n for n in network_shapes(architecture) if not is_statistic(n)}


def test_a_strided_grouped_convolution_by_hand():
    # Two groups of one channel: the first kernel takes its right neighbour, the second its sum.
    kernel = np.zeros((3, 3, 1, 2))
    kernel[1, 2, 0, 0] = 1.0
    kernel[:, :, 0, 1] = 1.0
    x = np.arange(18.0).reshape(1, 3, 3, 2)
    y, pullback = convolve(x, {"kernel": kernel}, stride=2, groups=2)
    assert y.shape == (1, 2, 2, 2)
    # x[..., 0] = 0 2 4 / 6 8 10 / 12 14 16: right of the corners stand 2, padding, 14, padding.
    assert y[0, :, :, 0].tolist() == [[2.0, 0.0], [14.0, 0.0]]
    # x[..., 1] = 1 3 5 / 7 9 11 / 13 15 17: each corner sees itself and three neighbours.
    assert y[0, :, :, 1].tolist() == [[20.0, 28.0], [44.0, 52.0]]
    dx, gradients = pullback(np.array([[1.0, 2.0], [3.0, 4.0]])[None, :, :, None] * [1.0, 10.0])
    assert dx[0, :, :, 0].tolist() == [[0.0, 1.0, 0.0], [0.0, 0.0, 0.0], [0.0, 3.0, 0.0]]
    assert dx[0, :, :, 1].tolist() == [[10.0, 30.0, 20.0], [40.0, 100.0, 60.0], [30.0, 70.0, 40.0]]
    # The middle tap of the second kernel saw the corners.
    assert gradients["kernel"][1, 1, 0, 1] == 10 * (1 * 1 + 2 * 5 + 3 * 13 + 4 * 17)


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("size", [1, 3, 7])
def test_a_convolution_is_its_definition(size, stride):
    rng = np.random.default_rng(0)
    x, kernel = rng.standard_normal((2, 6, 5, 4)), rng.standard_normal((size, size, 2, 6))
    y, _ = convolve(x, {"kernel": kernel}, stride=stride, groups=2)
    for sample, row, column, out in np.ndindex(y.shape):
        total = 0.0
        for i, j, channel in np.ndindex(size, size, 2):
            at = row * stride + i - size // 2, column * stride + j - size // 2
            if 0 <= at[0] < 6 and 0 <= at[1] < 5:
                total += x[(sample, *at, out // 3 * 2 + channel)] * kernel[i, j, channel, out]
        assert y[sample, row, column, out] == pytest.approx(total, abs=1e-12)


def test_a_max_pool_by_hand():
    x = np.array([[5.0, 1.0, 1.0, 7.0], [0.0, 7.0, 7.0, 2.0], [-1.0, -2.0, -3.0, -4.0]])
    y, pullback = max_pool(x[None, :, :, None])
    assert y[0, :, :, 0].tolist() == [[7.0, 7.0], [7.0, 7.0]]
    # Of the ties the first of its window, row by row, gets all: the 7 in the corner, where seen.
    dx = pullback(np.array([[1.0, 2.0], [10.0, 20.0]])[None, :, :, None])
    expected = [[0.0, 0.0, 0.0, 2.0], [0.0, 11.0 + 20.0, 0.0, 0.0], [0.0] * 4]
    assert dx[0, :, :, 0].tolist() == expected
    # Padding never wins.
    assert max_pool(-np.ones((1, 1, 1, 1)))[0].item() == -1.0


def copying(architecture: Architecture) -> dict[str, np.ndarray]:
    """Kernels that copy the first channel and norms that double it; all else is 0.

    The gates of an attention are then 0.5 everywhere, and it leaves a quarter.
    """
    weights = {name: np.zeros(shape) for name, shape in network_shapes(architecture).items()}
    for unit in architecture.units():
        middle = unit.kernel_size // 2
        weights[f"{unit.conv}.kernel"][middle, middle, 0, 0] = 1.0
        weights[f"{unit.norm}.scale"][:] = 2.0
        weights[f"{unit.norm}.var"][:] = 1 - 1e-5
    weights["head.linear.kernel"][0] = [1.0, -3.0]
    weights["head.linear.bias"][:] = [0.5, 0.0]
    return weights


RED = np.array([[1.0, -1.0], [3.0, 0.0]])


@pytest.mark.parametrize(
    ("fields", "stem", "stage"),
    [
        # Of a residual block, twice the stem's map through two units, and the map itself.
        ({}, 2, 8 + 2),
        ({"attention": "cbam"}, 2, 8 / 4 + 2),
        ({"attention": "cbam", "placement": "stem_and_tail"}, 2 / 4, (2 + 2 / 4) / 4),
        # Of a separable block, the stem's map through two units, an attention behind every relu.
        ({"kind": "separable"}, 2, 8),
        ({"kind": "separable", "attention": "cbam"}, 2 / 4, 2 / 64 * 4),
    ],
)
def test_a_network_of_one_block_by_hand(fields, stem, stage):
    """Every map is a multiple of the red that is positive, of mean 1."""
    spec = {"spatial_norm": False} if "attention" in fields else {}
    cifar = {"kind": "basic", "depths": (1,), "widths": (64,), "stem": "cifar", "num_classes": 2}
    architecture = Architecture(**{**cifar, **fields}, spec=spec)
    x = np.zeros((1, 2, 2, 3))
    x[..., 0] = RED
    step = reference_network.run(architecture, copying(architecture), x)
    positive = np.maximum(RED, 0)
    for found, factor in zip(step.features, (stem, stage), strict=True):
        np.testing.assert_allclose(found[0, :, :, 0], factor * positive, rtol=1e-14)
        assert not found[..., 1:].any()
    np.testing.assert_allclose(step.output, [[0.5 + stage, -3 * stage]], rtol=1e-14)


def test_a_gradient_by_hand():
    architecture = Architecture("basic", (1,), (64,), stem="cifar", num_classes=2)
    weights = copying(architecture)
    weights["stage1.block0.conv2.kernel"] *= -0.125
    x = np.zeros((1, 2, 2, 3))
    x[..., 0] = RED
    dx, gradients = reference_network.run(architecture, weights, x).pullback(np.array([[1.0, 0.0]]))
    # Twice red less once red is left, of which each position counts a quarter; where red is not
    # positive a relu stops the gradient, also at 0.
    np.testing.assert_allclose(dx[0, :, :, 0], [[0.25, 0.0], [0.25, 0.0]], rtol=1e-14)
    np.testing.assert_allclose(gradients["head.linear.kernel"][0], [1.0, 0.0], rtol=1e-14)
    assert gradients["head.linear.bias"].tolist() == [1.0, 0.0]


def test_dual_pooling_by_hand():
    fields = {"stem": "cifar", "num_classes": 2, "head": "dual_pooling"}
    architecture = Architecture("separable", (1,), (64,), **fields)
    weights = copying(architecture)
    weights["head.reduce.kernel"][0, 0] = 1.0
    weights["head.reduce.kernel"][64, 0] = 10.0
    weights["head.reduce.bias"][0] = -4.0
    x = np.zeros((1, 2, 2, 3))
    x[..., 0] = RED
    # Behind the last stage stands 8 times red: average 8, maximum 24.
    found = reference_network.run(architecture, weights, x).output
    np.testing.assert_allclose(found, [[0.5 + 244, -3 * 244]], rtol=1e-14)


@pytest.mark.parametrize("name", NETWORKS)
def test_statistics_are_those_of_the_maps(name):
    """The stem's running statistics by NumPy's own mean and unbiased variance."""
    architecture, x = NETWORKS[name], picture()
    weights = networks.weights(architecture)
    unit = architecture.stem_unit
    maps, _ = convolve(x, {"kernel": weights["stem.conv.kernel"]}, stride=unit.stride)
    trained = reference_network.run(architecture, weights, x, training=True).statistics
    for leaf, batch in (("mean", maps.mean((0, 1, 2))), ("var", maps.var((0, 1, 2), ddof=1))):
        expected = 0.9 * weights[f"stem.norm.{leaf}"] + 0.1 * batch
        np.testing.assert_allclose(trained[f"stem.norm.{leaf}"], expected, rtol=1e-12)
    assert set(trained) == {n for n in network_shapes(architecture) if is_statistic(n)}
    kept = reference_network.run(architecture, weights, x).statistics
    assert all((kept[statistic] == weights[statistic]).all() for statistic in kept)


def test_a_gate_that_is_1_changes_nothing():
    for name in ("basic_cbam", "stem_and_tail", "separable_cbam"):
        spec = {"gate": "double_sigmoid", "spatial_norm": False}
        attended = dataclasses.replace(NETWORKS[name], spec=spec)
        weights, x = networks.weights(attended), picture()
        for path, spec in attended.attentions():
            for leaf in weight_shapes(spec):
                weights[f"{path}.{leaf}"] = np.zeros_like(weights[f"{path}.{leaf}"])
        bare = dataclasses.replace(attended, attention=None)
        own = {name: weights[name] for name in network_shapes(bare)}
        found = reference_network.run(attended, weights, x, training=True)
        expected = reference_network.run(bare, own, x, training=True)
        assert found.output.tobytes() == expected.output.tobytes()
        assert len(found.gates) == 2 * len(list(attended.attentions()))


def test_what_does_not_fit_is_refused():
    architecture = NETWORKS["plain"]
    weights = networks.weights(architecture)
    with pytest.raises(
        ValueError, match=r"x has shape \(1, 3, 9, 9\), expected .* height, width, 3\)"
    ):
        reference_network.run(architecture, weights, np.zeros((1, 3, 9, 9)))
    with pytest.raises(ValueError, match=r"missing: stem\.conv\.kernel \(7, 7, 3, 64\)"):
        reference_network.run(architecture, {}, picture())
    with pytest.raises(ValueError, match=r"stage2\.block0\.norm1 sees one position in all"):
        reference_network.run(architecture, weights, picture(8, 8)[:1], training=True)

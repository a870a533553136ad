"""Canonical names and shapes, strict checking, initial values, costs."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given

from cbam_core import (
    SCHEMES,
    STATISTICS,
    CBAMSpec,
    check_weights,
    flops,
    initial_weights,
    parameters,
    reference,
    weight_shapes,
)
from tests.core.test_spec import SPECS


def test_all_names_in_their_order():
    spec = CBAMSpec(8, hidden=2, mlp_bias=True, spatial_bias=True, spatial_norm=True, rank=3)
    assert weight_shapes(spec) == {
        "channel.reduce.kernel": (8, 2),
        "channel.reduce.bias": (2,),
        "channel.expand.kernel": (2, 8),
        "channel.expand.bias": (8,),
        "spatial.conv.kernel": (7, 7, 7, 2, 1),
        "spatial.conv.bias": (1,),
        "spatial.norm.scale": (1,),
        "spatial.norm.bias": (1,),
        "spatial.norm.mean": (1,),
        "spatial.norm.var": (1,),
    }


@pytest.mark.parametrize(
    ("changes", "shapes"),
    [
        ({"spatial_descriptor": "conv"}, {"squeeze": (8, 1), "conv": (3, 3, 1, 1)}),
        ({"pooling": "light"}, {"conv": (3, 3, 1, 1)}),
        ({"rank": 1}, {"conv": (3, 2, 1)}),
    ],
)
def test_the_spatial_kernels_of_variants(changes, shapes):
    spec = CBAMSpec(8, kernel_size=3, order="spatial", **changes)
    assert weight_shapes(spec) == {f"spatial.{name}.kernel": s for name, s in shapes.items()}


@given(SPECS)
def test_a_gate_alone_has_the_weights_of_its_half(spec):
    both = weight_shapes(spec.replace(order="channel_spatial"))
    halves = [weight_shapes(spec.replace(order=order)) for order in ("channel", "spatial")]
    assert halves[0] | halves[1] == both


def test_one_error_lists_all_that_is_wrong():
    spec = CBAMSpec(8, hidden=2)
    weights = initial_weights(spec)
    del weights["spatial.conv.kernel"]
    weights["channel.reduce.kernel"] = np.zeros((2, 8))
    weights["channel.reduce.bias"] = np.zeros(2)
    weights["channel.expand.kernel"] = np.zeros((2, 8), np.int64)
    with pytest.raises(ValueError, match="do not fit") as caught:
        check_weights(spec, weights)
    assert str(caught.value) == (
        "these weights do not fit, and none has been loaded:\n"
        "  missing: spatial.conv.kernel (7, 7, 2, 1)\n"
        "  unexpected: channel.reduce.bias (2,)\n"
        "  misshaped: channel.reduce.kernel has shape (2, 8), expected (8, 2)\n"
        "  of another dtype: channel.expand.kernel has int64, "
        "expected float64, float32, float16, bfloat16\n"
        "pass exactly the names and shapes of cbam_core.weight_shapes(spec)"
    )


@pytest.mark.parametrize("scheme", SCHEMES)
def test_the_same_seed_draws_the_same_weights(scheme):
    spec = CBAMSpec(32, gate="double_sigmoid", mlp_bias=True, spatial_norm=True)
    first, again = (initial_weights(spec, scheme, seed=4) for _ in range(2))
    other = initial_weights(spec, scheme, seed=5)
    check_weights(spec, first)
    assert all(first[name].tobytes() == again[name].tobytes() for name in first)
    assert not np.array_equal(first["channel.reduce.kernel"], other["channel.reduce.kernel"])
    assert all(array.dtype == np.float32 for array in first.values())


@pytest.mark.parametrize(
    ("scheme", "name", "deviation"),
    [
        ("authors", "channel.reduce.kernel", 1 / np.sqrt(3 * 512)),
        ("authors", "channel.expand.kernel", 1 / np.sqrt(3 * 128)),
        ("authors", "spatial.conv.kernel", np.sqrt(2 / 31**2)),
        ("kaiming_fan_out", "channel.reduce.kernel", np.sqrt(2 / 128)),
        ("kaiming_fan_out", "channel.expand.kernel", np.sqrt(2 / 512)),
        ("he_normal", "channel.reduce.kernel", np.sqrt(2 / 512)),
        ("he_normal", "spatial.conv.kernel", np.sqrt(2 / (2 * 31**2))),
    ],
)
def test_the_schemes_have_their_deviations(scheme, name, deviation):
    spec = CBAMSpec(512, hidden=128, kernel_size=31)
    array = initial_weights(spec, scheme)[name]
    assert array.std() == pytest.approx(deviation, rel=0.05)
    if scheme == "he_normal":
        assert np.abs(array).max() <= 2 * deviation / 0.8796


def test_the_authors_spatial_gate_starts_at_one_half():
    spec = CBAMSpec.preset("official", 16)
    step = reference.run(spec, initial_weights(spec, "authors"), np.ones((1, 5, 5, 16)))
    assert (step.gates["spatial"] == 0.5).all()


@pytest.mark.parametrize("norm", [False, True])
@pytest.mark.parametrize("order", ["channel_spatial", "spatial_channel", "parallel", "spatial"])
def test_identity_is_exact(order, norm):
    spec = CBAMSpec.preset("identity", 16, order=order, spatial_norm=norm, mlp_bias=True)
    x = np.random.default_rng(0).standard_normal((2, 5, 5, 16))
    for training in (False, True):
        step = reference.run(spec, initial_weights(spec, "identity"), x, training=training)
        assert step.output.tobytes() == x.tobytes()
        _, gradients = step.pullback(np.random.default_rng(1).standard_normal(x.shape))
        assert any(gradient.any() for gradient in gradients.values())


def test_a_spec_that_is_no_identity_is_refused():
    with pytest.raises(ValueError, match="needs gate='double_sigmoid' and residual=False, and the"):
        initial_weights(CBAMSpec(8), "identity")
    with pytest.raises(ValueError, match="scheme='xavier' is unknown; choose from authors"):
        initial_weights(CBAMSpec(8), "xavier")


@given(SPECS)
def test_parameters_count_the_table(spec):
    counted = sum(
        int(np.prod(shape)) for name, shape in weight_shapes(spec).items() if name not in STATISTICS
    )
    assert parameters(spec) == counted


def test_the_published_counts():
    # The second seed: C=512, r=16, k=7 without biases; thop counts the average pooling as well.
    spec = CBAMSpec(512)
    assert parameters(spec) == 32_866
    assert flops(spec, 7, 7) + 512 * (7 * 7 + 1) == 95_938
    assert flops(CBAMSpec(512, pooling="light"), 7, 7) == 2 * 512 * 32 + 49 * 49
    assert flops(CBAMSpec(8, order="spatial", spatial_descriptor="conv"), 3, 5) == 15 * (49 + 8)


def test_a_size_of_another_rank_is_refused():
    with pytest.raises(ValueError, match=r"size=\(7,\) does not fit rank=2; pass 2 positive"):
        flops(CBAMSpec(8), 7)

"""What kernels, and other primitives with gradients of their own, must keep of the composition."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from cbam_core import CBAMSpec
from tests import specs
from tests.compare import assert_equal

LIMITS = {"float64": 1e-12, "float32": 4e-6}
ORDERS = ["channel_spatial", "spatial_channel", "parallel", "channel", "spatial"]
CASES = {
    **{order: CBAMSpec(6, hidden=3, kernel_size=3, order=order) for order in ORDERS},
    **{
        f"{order}_residual": CBAMSpec(6, hidden=3, order=order, residual=True, mlp_bias=True)
        for order in ORDERS
    },
    "official": specs.SPECS["official"],
    "max_avg": CBAMSpec(6, hidden=3, channel_pools=("max", "avg"), gate="hard_sigmoid"),
    "max": CBAMSpec(6, hidden=3, channel_pools=("max",), order="spatial_channel"),
    "avg": CBAMSpec(6, hidden=3, channel_pools=("avg",), order="spatial_channel"),
    "everything": specs.SPECS["everything"],
    "light": CBAMSpec(6, hidden=3, pooling="light", order="spatial_channel"),
    "parallel_conv": specs.SPECS["parallel_conv"],
    "signals": specs.SPECS["signals"],
    "volumes": specs.SPECS["volumes"],
}


def feature_map(spec, kind):
    """(3, *S, C); the first sample holds what `kind` says, the last two what a ReLU leaves."""
    x = specs.feature_map(spec)
    corner = (0,) * (x.ndim - 1)
    if kind == "integers":
        x = np.maximum(np.random.default_rng(1).integers(-2, 3, x.shape), 0).astype(float)
    elif kind == "negative":
        x -= 1
    elif kind == "constant":
        x[0] = 0.5
    elif kind == "nan":
        x[corner] = np.nan
    elif kind == "infinity":
        x[corner] = np.inf
    elif kind == "minus_infinity":
        x[corner] = -np.inf
    return x


def arrays_of(framework, spec, x, dtype, training=False, **options):
    block = framework.build("CBAM.from_spec", spec, dtype=dtype, **options)
    framework.package.load_canonical(block, specs.weights(spec))
    cotangent = np.random.default_rng(2).standard_normal(x.shape)
    arguments = (x.astype(dtype), cotangent.astype(dtype))
    with np.errstate(invalid="ignore"):
        return framework.differentiate(block, *arguments, training=training)


@pytest.fixture(scope="module")
def precise(framework):
    """The most precise dtype for which there are kernels, if there are any."""
    x = np.ones((1, 2, 2, 3))
    known = (dtype for dtype in LIMITS if framework.path(x.astype(dtype)) != "composition")
    return next(known, "float64")


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        *itertools.product(CASES, ["integers"]),
        *itertools.product(ORDERS, ["relu", "negative", "constant"]),
    ],
)
def test_gradients_are_those_of_the_composition(framework, precise, name, kind):
    spec = CASES[name]
    x = feature_map(spec, kind)
    # The gradient of a norm by its batch is a difference of what is almost equal.
    training = spec.spatial_norm and precise == "float64"
    found, right = (
        arrays_of(framework, spec, x, precise, training, kernels=kernels)
        for kernels in (True, False)
    )
    assert_equal(found, right, LIMITS[precise])


@pytest.mark.parametrize("kind", ["nan", "infinity", "minus_infinity"])
@pytest.mark.parametrize("order", ORDERS)
def test_what_is_not_finite_passes_as_in_the_composition(framework, order, kind):
    spec = CASES[order]
    x = feature_map(spec, kind)
    found, right = (
        arrays_of(framework, spec, x, "float32", kernels=kernels) for kernels in (True, False)
    )
    # Infinity over infinity is NaN in one order of products and infinity in another.
    finite = {name: np.where(np.isfinite(array), array, np.nan) for name, array in right.items()}
    assert_equal(
        {name: np.where(np.isfinite(array), array, np.nan) for name, array in found.items()},
        finite,
        LIMITS["float32"],
    )


@pytest.mark.compiler
@pytest.mark.parametrize("order", ORDERS)
def test_only_x_and_small_maps_are_kept_for_the_backward_pass(framework, order):
    spec = CBAMSpec(256, hidden=1, order=order, residual=True)
    x = np.random.default_rng(0).standard_normal((1, 16, 16, 256)).astype(np.float32)
    block = framework.build("CBAM.from_spec", spec)
    framework.package.load_canonical(block, specs.weights(spec))
    largest, *others = sorted(map(math.prod, framework.kept(block, x)), reverse=True)
    weights = sum(weight.size for weight in specs.weights(spec).values())
    assert largest == x.size
    assert sum(others) - weights < 0.05 * x.size, others


def test_repr_shows_where_kernels_were_turned_off(framework):
    for name in ("CBAM", "ChannelAttention", "SpatialAttention", "SqueezeExcitation"):
        assert repr(framework.build(name, 64)) == f"{name}(64)"
        assert repr(framework.build(name, 64, kernels=False)) == f"{name}(64, kernels=False)"


def test_the_environment_turns_kernels_off(framework, monkeypatch):
    """The bits are then those of a block that was built without."""
    # Of a size of its own, for a compiled function keeps the path that it was traced on.
    spec = specs.SPECS["everything"].replace(kernel_size=5)
    x = feature_map(spec, "relu")
    right = arrays_of(framework, spec, x, "float32", kernels=False)
    monkeypatch.setenv("CBAM_KERNELS", "off")
    found = arrays_of(framework, spec, x, "float32")
    assert {n: a.tobytes() for n, a in found.items()} == {n: a.tobytes() for n, a in right.items()}

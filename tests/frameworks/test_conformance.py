"""What every implementation must do: one test file for all frameworks."""

from __future__ import annotations

import re

import numpy as np
import pytest

import cbam_core
from cbam_core import PRESETS, CBAMSpec, reference
from tests import specs
from tests.compare import assert_equal

HALF_EPS = {"bfloat16": 2.0**-7, "float16": 2.0**-10}


def expected(spec, weights, x, cotangent, training):
    """The reference's arrays under the names that `evaluate` uses."""
    return reference.run(spec, weights, x, training=training).quantities(cotangent)


@pytest.mark.parametrize("training", [False, True], ids=["eval", "train"])
@pytest.mark.parametrize("name", specs.SPECS)
def test_equals_the_reference(framework, name, training):
    spec = specs.SPECS[name]
    weights, x = specs.weights(spec), specs.feature_map(spec)
    cotangent = np.random.default_rng(1).standard_normal(x.shape)
    arrays, dtype = framework.evaluate(
        spec, weights, x, cotangent, dtype="float64", training=training
    )
    assert dtype == "float64"
    assert_equal(arrays, expected(spec, weights, x, cotangent, training), 1e-12)


@pytest.mark.parametrize("training", [False, True], ids=["eval", "train"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_keeps_the_dtype_and_rounds_once(framework, dtype, training):
    spec = CBAMSpec.preset("official", 8, hidden=2)
    # Few bits, so that every dtype holds the arrays as they are.
    weights = {n: np.round(w * 16) / 16 for n, w in specs.weights(spec).items()}
    x = np.round(specs.feature_map(spec) * 16) / 16
    cotangent = np.ones_like(x)
    arrays, found = framework.evaluate(spec, weights, x, cotangent, dtype=dtype, training=training)
    assert found == dtype
    output = expected(spec, weights, x, cotangent, training)["output"]
    limit = 2e-6 if dtype == "float32" else 4 * HALF_EPS[dtype]
    assert_equal({"output": arrays["output"]}, {"output": output}, limit)


def test_half_precision_sums_do_not_overflow(framework):
    spec = CBAMSpec(4, hidden=2, channel_pools=("avg", "max", "lp"))
    weights = {n: w / 1024 for n, w in specs.weights(spec).items()}
    weights = {n: w.astype(np.float16).astype(np.float64) for n, w in weights.items()}
    x = np.full((1, 112, 112, 4), 512.0)
    arrays, _ = framework.evaluate(spec, weights, x, np.ones_like(x), dtype="float16")
    output = reference.run(spec, weights, x).output
    assert_equal({"output": arrays["output"]}, {"output": output}, 4 * HALF_EPS["float16"])


@pytest.mark.parametrize("name", specs.SPECS)
def test_weights_come_back_with_the_same_bits(framework, name):
    spec = specs.SPECS[name]
    weights = specs.weights(spec)
    block = framework.build("CBAM.from_spec", spec, dtype="float64")
    framework.package.load_canonical(block, weights)
    found = framework.package.to_canonical(block)
    assert list(found) == list(weights)
    for key in weights:
        assert found[key].tobytes() == weights[key].tobytes(), key
        assert found[key].shape == weights[key].shape
    assert block.spec == spec


def test_a_wrong_set_of_weights_is_refused_whole(framework):
    block = framework.build("CBAM", 8, mlp_bias=True)
    before = framework.package.to_canonical(block)
    weights = cbam_core.initial_weights(block.spec, seed=5)
    weights["channel.expand.kernel"] = weights["channel.expand.kernel"].T.copy()
    weights["spatial.norm.scale"] = np.ones(1)
    del weights["channel.reduce.bias"]
    with pytest.raises(ValueError, match="none has been loaded") as caught:
        framework.package.load_canonical(block, weights)
    assert "missing: channel.reduce.bias (1,)" in str(caught.value)
    assert "unexpected: spatial.norm.scale (1,)" in str(caught.value)
    assert "misshaped: channel.expand.kernel has shape (8, 1)" in str(caught.value)
    after = framework.package.to_canonical(block)
    assert all(after[name].tobytes() == before[name].tobytes() for name in before)


@pytest.mark.parametrize(
    ("cls", "prefix", "changes"),
    [
        ("ChannelAttention", "channel.", {"order": "channel"}),
        ("SpatialAttention", "spatial.", {"order": "spatial"}),
        ("SqueezeExcitation", "channel.", {"order": "channel", "channel_pools": ("avg",)}),
    ],
)
def test_each_gate_stands_alone(framework, cls, prefix, changes):
    spec = CBAMSpec(8, hidden=2, **changes)
    module = framework.build(f"{cls}.from_spec", spec, dtype="float64")
    weights = specs.weights(spec)
    framework.package.load_canonical(module, weights)
    found = framework.package.to_canonical(module)
    assert list(found) == list(cbam_core.weight_shapes(module.spec))
    assert all(name.startswith(prefix) for name in found)
    x = specs.feature_map(spec)
    step = reference.run(spec, weights, x)
    assert_equal({"": framework.call(module, x)}, {"": step.output}, 1e-12)
    key = prefix.removesuffix(".")
    assert_equal({"": framework.gate(module, x)}, {"": step.gates[key]}, 1e-12)
    assert cbam_core.weight_shapes(module.spec) == cbam_core.weight_shapes(spec)


@pytest.mark.parametrize("training", [False, True], ids=["eval", "train"])
@pytest.mark.parametrize("preset", PRESETS)
def test_an_empty_batch_stays_empty(framework, preset, training):
    spec = CBAMSpec.preset(preset, 8, kernel_size=3)
    block = framework.build("CBAM.from_spec", spec)
    before = framework.package.to_canonical(block)
    y = framework.call(block, np.zeros((0, 5, 4, 8), np.float32), training=training)
    assert y.shape == (0, 5, 4, 8)
    after = framework.package.to_canonical(block)
    assert all(after[name].tobytes() == before[name].tobytes() for name in before)


@pytest.mark.parametrize("spatial_norm", [False, True])
def test_identity_returns_its_input_bit_for_bit(framework, spatial_norm):
    spec = CBAMSpec.preset("identity", 8, spatial_norm=spatial_norm)
    block = framework.build("CBAM.from_spec", spec)
    framework.package.load_canonical(block, cbam_core.initial_weights(spec, "identity"))
    x = np.random.default_rng(0).standard_normal((2, 5, 4, 8)).astype(np.float32)
    for training in (False, True):
        assert framework.call(block, x, training=training).tobytes() == x.tobytes()


@pytest.mark.parametrize(
    "expression",
    [
        "CBAM(64)",
        "CBAM(64, reduction=8, channel_pools=('avg', 'lse'), gate='hard_sigmoid')",
        "ChannelAttention(64, hidden=5, mlp_bias=True)",
        "SpatialAttention(64, kernel_size=3, spatial_norm=True, norm_momentum=0.01)",
        "SqueezeExcitation(64, reduction=8)",
    ],
)
def test_repr_shows_the_call_that_builds_it(framework, expression):
    name, _, rest = expression.partition("(")
    arguments = eval(f"dict({rest.replace('64', 'channels=64', 1)}")
    module = framework.build(name, arguments.pop("channels"), **arguments)
    assert repr(module) == expression


BAD_ARGUMENTS = [
    (
        {"kernel_size": 4},
        ValueError,
        "kernel_size=4 is even, and only an odd kernel keeps the size of the map; pass 3 or 5",
    ),
    ({"hidden": 0}, ValueError, "hidden=0 is below 1; pass a positive integer"),
    ({"reduction": -2}, ValueError, "reduction=-2 is below 1; pass a positive integer"),
    ({"reduction": 1.5}, TypeError, "reduction=1.5 is not an integer; pass a whole number"),
    (
        {"gate": "tanh"},
        ValueError,
        "gate='tanh' is unknown; choose from "
        "sigmoid, hard_sigmoid, hard_sigmoid_keras2, double_sigmoid",
    ),
    (
        {"order": "both"},
        ValueError,
        "order='both' is unknown; choose from "
        "channel_spatial, spatial_channel, parallel, channel, spatial",
    ),
    (
        {"channel_pools": ("avg", "min")},
        ValueError,
        "channel_pools='min' is unknown; choose from avg, max, lp, lse",
    ),
    (
        {"channel_pools": ()},
        ValueError,
        "channel_pools=() is empty; pass at least one of avg, max, lp, lse",
    ),
    (
        {"channel_pools": "avg"},
        TypeError,
        "channel_pools='avg' is no sequence of names; pass a tuple such as ('avg', 'max')",
    ),
    (
        {"rank": 4},
        ValueError,
        "rank=4 is not supported; pass 1 for signals, 2 for images or 3 for volumes",
    ),
    ({"mlp_bias": "yes"}, TypeError, "mlp_bias='yes' is not a bool; pass True or False"),
]


@pytest.mark.parametrize(
    ("arguments", "error", "message"), BAD_ARGUMENTS, ids=lambda value: str(value)[:40]
)
def test_a_bad_argument_is_named(framework, arguments, error, message):
    # At construction, or in linen at the latest when the module is used.
    with pytest.raises(error, match=re.escape(message)):
        framework.call(framework.build("CBAM", 8, **arguments), np.zeros((1, 5, 5, 8), np.float32))


def test_bad_channels_are_named(framework):
    with pytest.raises(ValueError, match="channels=0 is below 1; pass a positive integer"):
        framework.call(framework.build("CBAM", 0), np.zeros((1, 5, 5, 8), np.float32))


BAD_INPUTS = [
    (
        np.zeros((2, 5, 8), np.float32),
        ValueError,
        "x has 3 axes (shape {shape}), expected 4 for rank=2: ({layout}); "
        "reshape x or build the module with another rank",
    ),
    (
        np.zeros((8,), np.float32),
        ValueError,
        "x has 1 axes (shape {shape}), expected 4 for rank=2: ({layout}); "
        "reshape x or build the module with another rank",
    ),
    (
        np.zeros((2, 5, 4, 6), np.float32),
        ValueError,
        "x has 6 channels (shape {shape}, read as ({layout})), expected channels=8; "
        "build the module with channels=6 or check the layout of x",
    ),
    (
        np.zeros((2, 0, 4, 8), np.float32),
        ValueError,
        "x has a map without positions (shape {shape}, read as ({layout})), and nothing has "
        "neither average nor maximum; pass maps of at least one position",
    ),
    (
        np.zeros((2, 5, 4, 8), np.int32),
        TypeError,
        "x has dtype int32, expected a floating-point type; convert it first, "
        "for example to float32",
    ),
]


@pytest.mark.parametrize("order", ["channel_spatial", "spatial_channel", "parallel"])
@pytest.mark.parametrize(("x", "error", "message"), BAD_INPUTS, ids=lambda value: str(value)[:30])
def test_a_bad_input_is_named(framework, x, error, message, order):
    block = framework.build("CBAM", 8, order=order)
    if framework.package.__name__ == "cbam_torch":
        shape = (x.shape[0], *x.shape[:0:-1][:1], *x.shape[1:-1])
        layout = "batch, channels, height, width"
    else:
        shape, layout = x.shape, "batch, height, width, channels"
    message = message.format(shape=shape, layout=layout)
    with pytest.raises(error, match=re.escape(message)):
        framework.call(block, x)


def test_statistics_of_one_value_are_refused(framework):
    block = framework.build("CBAM", 8, spatial_norm=True)
    x = np.ones((1, 1, 1, 8), np.float32)
    assert np.isfinite(framework.call(block, x)).all()
    with pytest.raises(ValueError, match="the spatial norm's batch statistics need at least 2"):
        framework.call(block, x, training=True)


def test_another_module_holds_no_canonical_weights(framework):
    for function in (framework.package.to_canonical, framework.package.load_canonical):
        with pytest.raises(
            TypeError, match=r"module=object holds no canonical weights; pass a CBAM"
        ):
            function(object(), *([{}] if function.__name__ == "load_canonical" else []))

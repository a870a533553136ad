"""What Keras' users expect of cbam_keras, on every backend, beyond what every framework does."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys

import keras
import numpy as np
import pytest

import cbam_core
import cbam_keras
from cbam_core import STATISTICS, CBAMSpec, parameters, reference
from cbam_keras import CBAM, ChannelAttention, SpatialAttention, SqueezeExcitation
from cbam_keras.evaluate import differentiate, evaluate, prepare
from tests import specs
from tests.compare import assert_equal
from tests.frameworks.test_conformance import HALF_EPS, expected

OFFICIAL = specs.SPECS["official"]
MODES = pytest.mark.parametrize("training", [False, True], ids=["eval", "train"])
RANKS = pytest.mark.parametrize("rank", [1, 2, 3])
HALVES = ["mixed_bfloat16", "mixed_float16", "bfloat16", "float16"]

# Every class with every argument away from its default.
LAYERS = {
    CBAM: {
        "reduction": 2, "hidden": 5, "mlp_bias": True, "channel_pools": ["lse", "max"],
        "kernel_size": 3, "spatial_bias": True, "spatial_norm": True, "gate": "hard_sigmoid",
        "order": "parallel", "pooling": "light", "spatial_descriptor": "conv", "residual": True,
        "norm_eps": 1e-3, "norm_momentum": 0.3, "rank": 1,
    },
    ChannelAttention: {
        "reduction": 2, "hidden": 5, "mlp_bias": True, "channel_pools": ("lse", "max"),
        "gate": "hard_sigmoid", "pooling": "light", "rank": 1,
    },
    SpatialAttention: {
        "kernel_size": 3, "spatial_bias": True, "spatial_norm": True, "gate": "hard_sigmoid",
        "pooling": "light", "spatial_descriptor": "conv", "norm_eps": 1e-3, "norm_momentum": 0.3,
        "rank": 1,
    },
    SqueezeExcitation: {
        "reduction": 2, "hidden": 5, "mlp_bias": True, "gate": "hard_sigmoid", "rank": 1,
    },
}  # fmt: skip


def build(spec, cls=CBAM, **options):
    """A float64 layer of `spec`, with the weights of tests.specs."""
    layer = cls.from_spec(spec, **{"dtype": "float64", **options})
    cbam_keras.load_canonical(layer, specs.weights(spec))
    return layer


def cotangent_of(x):
    return np.random.default_rng(1).standard_normal(x.shape)


def numpy(tensor):
    return np.array(keras.ops.convert_to_numpy(tensor))


def same_bits(left, right):
    """Whether two dicts of arrays are equal bit for bit."""
    return left.keys() == right.keys() and all(
        left[name].tobytes() == right[name].tobytes() for name in left
    )


def first(x):
    return np.ascontiguousarray(np.moveaxis(x, -1, 1))


def last(y):
    return np.moveaxis(y, 1, -1)


# Differentiation


@MODES
@pytest.mark.parametrize("name", ["official", "everything"])
def test_compiled_equals_the_reference(name, training):
    spec = specs.SPECS[name]
    weights, x = specs.weights(spec), specs.feature_map(spec)
    arrays, _ = evaluate(
        spec, weights, x, cotangent_of(x), dtype="float64", training=training, compiled=True
    )
    assert_equal(arrays, expected(spec, weights, x, cotangent_of(x), training), 1e-12)


def test_a_maximum_splits_its_gradient_evenly_among_ties():
    spec = CBAMSpec(2, hidden=1, channel_pools=("max",), order="channel")
    weights = {
        "channel.reduce.kernel": np.ones((2, 1)),
        "channel.expand.kernel": np.full((1, 2), 0.25),
    }
    x = np.ones((1, 2, 2, 2))
    x[0, 0, 0, 0] = 0.0
    cotangent = np.zeros_like(x)
    cotangent[0, 0, 0, 1] = 1.0
    arrays, _ = evaluate(spec, weights, x, cotangent, dtype="float64")
    # dy/dv of y = sigmoid(v/2) where both maxima are 1, over three ties, then over four.
    slope = 0.25 * reference.GATES["sigmoid"](np.array(0.5))[1](1.0)
    gate = reference.GATES["sigmoid"](np.array(0.5))[0]
    found = arrays["grad:input"][0]
    assert_equal({"": found[..., 0]}, {"": np.array([[0, 1], [1, 1]]) * slope / 3}, 1e-14)
    assert_equal({"": found[..., 1]}, {"": slope / 4 + np.array([[gate, 0], [0, 0]])}, 1e-14)


@pytest.mark.parametrize("pools", [("lp",), ("avg", "max", "lp", "lse")])
def test_a_map_of_zeros_has_a_finite_gradient(pools):
    spec = CBAMSpec(6, hidden=2, channel_pools=pools)
    weights, x = specs.weights(spec), np.zeros((2, 4, 3, 6))
    arrays, _ = evaluate(spec, weights, x, cotangent_of(x), dtype="float64")
    assert all(np.isfinite(array).all() for array in arrays.values())
    assert_equal(arrays, expected(spec, weights, x, cotangent_of(x), False), 1e-12)


@pytest.mark.parametrize(("gate", "kink"), [("hard_sigmoid", 3.0), ("hard_sigmoid_keras2", 2.5)])
@pytest.mark.parametrize("compiled", [False, True])
def test_a_hard_sigmoid_has_slope_0_at_both_kinks(gate, kink, compiled):
    spec = CBAMSpec(3, hidden=3, channel_pools=("avg",), order="channel", gate=gate)
    # The hidden units are 1, so the second kernel's columns are the logits -kink, kink and 1.
    weights = {
        "channel.reduce.kernel": np.eye(3),
        "channel.expand.kernel": np.array([[-kink, kink, 1.0], [0, 0, 0], [0, 0, 0]]),
    }
    x = np.ones((1, 2, 2, 3))
    arrays, _ = evaluate(spec, weights, x, x, dtype="float64", compiled=compiled)
    slope = 1 / 6 if gate == "hard_sigmoid" else 0.2
    kernel = arrays["grad:channel.expand.kernel"]
    assert_equal({"": kernel}, {"": np.tile([0, 0, 4 * slope], (3, 1))}, 1e-14)


def test_a_batch_of_0_has_gradients_of_0():
    x = np.zeros((0, 5, 4, 12))
    for training in (False, True):
        arrays, _ = differentiate(build(OFFICIAL), x, x, training=training)
        assert not any(arrays[name].any() for name in arrays if name.startswith("grad:"))


@pytest.mark.parametrize("order", ["channel_spatial", "spatial_channel", "parallel"])
def test_second_derivatives_are_those_of_the_composition(order):
    prepare("cpu")
    spec = CBAMSpec(6, hidden=8, mlp_bias=True, kernel_size=3, order=order, residual=True)
    x = specs.feature_map(spec)
    found, right = (
        {str(i): numpy(array) for i, array in enumerate(second_derivatives(block, x))}
        for block in (build(spec), build(spec, kernels=False))
    )
    assert all(array.any() for array in right.values())
    assert_equal(found, right, 1e-12)


def second_derivatives(block, x):
    """The gradients by x and the weights of (the gradient by x of x * y) * cos x."""
    weights = [variable.value for variable in block.trainable_variables]
    leaf = keras.ops.convert_to_tensor(x)
    direction = keras.ops.convert_to_tensor(np.cos(x))
    match keras.backend.backend():
        case "tensorflow":
            import tensorflow as tf

            with tf.GradientTape() as outer:
                outer.watch(leaf)
                with tf.GradientTape() as inner:
                    inner.watch(leaf)
                    y = leaf * block(leaf)
                slope = inner.gradient(y, leaf)
            return outer.gradient(slope, [leaf, *weights], direction)
        case "jax":
            import jax

            def total(weights, x):
                return (x * block.stateless_call(weights, [], x)[0]).sum()

            def slope(weights, x):
                return (jax.grad(total, 1)(weights, x) * direction).sum()

            by_weights, by_x = jax.grad(slope, (0, 1))(weights, leaf)
            return [by_x, *by_weights]
        case _:
            import torch

            leaf.requires_grad_()
            y = (leaf * block(leaf)).sum()
            (slope,) = torch.autograd.grad(y, leaf, create_graph=True)
            return torch.autograd.grad(slope, [leaf, *weights], direction)


# Layouts


@RANKS
@MODES
def test_channels_first_equals_channels_last(rank, training):
    spec = CBAMSpec.preset("official", 6, hidden=2, kernel_size=3, rank=rank)
    x = specs.feature_map(spec)
    block = build(spec, data_format="channels_first")
    cotangent = cotangent_of(x)
    arrays, _ = differentiate(block, first(x), first(cotangent), training=training)
    for name in ("output", "grad:input"):
        arrays[name] = last(arrays[name])
    assert_equal(arrays, expected(spec, specs.weights(spec), x, cotangent, training), 1e-12)


@pytest.mark.parametrize("cls", [ChannelAttention, SpatialAttention, SqueezeExcitation])
def test_a_single_gate_takes_channels_first(cls):
    changes = {"order": "spatial"} if cls is SpatialAttention else {"order": "channel"}
    pools = ("avg",) if cls is SqueezeExcitation else ("avg", "max")
    spec = CBAMSpec(6, hidden=2, channel_pools=pools, **changes)
    x = specs.feature_map(spec)
    layer = build(spec, cls, data_format="channels_first")
    step = reference.run(spec, specs.weights(spec), x)
    assert_equal({"": last(numpy(layer(first(x))))}, {"": step.output}, 1e-12)
    (gate,) = step.gates.values()
    assert_equal({"": last(numpy(layer.gate(first(x))))}, {"": gate}, 1e-12)


def test_the_layout_is_that_of_keras_unless_given():
    assert CBAM(8).data_format == "channels_last"
    keras.config.set_image_data_format("channels_first")
    try:
        block = CBAM(8)
        assert CBAM(8, data_format="channels_last").data_format == "channels_last"
    finally:
        keras.config.set_image_data_format("channels_last")
    assert block.data_format == "channels_first"
    assert block(np.ones((2, 8, 3, 3), np.float32)).shape == (2, 8, 3, 3)
    message = (
        "x has 3 channels (shape (2, 3, 3, 8), read as (batch, channels, height, width)), "
        "expected channels=8"
    )
    with pytest.raises(ValueError, match=re.escape(message)):
        block(np.ones((2, 3, 3, 8), np.float32))
    with pytest.raises(
        ValueError,
        match="data_format='NCHW' is unknown; choose from channels_last, channels_first",
    ):
        CBAM(8, data_format="NCHW")


# Building


@pytest.mark.parametrize("cls", LAYERS)
def test_channels_are_inferred(cls):
    layer = cls(reduction=2) if cls is not SpatialAttention else cls()
    assert repr(layer) == f"{cls.__name__}({'' if cls is SpatialAttention else 'reduction=2'})"
    assert layer(np.ones((2, 3, 3, 8), np.float32)).shape == (2, 3, 3, 8)
    assert layer.spec.channels == 8
    assert repr(layer) == repr(cls.from_spec(layer.spec))
    given = cls.from_spec(layer.spec)
    cbam_keras.load_canonical(given, cbam_keras.to_canonical(layer))
    x = np.random.default_rng(0).standard_normal((2, 3, 3, 8)).astype(np.float32)
    assert numpy(given(x)).tobytes() == numpy(layer(x)).tobytes()


def test_what_needs_the_channels_says_how_to_give_them():
    message = re.escape(
        "CBAM(reduction=8) does not know its channels yet; call it, build it with the shape of "
        "its input, or pass channels= to its constructor"
    )
    for use in (
        cbam_keras.to_canonical,
        lambda block: cbam_keras.load_canonical(block, {}),
        lambda block: block.spec,
        lambda block: block.build(),
    ):
        with pytest.raises(ValueError, match=message):
            use(CBAM(reduction=8))
    with pytest.raises(ValueError, match=r"x has an unknown number of channels \(shape \(None, 4"):
        CBAM()(keras.Input((4, 4, None)))


def test_a_bad_argument_is_named_without_channels_too():
    with pytest.raises(ValueError, match="kernel_size=4 is even"):
        CBAM(kernel_size=4)
    with pytest.raises(ValueError, match="Unrecognized keyword arguments"):
        CBAM(ratio=8)


@pytest.mark.parametrize("block", [CBAM(8), CBAM()], ids=repr)
def test_a_wrong_number_of_channels_is_named(block):
    block(np.ones((2, 3, 3, 8), np.float32))
    message = re.escape("x has 6 channels (shape (2, 3, 3, 6)")
    with pytest.raises(ValueError, match=message + ".*expected channels=8"):
        block(np.ones((2, 3, 3, 6), np.float32))
    message = re.escape("x has 6 channels (shape (None, None, None, 6)")
    with pytest.raises(ValueError, match=message + ".*expected channels=8"):
        block(keras.Input((None, None, 6)))
    with pytest.raises(ValueError, match=r"x has 3 axes .* expected 4 for rank=2"):
        CBAM()(np.ones((2, 3, 8), np.float32))


def test_integers_are_refused_before_a_model_is_run():
    with pytest.raises(TypeError, match="x has dtype int32, expected a floating-point type"):
        CBAM(8)(keras.Input((4, 4, 8), dtype="int32"))


@pytest.mark.parametrize("cls", [ChannelAttention, SpatialAttention, SqueezeExcitation])
def test_a_gate_builds_its_layer_on_first_use(cls):
    x = np.random.default_rng(0).standard_normal((2, 3, 3, 8)).astype(np.float32)
    layer = cls()
    gate = numpy(layer.gate(x))
    assert layer.built
    assert_equal({"": numpy(layer(x))}, {"": gate * x}, 1e-7)


@pytest.mark.parametrize("name", specs.SPECS)
def test_the_trainable_weights_are_the_parameters(name):
    block = CBAM.from_spec(specs.SPECS[name])
    block.build()
    counts = [int(np.prod(weight.shape)) for weight in block.trainable_weights]
    assert sum(counts) == parameters(block.spec)
    assert {weight.path.partition("/")[2].replace("/", ".") for weight in block.weights} == set(
        cbam_keras.to_canonical(block)
    )


def test_a_layer_with_weights_may_be_built_again():
    class Outer(keras.layers.Layer):
        def __init__(self, block):
            super().__init__(dtype="float64")
            self.block = block

        def build(self, input_shape):
            self.block.build(input_shape)

        def call(self, x):
            return self.block(x)

    x = specs.feature_map(OFFICIAL)
    step = reference.run(OFFICIAL, specs.weights(OFFICIAL), x)
    assert_equal({"": numpy(Outer(build(OFFICIAL))(x))}, {"": step.output}, 1e-12)


# Dtype policies


@pytest.mark.parametrize("policy", HALVES)
@pytest.mark.parametrize("cls", [CBAM, ChannelAttention, SpatialAttention])
def test_a_half_precision_policy_rounds_the_output_only(policy, cls):
    orders = {ChannelAttention: "channel", SpatialAttention: "spatial"}
    spec = CBAMSpec.preset("official", 8, hidden=2, order=orders.get(cls, "channel_spatial"))
    # Few bits, so that every dtype holds the arrays as they are.
    weights = {n: np.round(w * 16) / 16 for n, w in specs.weights(spec).items()}
    x = np.round(specs.feature_map(spec) * 16) / 16
    layer = cls.from_spec(spec, dtype=policy)
    cbam_keras.load_canonical(layer, weights)
    dtype = policy.removeprefix("mixed_")
    limit = 4 * HALF_EPS[dtype]
    for training in (False, True):
        step = reference.run(spec, weights, x, training=training)
        y = layer(x.astype(np.float32), training=training)
        assert keras.backend.standardize_dtype(y.dtype) == dtype
        assert_equal({"": numpy(y).astype(np.float64)}, {"": step.output}, limit)
    assert {weight.dtype for weight in layer.weights} == {"float32"}
    if cls is not CBAM:
        layer = cls.from_spec(spec, dtype=policy)
        cbam_keras.load_canonical(layer, weights)
        (gate,) = reference.run(spec, weights, x).gates.values()
        found = numpy(layer.gate(x))
        assert found.dtype == np.float32
        assert_equal({"": found}, {"": gate}, 2e-6)


@pytest.mark.parametrize("policy", HALVES)
def test_a_model_of_half_precision_trains(policy):
    model = keras.Sequential(
        [keras.Input((6, 5, 4)), CBAM(spatial_norm=True, hidden=2, dtype=policy)]
    )
    model.compile(keras.optimizers.SGD(0.1), "mse")
    x = np.abs(np.random.default_rng(0).standard_normal((4, 6, 5, 4))).astype(np.float32)
    losses = [model.train_on_batch(x, 0.7 * x) for _ in range(5)]
    assert np.isfinite(losses).all()
    assert losses[-1] < losses[0]


def test_inputs_are_cast_to_the_policy():
    x = specs.feature_map(OFFICIAL)
    for policy, dtype in (("float32", "float32"), ("float64", "float64")):
        y = CBAM(12, dtype=policy)(keras.ops.convert_to_tensor(x.astype(np.float64)))
        assert keras.backend.standardize_dtype(y.dtype) == dtype


# Models


def functional(spec, *size):
    """A float64 model of one CBAM with the weights of tests.specs."""
    inputs = keras.Input((*size, spec.channels), dtype="float64")
    return keras.Model(inputs, build(spec)(inputs))


def test_a_functional_model_takes_maps_of_any_size():
    model = functional(OFFICIAL, None, None)
    assert model.output_shape == (None, None, None, 12)
    rng = np.random.default_rng(0)
    for size in [(3, 7, 6), (1, 9, 4), (2, 1, 1)]:
        # predict casts to float32, which these values already are.
        x = np.maximum(rng.standard_normal((*size, 12), np.float32), 0.0).astype(np.float64)
        step = reference.run(OFFICIAL, specs.weights(OFFICIAL), x)
        assert_equal({"": numpy(model(x))}, {"": step.output}, 1e-12)
        assert_equal({"": model.predict(x, verbose=0)}, {"": step.output}, 1e-12)


def test_gates_of_a_functional_model_with_two_inputs():
    """Which takes them as one, in the structure that it was built with."""
    x, other = np.random.default_rng(0).standard_normal((2, 1, 5, 6, 8)).astype("float32")
    inputs = [keras.Input((None, None, 8)), keras.Input((None, None, 8))]
    block = CBAM(8, reduction=2, name="block")
    model = keras.Model(inputs, block(keras.layers.Subtract()(inputs)))
    right = cbam_keras.attention_maps(block, x - other)
    found = cbam_keras.attention_maps(model, (x, other))
    assert_equal(
        gates_of(found), {f"block.{name}": gate for name, gate in gates_of(right).items()}, 0
    )


def gates_of(maps):
    return {name: numpy(gate) for name, gate in maps.items()}


def test_siblings_of_one_name_have_their_own_gates():
    """The second is named as Keras itself would name it, and what is inside it as well."""

    class Siblings(keras.Model):
        def __init__(self):
            super().__init__()
            self.blocks = [
                keras.Sequential([CBAM(reduction=2, name="a")], name="b") for _ in range(3)
            ]

        def call(self, x):
            for block in self.blocks:
                x = block(x)
            return x

    model = Siblings()
    x = np.random.default_rng(0).standard_normal((1, 5, 6, 8)).astype("float32")
    found = gates_of(cbam_keras.attention_maps(model, x))
    right = {}
    for path, block in zip(("b.a", "b_1.a", "b_2.a"), model.blocks, strict=True):
        gates = gates_of(cbam_keras.attention_maps(block, x))
        right |= {f"{path}.{name.split('.')[-1]}": gate for name, gate in gates.items()}
        x = numpy(block(x))
    assert list(found) == list(right)
    assert_equal(found, right, 1e-6)


def test_training_steps_keep_the_statistics_of_any_size():
    spec = OFFICIAL
    model, weights = functional(spec, None, None), specs.weights(spec)
    model.compile(keras.optimizers.SGD(0.0), "mse")
    rng = np.random.default_rng(0)
    for size in [(3, 7, 6), (1, 9, 4), (4, 1, 1)]:
        x = np.maximum(rng.standard_normal((*size, 12)), 0.0)
        model.train_on_batch(x, x)
        weights |= reference.run(spec, weights, x, training=True).statistics
        found = cbam_keras.to_canonical(model.layers[-1])
        assert_equal(
            {name: found[name] for name in STATISTICS},
            {name: weights[name] for name in STATISTICS},
            1e-12,
        )


def test_a_sequential_model_infers_the_channels():
    model = keras.Sequential(
        [
            keras.Input((8, 8, 3)),
            keras.layers.Conv2D(6, 3, activation="relu"),
            CBAM(reduction=2, name="cbam"),
            keras.layers.GlobalAveragePooling2D(),
        ]
    )
    assert model.get_layer("cbam").spec == CBAMSpec(6, reduction=2)
    x = np.random.default_rng(0).standard_normal((2, 8, 8, 3)).astype(np.float32)
    features = numpy(model.layers[0](x))
    step = reference.run(
        CBAMSpec(6, reduction=2), cbam_keras.to_canonical(model.layers[1]), features
    )
    assert_equal({"": numpy(model(x))}, {"": step.output.mean((1, 2))}, 1e-5)


def classifier():
    return keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            keras.layers.Conv2D(8, 3, activation="relu"),
            CBAM(reduction=2, spatial_norm=True, name="cbam"),
            keras.layers.GlobalAveragePooling2D(),
            keras.layers.Dense(2),
        ]
    )


def test_fit_trains_a_model_whose_weights_can_be_saved(tmp_path):
    keras.utils.set_random_seed(0)
    # Vertical and horizontal stripes; a last batch that is smaller than the others.
    rng = np.random.default_rng(0)
    labels = np.arange(72) % 2
    stripes = np.tile([0.0, 1.0], (8, 4))
    x = np.stack([stripes if label else stripes.T for label in labels])[..., None]
    x = (x + 0.1 * rng.standard_normal(x.shape)).astype(np.float32)
    model = classifier()
    before = cbam_keras.to_canonical(model.get_layer("cbam"))
    model.compile(
        keras.optimizers.Adam(0.02),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    history = model.fit(x, labels, batch_size=32, epochs=8, verbose=0).history["loss"]
    assert history[-1] < 0.5 * history[0]
    after = cbam_keras.to_canonical(model.get_layer("cbam"))
    assert not any(same_bits({"": before[name]}, {"": after[name]}) for name in before)
    assert all(np.isfinite(array).all() for array in after.values())
    loss, accuracy = model.evaluate(x, labels, verbose=0)
    logits = model.predict(x, verbose=0)
    assert abs(accuracy - (logits.argmax(1) == labels).mean()) < 1e-6
    assert accuracy > 0.9
    losses = np.log(np.exp(logits).sum(1)) - logits[np.arange(72), labels]
    assert abs(loss - losses.mean()) < 1e-5

    model.save_weights(tmp_path / "model.weights.h5")
    other = classifier()
    other.load_weights(tmp_path / "model.weights.h5")
    assert same_bits(cbam_keras.to_canonical(other.get_layer("cbam")), after)
    assert numpy(other(x)).tobytes() == numpy(model(x)).tobytes()


def test_a_frozen_layer_keeps_its_statistics():
    block, x = build(OFFICIAL), specs.feature_map(OFFICIAL)
    before = cbam_keras.to_canonical(block)
    block.trainable = False
    step = reference.run(OFFICIAL, specs.weights(OFFICIAL), x)
    assert_equal({"": numpy(block(x, training=True))}, {"": step.output}, 1e-12)
    assert same_bits(cbam_keras.to_canonical(block), before)
    one = np.ones((1, 1, 1, 12))
    assert np.isfinite(numpy(block(one, training=True))).all()


# Statistics over replicas


def test_a_synchronized_norm_is_saved_as_one_and_needs_tensorflow():
    layer = CBAM(12, spatial_norm=True, synchronized=True)
    again = CBAM.from_config(layer.get_config())
    assert again.synchronized
    if keras.backend.backend() != "tensorflow":
        with pytest.raises(ValueError, match="synchronized=True needs the TensorFlow backend, and"):
            again.build()
        return
    again.build()
    assert again.spatial.norm.synchronized
    # Of a single position the other replicas may have more.
    assert again(np.ones((1, 1, 1, 12)), training=True).shape == (1, 1, 1, 12)


# Serialization


@pytest.mark.parametrize("channels", [None, 8])
@pytest.mark.parametrize("cls", LAYERS)
def test_a_config_rebuilds_the_layer(cls, channels):
    options = {"data_format": "channels_first", "name": "attention", "dtype": "mixed_bfloat16"}
    assert "kernels" not in cls(channels).get_config()
    layer = cls(channels, **LAYERS[cls], **options, kernels=False, trainable=False)
    assert repr(layer).endswith(", kernels=False)")
    config = layer.get_config()
    assert not config["kernels"]
    assert config.items() >= (LAYERS[cls] | {"channels": channels}).items()
    again = cls.from_config(config)
    assert again.get_config() == config
    assert repr(again) == repr(layer)
    # As a model's file holds it, and after the channels have been inferred.
    again.build((None, 8, None))
    text = json.dumps(keras.saving.serialize_keras_object(again))
    last = keras.saving.deserialize_keras_object(json.loads(text))
    assert last.get_config() == again.get_config() == config
    assert last.spec == again.spec
    assert (last.name, last.trainable, last.dtype_policy.name, last.data_format) == (
        "attention", False, "mixed_bfloat16", "channels_first",
    )  # fmt: skip


def test_a_saved_model_computes_the_same_in_a_fresh_process(tmp_path):
    inputs = keras.Input((6, None, 8))
    loaded = CBAM(8, name="loaded")
    cbam_keras.load_canonical(loaded, specs.weights(loaded.spec))
    y = CBAM(spatial_norm=True, hidden=3, norm_momentum=0.5, name="inferred")(loaded(inputs))
    y = SqueezeExcitation(8, mlp_bias=True)(ChannelAttention(hidden=2)(y))
    model = keras.Model(inputs, SpatialAttention(data_format="channels_first")(y))
    x = np.random.default_rng(0).standard_normal((2, 6, 7, 8)).astype(np.float32)
    model(x, training=True)
    output = numpy(model(x))
    path = tmp_path / "model.keras"
    model.save(path)

    again = keras.models.load_model(path)
    assert numpy(again(x)).tobytes() == output.tobytes()
    assert again.get_layer("inferred").spec == model.get_layer("inferred").spec
    for name in ("loaded", "inferred"):
        layers = (model.get_layer(name), again.get_layer(name))
        assert same_bits(*map(cbam_keras.to_canonical, layers))

    np.save(tmp_path / "x.npy", x)
    program = (
        "import sys, keras, numpy as np, cbam_keras\n"
        "model = keras.models.load_model('model.keras')\n"
        "np.save('y.npy', keras.ops.convert_to_numpy(model(np.load('x.npy'))))\n"
    )
    environment = os.environ | {"PYTHONPATH": os.getcwd()}
    subprocess.run([sys.executable, "-c", program], cwd=tmp_path, env=environment, check=True)
    assert np.load(tmp_path / "y.npy").tobytes() == output.tobytes()


def test_a_clone_has_the_same_layers():
    model = keras.Sequential([keras.Input((4, 4, 8)), CBAM(mlp_bias=True), SqueezeExcitation(8)])
    clone = keras.models.clone_model(model)
    assert [repr(layer) for layer in clone.layers] == [
        "CBAM(8, mlp_bias=True)",
        "SqueezeExcitation(8)",
    ]
    clone.set_weights(model.get_weights())
    x = np.random.default_rng(0).standard_normal((2, 4, 4, 8)).astype(np.float32)
    assert numpy(clone(x)).tobytes() == numpy(model(x)).tobytes()


def test_the_blocks_of_a_network_go_to_another_file_and_come_back(tmp_path):
    x = keras.Input((6, 6, 12))
    y = CBAM(hidden=3, spatial_norm=True, name="named")(keras.layers.Conv2D(12, 1)(x))
    inner = keras.Sequential([keras.layers.Dense(12), CBAM(hidden=3, spatial_bias=True)])
    network = keras.Model(x, inner(CBAM(hidden=4, mlp_bias=True)(y)))
    known = [keras.ops.convert_to_numpy(weight) for weight in network.weights]
    network.save_weights(tmp_path / "a.weights.h5")
    found = cbam_core.read(tmp_path / "a.weights.h5")
    # Keras numbers the layers of a class, whatever they are called.
    assert list(found.blocks) == [
        "layers.cbam", "layers.cbam_1", "layers.sequential.layers.cbam",
    ]  # fmt: skip
    assert found.blocks["layers.cbam_1"].spec == CBAMSpec(12, hidden=4, mlp_bias=True)
    assert set(found.rest) == {
        f"layers/{layer}/vars/{n}" for layer in ("conv2d", "sequential/layers/dense") for n in "01"
    }
    cbam_core.convert(tmp_path / "a.weights.h5", tmp_path / "b.safetensors", keep_rest=True)
    cbam_core.convert(tmp_path / "b.safetensors", tmp_path / "c.weights.h5", keep_rest=True)
    for weight in network.weights:
        weight.assign(np.zeros(weight.shape))
    network.load_weights(tmp_path / "c.weights.h5")
    loaded = [keras.ops.convert_to_numpy(weight) for weight in network.weights]
    assert all(np.array_equal(one, other) for one, other in zip(known, loaded, strict=True))


def test_a_gate_of_its_own_is_read_where_its_file_tells_which_it_is(tmp_path):
    attention = ChannelAttention(12, reduction=4)
    attention.build()
    keras.saving.save_weights(attention, tmp_path / "a.weights.h5")
    with pytest.raises(cbam_core.CheckpointError, match="--from cbam_keras_se"):
        cbam_core.read(tmp_path / "a.weights.h5")
    found = cbam_core.read(tmp_path / "a.weights.h5", "cbam_keras", reduction=4)
    assert found.spec == attention.spec
    assert list(found.weights) == list(cbam_keras.to_canonical(attention))


def test_a_keras_2_file_is_loaded_by_the_order_of_its_layers(tmp_path):
    spec = CBAMSpec.preset("kobiso", 16)
    weights = specs.weights(spec)
    cbam_core.write(tmp_path / "a.safetensors", weights, spec)
    cbam_core.convert(tmp_path / "a.safetensors", tmp_path / "b.h5")
    x = keras.Input((6, 6, 16), dtype="float64")
    layers = [
        keras.layers.Dense(2, dtype="float64"),
        keras.layers.Dense(16, dtype="float64"),
        keras.layers.Conv2D(1, 7, padding="same", use_bias=False, dtype="float64"),
    ]
    network = keras.Model(x, layers[2](layers[1](layers[0](x))[..., :2]))
    network.load_weights(tmp_path / "b.h5")
    loaded = [keras.ops.convert_to_numpy(weight) for weight in network.weights]
    assert all(np.array_equal(a, b) for a, b in zip(loaded, weights.values(), strict=True))


STEPS = """
import resource
from cbam_keras.train import Trainer
from crosscheck.training.cases import training_cases

run = {case.name: case for case in training_cases()}["digits-sgd"]
trainer, pictures, labels = Trainer(run.start, dtype="float64"), *run.batches(0, 40)
for number, batch in enumerate(zip(pictures, labels)):
    trainer.step(*batch)
    if number in (9, 39):
        print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


def test_steps_leave_nothing_behind():
    """On torch the gradient of the maximum once held its own output: 10 MB of every step stayed."""
    environment = os.environ | {"CBAM_KERNELS": "off"}
    printed = subprocess.check_output([sys.executable, "-c", STEPS], text=True, env=environment)
    after_ten, after_forty = map(int, printed.split())
    assert after_forty - after_ten < 60_000, "in KiB"

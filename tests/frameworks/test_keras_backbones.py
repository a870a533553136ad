"""What Keras' users expect of cbam_keras' networks, beyond what every framework does."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys

import keras
import numpy as np
import pytest

import cbam_keras
from cbam_core import Architecture, CBAMSpec, parameters, pullbacks, reference_network
from cbam_core.costs import is_statistic
from cbam_keras import Backbone, DualPoolingHead, evaluate, ops
from cbam_keras.evaluate import differentiate
from cbam_keras.layers import CONV, BatchNorm
from tests import networks
from tests.compare import assert_equal

NETWORKS = networks.NETWORKS
MODES = pytest.mark.parametrize("training", [False, True], ids=["eval", "train"])
# Small enough to be compiled in a few seconds.
TINY = Architecture(
    "basic", (1,), (64,), attention="cbam", spec={"kernel_size": 3}, stem="cifar", num_classes=2
)


def build(architecture, **options):
    """A float64 network with the weights of tests.networks."""
    network = Backbone(architecture, **{"dtype": "float64", **options})
    weights = networks.weights(architecture)
    cbam_keras.load_canonical(network, {n: weights[n] for n in cbam_keras.to_canonical(network)})
    return network


def expected(architecture, x, training=False):
    weights = networks.weights(architecture)
    return reference_network.run(architecture, weights, x, training=training)


def numpy(tensor):
    return np.array(keras.ops.convert_to_numpy(tensor))


def same_bits(left, right):
    """Whether two dicts of arrays are equal bit for bit."""
    return left.keys() == right.keys() and all(
        left[name].tobytes() == right[name].tobytes() for name in left
    )


def first(x):
    return np.ascontiguousarray(np.moveaxis(x, -1, 1))


# Layouts and sizes


def test_channels_first_equals_channels_last():
    architecture, x = NETWORKS["stem_and_tail"], networks.picture()
    cotangent = networks.cotangent(architecture)
    network = build(architecture, data_format="channels_first")
    arrays, _ = differentiate(network, first(x), cotangent, training=True)
    arrays["grad:input"] = np.moveaxis(arrays["grad:input"], 1, -1)
    step = expected(architecture, x, training=True)
    assert_equal(arrays, step.quantities(cotangent), 1e-12)
    headless = build(architecture, data_format="channels_first", features_only=True)
    step = expected(architecture, x)
    for found, part in zip(headless(first(x)), step.features, strict=True):
        assert_equal({"": numpy(found)}, {"": first(part)}, 1e-12)


def test_the_layout_is_that_of_keras_unless_given():
    assert Backbone(TINY).data_format == "channels_last"
    keras.config.set_image_data_format("channels_first")
    try:
        network = Backbone(TINY)
        assert Backbone(TINY, data_format="channels_last").data_format == "channels_last"
    finally:
        keras.config.set_image_data_format("channels_last")
    assert network.data_format == "channels_first"
    assert network(np.ones((2, 3, 8, 9), np.float32)).shape == (2, 2)
    with pytest.raises(ValueError, match=r"x has shape \(2, 8, 9, 3\), .* \(batch, 3, height, wid"):
        network(np.ones((2, 8, 9, 3), np.float32))
    with pytest.raises(
        ValueError, match="data_format='NCHW' is unknown; choose from channels_last"
    ):
        Backbone(TINY, data_format="NCHW")


def test_a_network_is_part_of_a_functional_model_for_pictures_of_any_size():
    architecture = NETWORKS["basic_cbam"]
    inputs = keras.Input((None, None, 3), dtype="float64")
    network = build(architecture, features_only=True)
    maps = network(inputs)
    assert [part.shape[-1] for part in maps] == [64, 4, 6]
    model = keras.Model(inputs, [maps[0], maps[-1]])
    for size in [(33, 47), (16, 20)]:
        x = networks.picture(*size)
        stem, _, last = expected(architecture, x).features
        found = dict(zip(("stem", "last"), map(numpy, model(x)), strict=True))
        assert_equal(found, {"stem": stem, "last": last}, 1e-12)


# Dtype policies


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16", "bfloat16", "float16"])
def test_a_half_precision_policy_is_that_of_all_layers_but_norms_and_gates(policy):
    architecture, x = NETWORKS["basic_cbam"], networks.picture(32, 40)
    network = build(architecture, dtype=policy)
    dtype = policy.removeprefix("mixed_")
    x = numpy(keras.ops.cast(keras.ops.cast(x, dtype), "float32")).astype(np.float64)
    weights = cbam_keras.to_canonical(network)
    if policy != dtype:  # the kernels are rounded when they are used
        weights = cbam_keras.to_canonical(build(architecture, dtype=dtype))
    for training in (False, True):
        y = network(x, training=training)
        assert keras.backend.standardize_dtype(y.dtype) == dtype
        step = reference_network.run(architecture, weights, x, training=training)
        # An eps for each convolution on the way.
        limit = 8 * {"bfloat16": 2.0**-7, "float16": 2.0**-10}[dtype]
        assert_equal({"": numpy(y).astype(np.float64)}, {"": step.output}, limit)
    for path, variable in cbam_keras.weights.named_weights(network).items():
        wide = policy != dtype or "norm" in path or "attention" in path
        assert variable.dtype == ("float32" if wide else dtype), path


# Training, as Keras' users do it


def stripes():
    """Pictures (64, 8, 10, 3) of vertical and horizontal stripes, and which they are."""
    labels = np.arange(64) % 2
    rows, columns = np.indices((8, 10)) % 2
    x = np.stack([rows if label else columns for label in labels])[..., None].repeat(3, -1)
    return (x + 0.1 * np.random.default_rng(0).standard_normal(x.shape)).astype(np.float32), labels


def test_fit_trains_a_network_that_a_fresh_process_loads(tmp_path):
    keras.utils.set_random_seed(0)
    x, labels = stripes()
    network = cbam_keras.Backbone(TINY)
    before = cbam_keras.to_canonical(network)
    network.compile(
        keras.optimizers.Adam(0.01),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    # A last batch that is smaller than the others.
    losses = network.fit(x, labels, batch_size=24, epochs=4, verbose=0).history["loss"]
    assert losses[-1] < 0.5 * losses[0]
    after = cbam_keras.to_canonical(network)
    assert not any(same_bits({"": before[name]}, {"": after[name]}) for name in before)
    logits = network.predict(x, verbose=0)
    step = reference_network.run(TINY, after, x.astype(np.float64))
    assert_equal({"": logits}, {"": step.output}, 1e-5)
    _, accuracy = network.evaluate(x, labels, verbose=0)
    assert abs(accuracy - (logits.argmax(1) == labels).mean()) < 1e-6

    network.save(tmp_path / "network.keras")
    again = keras.models.load_model(tmp_path / "network.keras")
    assert again.architecture == TINY
    assert same_bits(cbam_keras.to_canonical(again), after)
    np.save(tmp_path / "x.npy", x)
    program = (
        "import keras, numpy as np, cbam_keras\n"
        "network = keras.models.load_model('network.keras')\n"
        "np.save('y.npy', keras.ops.convert_to_numpy(network(np.load('x.npy'))))\n"
    )
    environment = os.environ | {"PYTHONPATH": os.getcwd()}
    subprocess.run([sys.executable, "-c", program], cwd=tmp_path, env=environment, check=True)
    assert_equal({"": np.load(tmp_path / "y.npy")}, {"": numpy(network(x))}, 1e-6)

    network.save_weights(tmp_path / "network.weights.h5")
    other = Backbone(TINY)
    other.load_weights(tmp_path / "network.weights.h5")
    assert same_bits(cbam_keras.to_canonical(other), after)


def test_dropout_trains_and_is_saved(tmp_path):
    x, labels = stripes()
    architecture = Architecture("basic", (1,), (64,), stem="cifar", head="dual_pooling")
    network = Backbone(architecture)
    network.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    assert np.isfinite(network.fit(x, labels, verbose=0).history["loss"]).all()
    network.save(tmp_path / "network.keras")
    again = keras.models.load_model(tmp_path / "network.keras")
    assert numpy(again(x)).tobytes() == numpy(network(x)).tobytes()


def test_a_frozen_network_keeps_its_statistics():
    network, x = build(TINY), networks.picture(8, 9)
    before = cbam_keras.to_canonical(network)
    network.trainable = False
    step = expected(TINY, x)
    assert_equal({"": numpy(network(x, training=True))}, {"": step.output}, 1e-12)
    assert same_bits(cbam_keras.to_canonical(network), before)
    assert not network.trainable_weights


def test_one_part_may_be_frozen():
    network, x = build(TINY), networks.picture(8, 9)
    before = cbam_keras.to_canonical(network)
    network.stem.trainable = False
    network(x, training=True)
    after = cbam_keras.to_canonical(network)
    moved = {name for name in before if before[name].tobytes() != after[name].tobytes()}
    assert moved == {n for n in before if is_statistic(n) and not n.startswith("stem.")}


# What a model shows and saves of itself


@pytest.mark.parametrize("name", ["resnext_luuuyi", "separable_cbam", "dual_pooling"])
def test_a_config_rebuilds_the_network(name):
    options = {"features_only": True, "data_format": "channels_first"}
    network = Backbone(NETWORKS[name], name="eyes", dtype="mixed_bfloat16", **options)
    network.trainable = False
    text = json.dumps(keras.saving.serialize_keras_object(network))
    again = keras.saving.deserialize_keras_object(json.loads(text))
    assert isinstance(again, Backbone)
    assert again.get_config() == network.get_config()
    assert again.architecture == NETWORKS[name]
    assert (again.name, again.trainable, again.dtype_policy.name) == (
        "eyes",
        False,
        "mixed_bfloat16",
    )
    assert (again.features_only, again.data_format) == (True, "channels_first")


def test_a_head_may_be_part_of_any_model(tmp_path):
    inputs = keras.Input((None, None, 6))
    model = keras.Model(inputs, DualPoolingHead(6, 3, dropout=0.2)(inputs))
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    assert again.layers[-1].dropout.rate == 0.2
    x = np.random.default_rng(0).standard_normal((2, 4, 5, 6)).astype(np.float32)
    assert numpy(again(x)).tobytes() == numpy(model(x)).tobytes()


def test_a_summary_shows_the_parts_and_counts_the_parameters():
    network, out = cbam_keras.mobilenet(widen=0.25, attention="cbam"), io.StringIO()
    network.summary(print_fn=lambda line: out.write(line + "\n"))
    text = out.getvalue()
    assert all(part in text for part in ("stem", "stage1", "stage5", "head"))
    assert f"Trainable params: {parameters(network.architecture):,}" in text


@pytest.mark.parametrize("name", NETWORKS)
def test_weights_are_the_parameters_and_named_by_their_place(name):
    network = Backbone(NETWORKS[name], name="eyes")
    counts = [int(np.prod(weight.shape)) for weight in network.trainable_weights]
    assert sum(counts) == parameters(NETWORKS[name])
    paths = {w.path for w in network.weights if "seed" not in w.path}
    assert paths == {f"eyes/{n.replace('.', '/')}" for n in cbam_keras.to_canonical(network)}


def test_the_attention_of_a_block_is_its_spec_s():
    spec = CBAMSpec.preset("keras", 1, residual=True)
    network = cbam_keras.resnet18(attention="cbam", spec=spec, stem="cifar", num_classes=10)
    block = network.stage2.block1.attention
    assert block.spec == CBAMSpec.preset("keras", 128, residual=True)


# Layers


@pytest.mark.parametrize("size", [(5, 6), (1, 1)])
def test_the_max_pool_is_padded_with_nothing(size):
    x = -np.random.default_rng(0).integers(1, 4, (2, *size, 3)).astype(np.float64)
    output, _ = pullbacks.max_pool(x)
    found = ops.max_pool(keras.ops.convert_to_tensor(x, "float64"))
    assert_equal({"": numpy(found)}, {"": output}, 0)


class _Twice(keras.layers.Layer):
    """relu(norm(x) * max(norm(x)) + norm(other)), of [x ; other]."""

    def build(self, input_shape):
        self.norm = BatchNorm(1e-5, 0.1, dtype="float64")

    def call(self, pair, training=False):
        x, other = (self.norm(part, training=training) for part in keras.ops.split(pair, 2, 0))
        return ops.relu(x * ops.max(x, (1, 2)) + other)


def test_a_gradient_finds_a_maximum_that_was_computed_twice():
    """XLA computes a normalised map anew for each use, with fused multiply-adds or without."""
    rng = np.random.default_rng(0)
    x, other, cotangent = rng.standard_normal((3, 2, 5, 6, 24))
    weights = {"scale": np.ones(24), "bias": np.zeros(24), "mean": np.zeros(24), "var": np.ones(24)}
    (normal, norm_pullback), (added, other_pullback) = (
        pullbacks.batch_norm(part, weights, eps=1e-5, training=True) for part in (x, other)
    )
    maximum, max_pullback = pullbacks.max(normal, (1, 2))
    y, relu_pullback = pullbacks.relu(normal * maximum + added)
    dy = relu_pullback(cotangent)
    dnormal = dy * maximum + max_pullback((dy * normal).sum((1, 2), keepdims=True))
    right = np.concatenate([norm_pullback(dnormal)[0], other_pullback(dy)[0]])

    layer = _Twice(dtype="float64")
    pair, dy = (
        keras.ops.convert_to_tensor(array) for array in (np.concatenate([x, other]), cotangent)
    )
    layer(pair)
    run = evaluate._RUN[keras.backend.backend()]
    found, gradient, *_ = run(layer, pair, dy, training=True, compiled=False)
    assert_equal({"": numpy(found)}, {"": y}, 1e-14)
    assert_equal({"": numpy(gradient)}, {"": right}, 1e-13)


@pytest.mark.parametrize("rank", [1, 2, 3])
@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize(("groups", "outputs"), [(1, 4), (2, 4), (6, 6), (6, 12)])
def test_convolutions_are_padded_alike_on_both_sides(rank, stride, groups, outputs):
    options = {"strides": stride, "groups": groups, "padding": "same", "dtype": "float64"}
    conv = CONV[rank](outputs, 3, data_format="channels_last", **options)
    conv.build((None,) * (rank + 1) + (6,))
    rng = np.random.default_rng(0)
    weights = {"kernel": rng.standard_normal(conv.kernel.shape), "bias": np.ones(outputs)}
    conv.set_weights(list(weights.values()))
    x = rng.standard_normal((2, *(6, 5, 4)[:rank], 6))
    output, _ = pullbacks.convolve(x, weights, stride=stride, groups=groups)
    assert_equal({"": numpy(conv(x))}, {"": output}, 1e-13)

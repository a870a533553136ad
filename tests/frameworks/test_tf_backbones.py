"""What TensorFlow's users expect of cbam_tf's networks beyond what every framework does."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import tensorflow as tf

import cbam_tf
from cbam_core import parameters, pullbacks, reference_network
from cbam_core.costs import is_statistic
from cbam_tf import Backbone, ops
from cbam_tf.layers import Conv
from cbam_tf.weights import named_weights
from tests import networks
from tests.compare import assert_equal
from tests.frameworks.adapters.tf_adapter import differentiate

NETWORKS = networks.NETWORKS
MODES = pytest.mark.parametrize("training", [False, True], ids=["eval", "train"])


def build(name, **options):
    """A float64 network of tests.networks with its weights."""
    network = Backbone(NETWORKS[name], **{"dtype": tf.float64, **options})
    weights = networks.weights(NETWORKS[name])
    cbam_tf.load_canonical(network, {n: weights[n] for n in cbam_tf.to_canonical(network)})
    return network


def expected(name, x, training=False):
    architecture = NETWORKS[name]
    weights = networks.weights(architecture)
    return reference_network.run(architecture, weights, x, training=training)


def first(x):
    return np.moveaxis(x, -1, 1)


@MODES
@pytest.mark.parametrize("name", ["stem_and_tail", "resnext_luuuyi", "separable_cbam"])
def test_tf_function_equals_the_reference(name, training):
    network, x = build(name), networks.picture()
    cotangent = networks.cotangent(NETWORKS[name])
    arrays = differentiate(network, x, cotangent, training, call=tf.function(network))
    assert_equal(arrays, expected(name, x, training).quantities(cotangent), 1e-12)


@pytest.mark.parametrize("name", ["stem_and_tail", "resnext_luuuyi", "separable_cbam"])
def test_xla_equals_the_reference(name):
    # One block, since XLA compiles as long as a network is.
    architecture = dataclasses.replace(NETWORKS[name], depths=(1,), widths=(4,))
    weights, x = networks.weights(architecture), networks.picture(16, 17)
    network, cotangent = Backbone(architecture, dtype=tf.float64), networks.cotangent(architecture)
    cbam_tf.load_canonical(network, weights)
    compiled = tf.function(network, jit_compile=True)
    arrays = differentiate(network, x, cotangent, True, call=compiled)
    step = reference_network.run(architecture, weights, x, training=True)
    assert_equal(arrays, step.quantities(cotangent), 1e-12)


def test_one_trace_serves_all_sizes_and_keeps_the_statistics():
    name = "stem_and_tail"
    network, weights = build(name), networks.weights(NETWORKS[name])
    signature = [tf.TensorSpec([None] * 4, tf.float64), tf.TensorSpec([None, 5], tf.float64)]
    trainable = {n: w for n, w in named_weights(network).items() if not is_statistic(n)}

    @tf.function(input_signature=signature)
    def step(x, cotangent):
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = network(x, training=True)
        return y, tape.gradient(y, {"input": x} | trainable, cotangent)

    cotangent = networks.cotangent(NETWORKS[name])
    for size in [(33, 47), (32, 32), (18, 21)]:
        x = networks.picture(*size)
        y, gradients = step(tf.constant(x), tf.constant(cotangent))
        after = {n: w for n, w in cbam_tf.to_canonical(network).items() if is_statistic(n)}
        arrays = {"output": y.numpy()} | {f"grad:{n}": g.numpy() for n, g in gradients.items()}
        arrays |= {f"state:{n}": w for n, w in after.items()}
        found = reference_network.run(NETWORKS[name], weights, x, training=True)
        assert_equal(arrays, found.quantities(cotangent), 1e-12)
        weights |= after
    assert step.experimental_get_tracing_count() == 1


def test_even_the_rank_may_be_unknown_and_is_checked_when_the_graph_runs():
    network, x = build("separable_cbam"), networks.picture()
    run = tf.function(network, input_signature=[tf.TensorSpec(None, tf.float64)])
    assert_equal({"": run(x).numpy()}, {"": expected("separable_cbam", x).output}, 1e-12)
    for shape in [(2, 32, 32, 6), (2, 32, 32)]:
        with pytest.raises(tf.errors.InvalidArgumentError, match="is not compatible with expected"):
            run(tf.zeros(shape, tf.float64))


@MODES
@pytest.mark.parametrize("name", ["stem_and_tail", "separable_cbam", "resnext_luuuyi"])
def test_channels_first_means_the_same(name, training):
    network, x = build(name, data_format="channels_first"), networks.picture()
    cotangent = networks.cotangent(NETWORKS[name])
    step = expected(name, x, training)
    arrays = differentiate(network, first(x), cotangent, training)
    arrays["grad:input"] = np.moveaxis(arrays["grad:input"], 1, -1)
    assert_equal(arrays, step.quantities(cotangent), 1e-12)
    headless = build(name, data_format="channels_first", features_only=True)
    for found, part in zip(headless(first(x), training=training), step.features, strict=True):
        assert_equal({"": found.numpy()}, {"": first(part)}, 1e-12)


def test_errors_speak_of_the_layout_that_the_user_chose():
    network = build("plain", data_format="channels_first")
    with pytest.raises(ValueError, match=r"x has shape \(2, 32, 32, 3\), .* \(batch, 3, height, w"):
        network(tf.zeros([2, 32, 32, 3]))
    with pytest.raises(ValueError, match="data_format='NCHW' is unknown; choose from channels_l"):
        cbam_tf.resnet18(data_format="NCHW")


def test_a_saved_model_serves_pictures_of_any_size(tmp_path):
    network = build("basic_cbam")
    unknown = tf.TensorSpec([None, None, None, 3], tf.float64, name="x")
    network.serve = tf.function(lambda x: network(x), input_signature=[unknown])
    tf.saved_model.save(network, str(tmp_path), signatures=network.serve)
    loaded = tf.saved_model.load(str(tmp_path))
    signature = loaded.signatures["serving_default"]
    for size in [(33, 47), (16, 16)]:
        x = networks.picture(*size)
        output = expected("basic_cbam", x).output
        assert_equal({"": loaded.serve(tf.constant(x)).numpy()}, {"": output}, 1e-12)
        (served,) = signature(x=tf.constant(x)).values()
        assert_equal({"": served.numpy()}, {"": output}, 1e-12)
    assert signature(x=tf.zeros([0, 16, 16, 3], tf.float64))["output_0"].shape == (0, 5)


@pytest.mark.parametrize("dtype", ["float64", "bfloat16"])
def test_a_checkpoint_restores_every_bit(tmp_path, dtype):
    network = build("resnext_luuuyi", dtype=tf.as_dtype(dtype))
    network(tf.cast(networks.picture(), dtype), training=True)
    saved = cbam_tf.to_canonical(network)
    path = tf.train.Checkpoint(network=network).save(str(tmp_path / "checkpoint"))
    other = Backbone(network.architecture, dtype=tf.as_dtype(dtype))
    tf.train.Checkpoint(network=other).restore(path).assert_consumed()
    restored = cbam_tf.to_canonical(other)
    assert list(restored) == list(saved)
    assert all(restored[name].tobytes() == saved[name].tobytes() for name in saved)


@MODES
@pytest.mark.parametrize(
    ("dtype", "eps"), [("float32", 2.0**-23), ("bfloat16", 2.0**-7), ("float16", 2.0**-10)]
)
@pytest.mark.parametrize("name", ["basic_cbam", "resnext_luuuyi", "separable_cbam"])
def test_half_precision_keeps_its_dtype_and_norms_theirs(name, dtype, eps, training):
    network = build(name, dtype=tf.as_dtype(dtype))
    x = tf.cast(networks.picture(), dtype)
    with tf.GradientTape() as tape:
        y = network(x, training=training)
    assert y.dtype == dtype
    step = reference_network.run(
        NETWORKS[name],
        cbam_tf.to_canonical(build(name, dtype=tf.as_dtype(dtype))),
        tf.cast(x, tf.float64).numpy(),
        training=training,
    )
    # An eps for each convolution on the way.
    assert_equal({"": tf.cast(y, tf.float64).numpy()}, {"": step.output}, 8 * eps)
    gradients = tape.gradient(y, network.trainable_variables)
    assert all(np.isfinite(tf.cast(g, tf.float32).numpy()).all() for g in gradients)
    for path, variable in named_weights(network).items():
        assert variable.dtype == ("float32" if "norm" in path else dtype), path


@pytest.mark.parametrize("name", NETWORKS)
def test_variables_are_the_parameters_and_named_by_their_place(name):
    network = Backbone(NETWORKS[name], name="eyes")
    counts = [v.shape.num_elements() for v in network.trainable_variables]
    assert sum(counts) == parameters(NETWORKS[name])
    weights = named_weights(network)
    assert {id(v) for v in network.variables} == {id(v) for v in weights.values()}
    for path, variable in weights.items():
        assert variable.name == f"eyes/{path.replace('.', '/')}:0"


def test_a_network_follows_a_distribution_strategy():
    strategy = tf.distribute.MirroredStrategy(["CPU:0"])
    with strategy.scope():
        network = build("basic_cbam")
    x = networks.picture()
    step = expected("basic_cbam", x, training=True)
    run = tf.function(lambda x: strategy.run(lambda x: network(x, training=True), (x,)))
    assert_equal({"": run(x).numpy()}, {"": step.output}, 1e-12)
    found = {n: w for n, w in cbam_tf.to_canonical(network).items() if is_statistic(n)}
    assert_equal(found, step.statistics, 1e-12)


@pytest.mark.parametrize("jit", [None, False, True], ids=["eager", "function", "xla"])
@pytest.mark.parametrize("size", [(5, 6), (1, 1)])
def test_the_max_pool_is_padded_with_nothing_and_the_first_of_ties_has_the_gradient(size, jit):
    rng = np.random.default_rng(0)
    x = -rng.integers(1, 4, (2, *size, 3)).astype(np.float64)
    output, pullback = pullbacks.max_pool(x)
    cotangent = rng.standard_normal(output.shape)

    def slope(x):
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = ops.max_pool(x)
        return y, tape.gradient(y, x, tf.constant(cotangent))

    run = slope if jit is None else tf.function(slope, jit_compile=jit)
    y, gradient = run(tf.constant(x))
    assert_equal({"": y.numpy()}, {"": output}, 0)
    assert_equal({"": gradient.numpy()}, {"": pullback(cotangent)}, 1e-15)


@pytest.mark.parametrize("rank", [1, 2, 3])
@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize(("groups", "outputs"), [(1, 4), (2, 4), (6, 6), (6, 12)])
def test_convolutions_are_padded_alike_on_both_sides(rank, stride, groups, outputs):
    conv = Conv(rank, 6, outputs, 3, stride=stride, groups=groups, bias=True, dtype=tf.float64)
    rng = np.random.default_rng(0)
    weights = {"kernel": rng.standard_normal(conv.kernel.shape), "bias": np.ones(outputs)}
    conv.kernel.assign(weights["kernel"])
    conv.bias.assign(weights["bias"])
    x = rng.standard_normal((2, *(6, 5, 4)[:rank], 6))
    output, pullback = pullbacks.convolve(x, weights, stride=stride, groups=groups)
    dx, gradients = pullback(np.ones_like(output))
    leaf = tf.constant(x)
    with tf.GradientTape() as tape:
        tape.watch(leaf)
        y = conv(leaf)
    sources = {"x": leaf, "kernel": conv.kernel, "bias": conv.bias}
    found = {n: g.numpy() for n, g in tape.gradient(y, sources).items()}
    assert_equal({"y": y.numpy(), **found}, {"y": output, "x": dx, **gradients}, 1e-13)

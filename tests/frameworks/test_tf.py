"""What TensorFlow's users expect of cbam_tf beyond what every framework does."""

from __future__ import annotations

import logging
import re

import numpy as np
import pytest
import tensorflow as tf

import cbam_tf
from cbam_core import STATISTICS, CBAMSpec, parameters, reference
from cbam_tf import CBAM, ChannelAttention, SpatialAttention, SqueezeExcitation, ops
from cbam_tf import evaluate as evaluation
from cbam_tf.weights import canonical_array, named_weights
from tests import specs
from tests.compare import assert_equal
from tests.frameworks.test_conformance import HALF_EPS, expected

OFFICIAL = specs.SPECS["official"]
MODES = pytest.mark.parametrize("training", [False, True], ids=["eval", "train"])
RANKS = pytest.mark.parametrize("rank", [1, 2, 3])


def build(spec, cls=CBAM, **options):
    """A float64 module of `spec`, with the weights of tests.specs."""
    module = cls.from_spec(spec, **{"dtype": tf.float64, **options})
    cbam_tf.load_canonical(module, specs.weights(spec))
    return module


def cotangent_of(x):
    return np.random.default_rng(1).standard_normal(x.shape)


def run(block, x, cotangent, *, training=False, call=None):
    """`evaluate`, for a block that is there; `call` is the block or a tf.function of it."""
    x, variables = tf.constant(x), named_weights(block)
    sources = {n: v for n, v in variables.items() if n not in STATISTICS} | {"input": x}
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = (call or block)(x, training=training)
    gradients = tape.gradient(y, sources, tf.constant(cotangent))
    arrays = {"output": canonical_array(y)}
    arrays |= {f"grad:{name}": canonical_array(g) for name, g in gradients.items()}
    return arrays | {
        f"state:{n}": canonical_array(v) for n, v in variables.items() if n in STATISTICS
    }


def judge(spec, call_of, x, *, training=False, limit=1e-12):
    """Compare call_of(block) with the reference, on the output, gradients and statistics."""
    block, cotangent = build(spec), cotangent_of(x)
    arrays = run(block, x, cotangent, training=training, call=call_of(block))
    assert_equal(arrays, expected(spec, specs.weights(spec), x, cotangent, training), limit)


@MODES
@pytest.mark.parametrize("name", specs.SPECS)
def test_tf_function_equals_the_reference(name, training):
    spec = specs.SPECS[name]
    weights, x = specs.weights(spec), specs.feature_map(spec)
    arrays, dtype = evaluation.evaluate(
        spec, weights, x, cotangent_of(x), dtype="float64", training=training, compiled=True
    )
    assert dtype == "float64"
    assert_equal(arrays, expected(spec, weights, x, cotangent_of(x), training), 1e-12)


@MODES
@pytest.mark.parametrize("name", ["official", "everything", "signals", "volumes", "parallel_conv"])
def test_xla_equals_the_reference(name, training):
    spec = specs.SPECS[name]
    x = specs.feature_map(spec)
    judge(spec, lambda block: tf.function(block, jit_compile=True), x, training=training)


@RANKS
def test_one_trace_serves_all_sizes_and_keeps_the_statistics(rank):
    spec = CBAMSpec.preset("official", 6, hidden=2, kernel_size=3, rank=rank)
    block, weights = build(spec), specs.weights(spec)
    unknown = tf.TensorSpec([None] * (rank + 1) + [6], tf.float64)

    @tf.function(input_signature=[unknown, unknown])
    def step(x, cotangent):
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = block(x, training=True)
        return y, tape.gradient(y, {"input": x} | trainable, cotangent)

    trainable = {n: v for n, v in named_weights(block).items() if n not in STATISTICS}
    rng = np.random.default_rng(0)
    for batch, *size in [(3, 5, 4, 3), (1, 2, 7, 5), (4, 1, 1, 1), (2, 8, 8, 2)]:
        x = np.maximum(rng.standard_normal((batch, *size[:rank], 6)), 0)
        y, gradients = step(tf.constant(x), tf.constant(cotangent_of(x)))
        after = {n: w for n, w in cbam_tf.to_canonical(block).items() if n in STATISTICS}
        arrays = {"output": y.numpy()} | {f"grad:{n}": g.numpy() for n, g in gradients.items()}
        arrays |= {f"state:{n}": w for n, w in after.items()}
        assert_equal(arrays, expected(spec, weights, x, cotangent_of(x), True), 1e-12)
        weights |= after
    assert step.experimental_get_tracing_count() == 1


def test_even_the_rank_may_be_unknown():
    block, x = build(OFFICIAL), specs.feature_map(OFFICIAL)
    run_any = tf.function(block, input_signature=[tf.TensorSpec(None, tf.float64)])
    step = reference.run(OFFICIAL, specs.weights(OFFICIAL), x)
    assert_equal({"": run_any(x).numpy()}, {"": step.output}, 1e-12)


@pytest.mark.parametrize("data_format", ["channels_last", "channels_first"])
def test_sizes_that_a_graph_learns_late_are_checked_when_it_runs(data_format):
    block = build(OFFICIAL, data_format=data_format)
    before = cbam_tf.to_canonical(block)

    @tf.function(input_signature=[tf.TensorSpec([None] * 4, tf.float64)])
    def train(x):
        return block(x, training=True)

    for shape, message in [
        ((1, 1, 1, 12), "x has one position in all, and batch statistics need at least 2"),
        ((2, 0, 3, 12), "x has a map without positions"),
        ((2, 3, 3, 7), "Shape of tensor"),
    ]:
        x = tf.ones(shape, tf.float64)
        if data_format == "channels_first":
            x = tf.transpose(x, (0, 3, 1, 2))
        with pytest.raises(tf.errors.InvalidArgumentError, match=message):
            train(x)
    after = cbam_tf.to_canonical(block)
    assert all(after[name].tobytes() == before[name].tobytes() for name in before)


@RANKS
@MODES
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_an_empty_batch_stays_empty_in_a_graph_too(rank, training, dtype):
    spec = CBAMSpec.preset("official", 6, hidden=2, kernel_size=3, rank=rank)
    block = build(spec, dtype=tf.as_dtype(dtype))
    before = cbam_tf.to_canonical(block)
    shape = (*(0, 5, 4, 3)[: rank + 1], 6)
    unknown = tf.TensorSpec([None] * (rank + 1) + [6], dtype)
    graph = tf.function(lambda x: block(x, training=training), input_signature=[unknown])
    with tf.GradientTape() as tape:
        outputs = [call(tf.zeros(shape, dtype)) for call in (graph, lambda x: block(x, training))]
        loss = sum(tf.reduce_sum(y) for y in outputs)
    assert [y.shape for y in outputs] == [shape, shape]
    assert not any(g.numpy().any() for g in tape.gradient(loss, block.trainable_variables))
    after = cbam_tf.to_canonical(block)
    assert all(after[name].tobytes() == before[name].tobytes() for name in before)


def first(x):
    return np.moveaxis(x, -1, 1)


def last(x):
    return np.moveaxis(x, 1, -1)


@MODES
@pytest.mark.parametrize("name", ["everything", "signals", "volumes", "volumes_conv", "official"])
def test_channels_first_means_the_same(name, training):
    spec = specs.SPECS[name]
    weights, x = specs.weights(spec), specs.feature_map(spec)
    cotangent = cotangent_of(x)
    for compiled in (False, True):
        block = build(spec, data_format="channels_first")
        call = tf.function(block) if compiled else block
        arrays = run(block, first(x), first(cotangent), training=training, call=call)
        for quantity in ("output", "grad:input"):
            arrays[quantity] = last(arrays[quantity])
        assert_equal(arrays, expected(spec, weights, x, cotangent, training), 1e-12)


@RANKS
@pytest.mark.parametrize(
    ("cls", "changes"),
    [
        (ChannelAttention, {"order": "channel", "mlp_bias": True}),
        (SpatialAttention, {"order": "spatial", "spatial_norm": True}),
        (SqueezeExcitation, {"order": "channel", "channel_pools": ("avg",)}),
    ],
)
def test_a_gate_has_the_layout_of_its_input(cls, changes, rank):
    spec = CBAMSpec(6, hidden=2, kernel_size=3, rank=rank, **changes)
    x = specs.feature_map(spec)
    step = reference.run(spec, specs.weights(spec), x)
    key = "spatial" if cls is SpatialAttention else "channel"
    want = {"gate": step.gates[key], "output": step.output}
    module = build(spec, cls)
    assert_equal({"gate": module.gate(x).numpy(), "output": module(x).numpy()}, want, 1e-12)
    module = build(spec, cls, data_format="channels_first")
    found = {"gate": last(module.gate(first(x)).numpy()), "output": last(module(first(x)).numpy())}
    assert_equal(found, want, 1e-12)


def test_errors_speak_of_the_layout_that_the_user_chose():
    block = CBAM(8, data_format="channels_first", spatial_norm=True)
    message = (
        "x has 6 channels (shape (2, 6, 5, 4), read as (batch, channels, height, width)), expected "
        "channels=8; build the module with channels=6 or check the layout of x"
    )
    with pytest.raises(ValueError, match=re.escape(message)):
        block(tf.zeros([2, 6, 5, 4]))
    with pytest.raises(ValueError, match=re.escape("(shape (1, 8, 1, 1))")):
        block(tf.zeros([1, 8, 1, 1]), training=True)
    for cls in (CBAM, ChannelAttention, SpatialAttention, SqueezeExcitation):
        with pytest.raises(
            ValueError,
            match=r"^data_format='NCHW' is unknown; choose from channels_last, channels_first$",
        ):
            cls(8, data_format="NCHW")
        expression = f"{cls.__name__}(8, data_format='channels_first')"
        assert repr(eval(expression)) == expression


def test_a_saved_model_serves_maps_of_any_size(tmp_path):
    block, weights = build(OFFICIAL), specs.weights(OFFICIAL)
    unknown = tf.TensorSpec([None, None, None, 12], tf.float64, name="x")
    block.serve = tf.function(lambda x: block(x), input_signature=[unknown])
    tf.saved_model.save(block, str(tmp_path), signatures=block.serve)
    loaded = tf.saved_model.load(str(tmp_path))
    signature = loaded.signatures["serving_default"]
    for shape in [(2, 7, 6, 12), (1, 3, 9, 12), (0, 4, 4, 12)]:
        x = np.random.default_rng(3).standard_normal(shape)
        output = reference.run(OFFICIAL, weights, x).output
        assert_equal({"": loaded.serve(tf.constant(x)).numpy()}, {"": output}, 1e-12)
        (served,) = signature(x=tf.constant(x)).values()
        assert_equal({"": served.numpy()}, {"": output}, 1e-12)
    assert loaded.channel.reduce.kernel.numpy().tobytes() == (
        weights["channel.reduce.kernel"].tobytes()
    )
    assert not loaded.spatial.norm.mean.trainable


@pytest.mark.parametrize("dtype", ["float64", "float32", "bfloat16", "float16"])
def test_a_checkpoint_restores_every_bit(tmp_path, dtype):
    block = build(specs.SPECS["everything"], dtype=tf.as_dtype(dtype))
    block(tf.constant(specs.feature_map(block.spec), dtype), training=True)
    saved = cbam_tf.to_canonical(block)
    path = tf.train.Checkpoint(block=block).save(str(tmp_path / "checkpoint"))
    other = CBAM.from_spec(block.spec, dtype=tf.as_dtype(dtype))
    tf.train.Checkpoint(block=other).restore(path).assert_consumed()
    restored = cbam_tf.to_canonical(other)
    assert list(restored) == list(saved)
    assert all(restored[name].tobytes() == saved[name].tobytes() for name in saved)
    assert saved["spatial.norm.mean"] != specs.weights(block.spec)["spatial.norm.mean"]


@MODES
@pytest.mark.parametrize(
    ("input_dtype", "weight_dtype", "limit"),
    [
        ("float16", "float32", 2.0**-10),
        ("bfloat16", "float32", 2.0**-7),
        ("float32", "bfloat16", 2e-6),
        ("float32", "float16", 2e-6),
        ("float64", "bfloat16", 2e-6),
        ("float32", "float64", 2e-6),
    ],
)
def test_dtypes_may_be_mixed(input_dtype, weight_dtype, limit, training):
    # Few bits, so that every dtype holds the arrays as they are.
    weights = {n: np.round(w * 16) / 16 for n, w in specs.weights(OFFICIAL).items()}
    x = np.round(specs.feature_map(OFFICIAL) * 16) / 16
    block = CBAM.from_spec(OFFICIAL, dtype=tf.as_dtype(weight_dtype))
    cbam_tf.load_canonical(block, weights)
    with tf.GradientTape() as tape:
        y = block(tf.constant(x, input_dtype), training=training)
    assert y.dtype == input_dtype
    output = reference.run(OFFICIAL, weights, x, training=training).output
    assert_equal({"": y.numpy()}, {"": output}, limit)
    for variable, gradient in zip(
        block.trainable_variables,
        tape.gradient(y, block.trainable_variables),
        strict=True,
    ):
        assert gradient.dtype == variable.dtype
        in_norm = "norm" in variable.name
        assert variable.dtype == (
            "float32" if in_norm and tf.as_dtype(weight_dtype).size < 4 else weight_dtype
        )


@pytest.mark.parametrize("name", specs.SPECS)
def test_trainable_variables_are_the_parameters(name):
    block = CBAM.from_spec(specs.SPECS[name])
    assert sum(v.shape.num_elements() for v in block.trainable_variables) == parameters(block.spec)
    found = {id(v) for v in block.trainable_variables}
    weights = named_weights(block)
    assert found == {id(v) for n, v in weights.items() if n not in STATISTICS}
    assert {id(v) for v in block.variables} == {id(v) for v in weights.values()}


def test_training_follows_the_reference():
    spec = CBAMSpec(6, hidden=3, mlp_bias=True, kernel_size=3, spatial_norm=True)
    block, weights = build(spec), specs.weights(spec)
    x = specs.feature_map(spec)
    target = 0.3 * x
    trainable = {n: v for n, v in named_weights(block).items() if n not in STATISTICS}

    @tf.function
    def descend(x, target):
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean((block(x, training=True) - target) ** 2)
        gradients = tape.gradient(loss, trainable)
        for name, variable in trainable.items():
            variable.assign_sub(2.0 * gradients[name])
        return loss

    losses = []
    for _ in range(20):
        step = reference.run(spec, weights, x, training=True)
        losses.append(descend(tf.constant(x), tf.constant(target)).numpy())
        assert np.isclose(losses[-1], ((step.output - target) ** 2).mean(), rtol=1e-11)
        _, gradients = step.pullback(2 * (step.output - target) / x.size)
        weights = {n: w - 2.0 * gradients[n] if n in gradients else w for n, w in weights.items()}
        weights |= step.statistics
    assert losses[-1] < 0.5 * losses[0]
    assert_equal(cbam_tf.to_canonical(block), weights, 1e-10)


@pytest.mark.parametrize("jit", [None, False, True], ids=["eager", "function", "xla"])
def test_gradients_where_the_derivative_does_not_exist(jit):
    def compiled(call):
        return call if jit is None else tf.function(call, jit_compile=jit)

    def slope(call, x):
        x = tf.constant(x, tf.float64)
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = compiled(call)(x)
        return tape.gradient(y, x).numpy()

    ties = [[3.0, 1.0, 3.0, 3.0, 0.0, 3.0]]
    assert slope(lambda x: ops.max(x, (1,)), ties).tolist() == [[0.25, 0, 0.25, 0.25, 0, 0.25]]
    norms = slope(lambda x: ops.lp(x, (1,)), [[0.0, 0.0], [3.0, 4.0]])
    assert_equal({"": norms}, {"": np.array([[0, 0], [0.6, 0.8]])}, 1e-15)
    assert slope(ops.relu, [-1.0, -0.0, 0.0, 1.0]).tolist() == [0, 0, 0, 1]
    assert slope(ops.hard_sigmoid, [-3.0, 0.0, 3.0]).tolist() == [0, 1 / 6, 0]
    assert slope(ops.hard_sigmoid_keras2, [-2.5, 0.0, 2.5]).tolist() == [0, 0.2, 0]
    spec = CBAMSpec(6, hidden=2, kernel_size=3, channel_pools=("avg", "max", "lp", "lse"))
    for value in (0.0, 2.0):  # everything ties, and at 0 the root has no slope
        judge(spec, compiled, np.full((2, 4, 3, 6), value))


@pytest.mark.parametrize("jit", [None, False, True], ids=["eager", "function", "xla"])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_what_is_not_finite_passes_as_in_the_reference(value, jit):
    x = specs.feature_map(OFFICIAL)
    x[1, 2, 2, 0] = value
    judge(
        OFFICIAL,
        lambda block: block if jit is None else tf.function(block, jit_compile=jit),
        x,
        training=True,
    )


@pytest.mark.parametrize("jit", [False, True], ids=["function", "xla"])
def test_the_identity_stays_exact_when_compiled(jit):
    block = CBAM.from_spec(CBAMSpec.preset("identity", 8))
    for layer in (block.channel.expand, block.spatial.conv):
        layer.kernel.assign(tf.zeros_like(layer.kernel))
    x = np.random.default_rng(0).standard_normal((2, 5, 4, 8)).astype(np.float32)
    assert tf.function(block, jit_compile=jit)(x).numpy().tobytes() == x.tobytes()


COMPILERS = {
    "eager": lambda call: call,
    "function": tf.function,
    "xla": lambda call: tf.function(call, jit_compile=True),
}
BOTH = CBAMSpec(6, hidden=8, mlp_bias=True, kernel_size=3, channel_pools=("max", "avg"))


def same_with_and_without_kernels(run, spec=BOTH, limit=1e-12):
    """Compare run(block) of a block with and of one without gradients of its own."""
    found, right = (
        {str(i): array.numpy() for i, array in enumerate(run(build(spec, kernels=kernels)))}
        for kernels in (True, False)
    )
    assert all(array.any() for array in right.values())
    assert_equal(found, right, limit)


@pytest.mark.parametrize(
    ("order", "compiler"),
    [
        ("channel_spatial", "eager"),
        ("spatial_channel", "eager"),
        ("parallel", "eager"),
        ("channel_spatial", "function"),
        ("channel_spatial", "xla"),
    ],
)
def test_second_derivatives_are_those_of_the_composition(order, compiler):
    spec = BOTH.replace(order=order, residual=True)
    x = tf.constant(specs.feature_map(spec))
    cotangent = tf.constant(cotangent_of(x))

    def run(block):
        @COMPILERS[compiler]
        def second():
            with tf.GradientTape() as outer:
                outer.watch(x)
                with tf.GradientTape() as inner:
                    inner.watch(x)
                    y = block(x)
                slope = inner.gradient(y, x, cotangent)
            return outer.gradient(slope, [x, *block.trainable_variables], x * cotangent)

        return second()

    same_with_and_without_kernels(run, spec)


@pytest.mark.parametrize("compiler", ["eager", "function"])
def test_tangents_jacobians_and_mapped_calls_are_those_of_the_composition(compiler):
    x = tf.constant(specs.feature_map(BOTH))

    def run(block):
        @COMPILERS[compiler]
        def all_three():
            with tf.autodiff.ForwardAccumulator(x, 0.3 * x) as forward:
                y = block(x)
            with tf.GradientTape() as tape:
                tape.watch(x)
                corner = block(x)[0, :2, :2]
            mapped = tf.vectorized_map(lambda sample: block(sample[None])[0], x)
            return forward.jvp(y), tape.jacobian(corner, x), mapped

        return all_three()

    same_with_and_without_kernels(run)


def test_a_loaded_model_has_the_gradients_that_were_saved(tmp_path):
    x, cotangent = specs.feature_map(BOTH), cotangent_of(specs.feature_map(BOTH))

    def run(block):
        unknown = tf.TensorSpec([None, None, None, 6], tf.float64)
        block.serve = tf.function(lambda x: block(x), input_signature=[unknown])
        tf.saved_model.save(block, str(tmp_path / str(block.kernels)))
        loaded, leaf = tf.saved_model.load(str(tmp_path / str(block.kernels))), tf.constant(x)
        with tf.GradientTape() as tape:
            tape.watch(leaf)
            y = loaded.serve(leaf)
        return y, tape.gradient(y, leaf, tf.constant(cotangent))

    same_with_and_without_kernels(run)


@pytest.mark.parametrize("compiler", COMPILERS)
@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_own_gradients_in_half_precision_are_rounded_once(dtype, compiler):
    x = tf.cast(specs.feature_map(BOTH), dtype)
    cotangent = tf.cast(cotangent_of(x), dtype)

    def run(block):
        @COMPILERS[compiler]
        def gradient():
            with tf.GradientTape() as tape:
                tape.watch(x)
                y = block(x)
            return [tf.cast(g, tf.float64) for g in tape.gradient(y, [x], cotangent)]

        return gradient()

    same_with_and_without_kernels(run, limit=8 * HALF_EPS[dtype])


def test_kernels_start_he_normal_and_follow_the_seed():
    tf.random.set_seed(7)
    block = CBAM(256, reduction=2, mlp_bias=True, spatial_norm=True)
    kernel = block.channel.reduce.kernel.numpy()
    assert kernel.std() == pytest.approx(np.sqrt(2 / 256), rel=0.02)
    assert abs(kernel).max() < 2.3 * np.sqrt(2 / 256)
    assert not block.channel.reduce.bias.numpy().any()
    tf.random.set_seed(7)
    again = cbam_tf.to_canonical(CBAM(256, reduction=2, mlp_bias=True, spatial_norm=True))
    assert all((again[n] == w).all() for n, w in cbam_tf.to_canonical(block).items())


def test_a_block_that_is_looked_at_keeps_its_own_hook():
    class Hooked(CBAM):
        def __call__(self, x, training=False):
            return self.hook(super().__call__(x, training))

    block = build(OFFICIAL, Hooked)
    block.hook = tf.identity
    x = specs.feature_map(OFFICIAL)
    assert list(cbam_tf.attention_maps(block, x)) == ["channel", "spatial"]
    assert block.hook is tf.identity
    assert "_cbam_hook" not in vars(block)


def test_variables_are_named_by_their_place():
    block = CBAM(8, mlp_bias=True, spatial_bias=True, spatial_norm=True, name="refine")
    assert block.name == "refine"
    for name, variable in named_weights(block).items():
        assert variable.name == f"refine/{name.replace('.', '/')}:0"


def test_a_block_may_be_built_inside_a_tf_function_without_a_warning(caplog):
    class Model(tf.Module):
        block = None

        @tf.function
        def __call__(self, x):
            if self.block is None:
                self.block = CBAM(8, mlp_bias=True, spatial_norm=True, data_format="channels_first")
            return self.block(x, training=True)

    model, x = Model(), specs.feature_map(CBAMSpec(8))
    with caplog.at_level(logging.WARNING):
        tf.get_logger().addHandler(caplog.handler)
        y = model(tf.constant(first(x), tf.float32))
        tf.get_logger().removeHandler(caplog.handler)
    assert not caplog.records
    before = cbam_tf.to_canonical(model.block) | {
        "spatial.norm.mean": np.zeros(1),
        "spatial.norm.var": np.ones(1),
    }
    step = reference.run(model.block.spec, before, x.astype(np.float32), training=True)
    assert_equal({"": last(y.numpy())}, {"": step.output}, 2e-6)
    state = {n: w for n, w in cbam_tf.to_canonical(model.block).items() if n in STATISTICS}
    assert_equal(state, step.statistics, 2e-6)


def test_statistics_follow_a_distribution_strategy():
    strategy = tf.distribute.MirroredStrategy(["CPU:0"])
    with strategy.scope():
        block = build(OFFICIAL)
    x = specs.feature_map(OFFICIAL)
    strategy.run(tf.function(lambda x: block(x, training=True)), (tf.constant(x),))
    step = reference.run(OFFICIAL, specs.weights(OFFICIAL), x, training=True)
    found = {n: w for n, w in cbam_tf.to_canonical(block).items() if n in STATISTICS}
    assert_equal(found, step.statistics, 1e-12)


def test_a_synchronized_norm_without_a_strategy_is_one_like_any_other():
    block = build(OFFICIAL, synchronized=True)
    x = specs.feature_map(OFFICIAL)
    y = block(tf.constant(x), training=True)
    step = reference.run(OFFICIAL, specs.weights(OFFICIAL), x, training=True)
    assert_equal({"": y.numpy()}, {"": step.output}, 1e-12)
    # Of a single position the other replicas may have more.
    assert block(tf.ones((1, 1, 1, 12), tf.float64), training=True).shape == (1, 1, 1, 12)


def test_evaluate_refuses_a_gpu_that_is_not_there(monkeypatch):
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind: [])
    with pytest.raises(RuntimeError, match="TensorFlow sees no GPU here; run with --device cpu"):
        evaluation.prepare("gpu")
    evaluation.prepare("cpu")
    assert not tf.config.experimental.tensor_float_32_execution_enabled()

"""What nnx users do with a module besides calling it."""

from __future__ import annotations

import itertools

import flax.serialization
import jax
import jax.numpy as jnp
import numpy as np
import optax
import orbax.checkpoint
import pytest
from flax import nnx
from jax.test_util import check_grads

import cbam_flax
from cbam_core import STATISTICS, reference, weight_shapes
from cbam_flax import layers, ops
from tests import specs
from tests.compare import assert_equal
from tests.frameworks.adapters import flax_adapter

OFFICIAL = specs.SPECS["official"]
FLOATS = ("float16", "bfloat16", "float32", "float64")


def block_and_map(spec=OFFICIAL, dtype="float64", training=False):
    """A block with the weights of specs.weights, and a feature map for it."""
    block = flax_adapter.build("CBAM.from_spec", spec, dtype=dtype)
    cbam_flax.load_canonical(block, specs.weights(spec))
    block.train() if training else block.eval()
    return block, jnp.asarray(specs.feature_map(spec), dtype)


def run_reference(spec, x, training=False):
    return reference.run(spec, specs.weights(spec), np.asarray(x), training=training)


def assert_close(actual, right, limit):
    assert_equal({"": np.asarray(actual)}, {"": np.asarray(right)}, limit)


def named_variables(state):
    """Canonical name -> nnx.Variable: the paths of a block's state are the names."""
    return {".".join(path): variable for path, variable in nnx.to_flat_state(state)}


def assert_same_bits(block, other):
    found, right = cbam_flax.to_canonical(block), cbam_flax.to_canonical(other)
    assert {n: a.tobytes() for n, a in found.items()} == {n: a.tobytes() for n, a in right.items()}


def half_sum_of_squares(block, x):
    """A loss whose gradient by the output is the output."""
    return (block(x) ** 2).sum() / 2


@pytest.mark.parametrize("transform", [nnx.jit, jax.jit])
def test_jit(transform):
    block, x = block_and_map()
    y = transform(lambda module, x: module(x))(block, x)
    assert_close(y, run_reference(OFFICIAL, x).output, 1e-12)


@pytest.mark.parametrize("training", [False, True])
def test_grad(training):
    block, x = block_and_map(training=training)
    by_block_and_x = nnx.grad(half_sum_of_squares, argnums=(nnx.DiffState(0, nnx.Param), 1))
    gradients, dx = nnx.jit(by_block_and_x)(block, x)
    step = run_reference(OFFICIAL, x, training)
    right_dx, right = step.pullback(step.output)
    found = {f"grad:{n}": np.asarray(w[...]) for n, w in named_variables(gradients).items()}
    found |= {f"state:{n}": cbam_flax.to_canonical(block)[n] for n in STATISTICS}
    right = {f"grad:{n}": array for n, array in right.items()}
    right |= {f"state:{n}": array for n, array in step.statistics.items()}
    assert_equal(found | {"grad:input": np.asarray(dx)}, right | {"grad:input": right_dx}, 1e-12)


@pytest.mark.parametrize(("name", "order"), [("official", 1), ("everything", 1), ("paper", 2)])
def test_gradients_equal_differences(name, order):
    block, _ = block_and_map(specs.SPECS[name])
    shape = specs.feature_map(block.spec, batch=1)[:, :3, :4].shape
    x = jnp.asarray(np.random.default_rng(0).standard_normal(shape))  # no ties, where it has kinks
    graph, params, statistics = nnx.split(block, nnx.Param, nnx.BatchStat)

    @jax.jit
    def run(params, x):
        return nnx.merge(graph, params, statistics, copy=True)(x)

    check_grads(run, (params, x), order, rtol=1e-5, atol=1e-6)


def test_vmap_over_a_further_axis_equals_a_loop():
    block, _ = block_and_map()
    xs = jnp.stack([jnp.asarray(specs.feature_map(OFFICIAL, seed=seed)) for seed in range(3)])
    loop = [run_reference(OFFICIAL, x).output for x in xs]
    assert_close(jax.vmap(block)(xs), loop, 1e-12)
    assert_close(nnx.vmap(lambda b, x: b(x), in_axes=(None, 0))(block, xs), loop, 1e-12)


@pytest.mark.parametrize(
    ("dtype", "param_dtype", "x_dtype"),
    [*itertools.product([None], FLOATS, FLOATS), *itertools.product(FLOATS, FLOATS, ["float32"])],
)
def test_dtypes(dtype, param_dtype, x_dtype):
    block = cbam_flax.CBAM.from_spec(
        OFFICIAL, dtype=dtype, param_dtype=param_dtype, rngs=nnx.Rngs(0)
    )
    cbam_flax.load_canonical(block, specs.weights(OFFICIAL))
    x = jnp.asarray(specs.feature_map(OFFICIAL), x_dtype)
    y = nnx.jit(lambda block, x: block(x))(block, x)
    assert y.dtype.name == (dtype or x_dtype)
    for name, variable in named_variables(nnx.state(block)).items():
        at_least = jnp.float32 if name.startswith("spatial.norm") else param_dtype
        assert variable.dtype == jnp.promote_types(param_dtype, at_least), name
    # Half precisions differ by the one rounding at the end.
    limit = float(jnp.finfo(y.dtype).eps) * (1 if y.dtype.itemsize < 4 else 16)
    read = np.asarray(x.astype(y.dtype), np.float64)
    output = reference.run(OFFICIAL, cbam_flax.to_canonical(block), read, training=True).output
    assert_close(y.astype(jnp.float64), output, limit)


def test_without_x64_all_is_float32():
    with jax.enable_x64(False):
        block, x = block_and_map(dtype="float32", training=True)
        y = nnx.jit(lambda block, x: block(x))(block, x)
        # float64 NumPy arrays are float32 here, as everywhere in JAX.
        assert block(np.asarray(x, np.float64)).dtype == jnp.float32
    assert y.dtype == jnp.float32
    assert {v.dtype.name for v in named_variables(nnx.state(block)).values()} == {"float32"}
    assert_close(y, run_reference(OFFICIAL, x, training=True).output, 2e-6)


def test_a_block_trains_until_eval():
    """The statistics follow two jitted training passes, and an evaluation leaves them."""
    block, x = block_and_map(training=True)
    forward = nnx.jit(lambda block, x: block(x))
    weights = specs.weights(OFFICIAL)
    for seed in range(2):
        x = jnp.asarray(specs.feature_map(OFFICIAL, seed=seed))
        y = forward(block, x)
        step = reference.run(OFFICIAL, weights, np.asarray(x), training=True)
        weights |= step.statistics
        assert_close(y, step.output, 1e-12)
        for name in STATISTICS:
            assert_close(cbam_flax.to_canonical(block)[name], weights[name], 1e-12)
    before = nnx.clone(block)
    output = reference.run(OFFICIAL, weights, np.asarray(x)).output
    assert_close(forward(nnx.view(block, use_running_average=True), x), output, 1e-12)
    block.eval()
    assert_close(forward(block, x), output, 1e-12)
    assert_same_bits(block, before)
    new = cbam_flax.CBAM.from_spec(OFFICIAL, rngs=nnx.Rngs(0))
    assert new.spatial.norm.use_running_average is False


def test_statistics_over_a_mapped_axis_are_those_of_the_whole_batch():
    whole, x = block_and_map(training=True)
    y = whole(x)
    block = flax_adapter.build("CBAM.from_spec", OFFICIAL, dtype="float64", axis_name="batch")
    cbam_flax.load_canonical(block, specs.weights(OFFICIAL))
    graph, state = nnx.split(block)

    def run(x):
        block = nnx.merge(graph, state, copy=True)
        return block(x[None])[0], nnx.state(block)

    parts, states = jax.vmap(run, axis_name="batch", out_axes=(0, None))(x)
    assert_close(parts, y, 1e-12)
    right = cbam_flax.to_canonical(whole)
    for name, variable in named_variables(states).items():
        assert_close(variable[...], right[name], 1e-12)


@pytest.mark.parametrize("name", specs.SPECS)
def test_the_state_has_the_canonical_names_and_shapes(name):
    spec = specs.SPECS[name]
    block = cbam_flax.CBAM.from_spec(spec, rngs=nnx.Rngs(0))
    variables = named_variables(nnx.state(block))
    assert {n: v.shape for n, v in variables.items()} == weight_shapes(spec)
    for name, variable in variables.items():
        assert type(variable) is (nnx.BatchStat if name in STATISTICS else nnx.Param)


def test_a_block_that_is_looked_at_keeps_its_own_hook():
    class Hooked(cbam_flax.CBAM):
        def __call__(self, x):
            return self.hook(super().__call__(x))

    block, x = block_and_map()
    hooked = Hooked.from_spec(OFFICIAL, param_dtype="float64", rngs=nnx.Rngs(0))
    hooked.hook = jnp.positive
    cbam_flax.load_canonical(hooked, cbam_flax.to_canonical(block))
    found, right = (cbam_flax.attention_maps(one, x) for one in (hooked, block))
    assert_equal(*({name: np.asarray(g) for name, g in one.items()} for one in (found, right)), 0)
    assert hooked.hook is jnp.positive


def test_split_and_merge():
    block, x = block_and_map()
    graph, params, statistics = nnx.split(block, nnx.Param, nnx.BatchStat)
    merged = nnx.merge(graph, params, statistics)
    assert merged.spec == block.spec
    assert_same_bits(merged, block)
    assert np.asarray(merged(x)).tobytes() == np.asarray(block(x)).tobytes()


@pytest.mark.parametrize("dtype", FLOATS)
def test_msgpack_returns_the_same_bits(dtype):
    block, _ = block_and_map(dtype=dtype)
    other = flax_adapter.build("CBAM.from_spec", OFFICIAL, dtype=dtype)
    content = flax.serialization.to_bytes(nnx.to_pure_dict(nnx.state(block)))
    pure = flax.serialization.from_bytes(nnx.to_pure_dict(nnx.state(other)), content)
    nnx.update(other, pure)
    assert_same_bits(other, block)
    assert other.channel.reduce.kernel.dtype == dtype


def test_orbax_returns_the_same_bits(tmp_path):
    block, _ = block_and_map()
    abstract = nnx.eval_shape(
        lambda: flax_adapter.build("CBAM.from_spec", OFFICIAL, dtype="float64")
    )
    graph, state = nnx.split(abstract)
    with orbax.checkpoint.StandardCheckpointer() as checkpointer:
        checkpointer.save(tmp_path / "block", nnx.state(block))
        checkpointer.wait_until_finished()
        restored = checkpointer.restore(tmp_path / "block", state)
    assert_same_bits(nnx.merge(graph, restored), block)


def test_canonical_weights_fill_an_abstract_block():
    right, _ = block_and_map()
    block = nnx.eval_shape(lambda: flax_adapter.build("CBAM.from_spec", OFFICIAL, dtype="float64"))
    cbam_flax.load_canonical(block, specs.weights(OFFICIAL))
    assert_same_bits(block, right)


def test_a_block_learns():
    """A block follows another one: the loss falls to a tenth."""
    teacher, x = block_and_map(training=True)
    block = cbam_flax.CBAM.from_spec(OFFICIAL, param_dtype="float64", rngs=nnx.Rngs(0))
    optimizer = nnx.Optimizer(block, optax.sgd(0.3, momentum=0.9), wrt=nnx.Param)
    target = teacher(x)

    @nnx.jit
    def step(block, optimizer):
        loss, gradients = nnx.value_and_grad(lambda block: ((block(x) - target) ** 2).mean())(block)
        optimizer.update(block, gradients)
        return loss

    losses = [float(step(block, optimizer)) for _ in range(100)]
    assert losses[-1] < 0.1 * losses[0]


def test_a_maximum_splits_its_gradient_evenly():
    x = jnp.zeros((1, 2, 3, 4)).at[0, 0, 0].set(-1.0)
    by_space = jax.grad(lambda x: ops.pool_space(x, ["max"])[1][0].sum())(x)
    assert_close(by_space, np.where(x == 0, 1 / 5, 0.0), 1e-15)
    by_channels = jax.grad(lambda x: ops.pool_channels(x)[1][1].sum())(x)
    assert_close(by_channels, np.full(x.shape, 1 / 4), 1e-15)


def test_a_gradient_finds_a_maximum_that_was_computed_twice():
    """XLA computes a normalised map anew for each use, with fused multiply-adds or without."""
    rng = np.random.default_rng(0)
    x, other, cotangent = (jnp.asarray(rng.standard_normal((2, 5, 6, 24))) for _ in range(3))

    def normalize(x):
        centred, _, var = layers.moments(x)
        return layers.normalize(centred, var, 1.0, 0.0, 1e-5)

    def run(x, other):
        y = normalize(x) * ops.max(normalize(x), (1, 2)) + normalize(other)
        return (ops.relu(y) * cotangent).sum()

    gradient = jax.grad(run)
    assert_close(jax.jit(gradient)(x, other), gradient(x, other), 1e-12)


def test_kinks_have_gradient_0():
    assert [float(jax.grad(ops.relu)(x)) for x in (-1.0, 0.0, 1.0)] == [0, 0, 1]
    assert [float(ops.relu(x)) for x in (-1.0, 0.0, 1.0)] == [0, 0, 1]
    for gate, kink in ((ops.hard_sigmoid, 3.0), (ops.hard_sigmoid_keras2, 2.5)):
        assert [float(jax.grad(gate)(x)) for x in (-kink, kink)] == [0, 0]
        assert [float(gate(x)) for x in (-kink, 0.0, kink)] == [0, 0.5, 1]


def test_lp_of_a_map_of_zeros_has_gradient_0():
    x = jnp.zeros((1, 3, 3, 2)).at[..., 1].set(2.0)
    gradient = jax.grad(lambda x: ops.pool_space(x, ["lp"])[1][0].sum())(x)
    assert_close(gradient, np.broadcast_to([0.0, 1 / 3], x.shape), 1e-15)


def test_nan_propagates_forward_and_backward():
    block, x = block_and_map()
    x = x.at[0, 0, 0, 0].set(jnp.nan)
    y, pullback = jax.vjp(block, x)
    step = run_reference(OFFICIAL, x)
    assert np.isnan(step.output[0]).all()
    assert_close(y, step.output, 1e-12)
    assert_close(pullback(y)[0], step.pullback(step.output)[0], 1e-12)
    _, pullback = jax.vjp(ops.relu, jnp.nan)
    assert pullback(2.0) == (2.0,)  # jax.nn.relu has 0 here

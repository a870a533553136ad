"""What linen users do with a module and its variables."""

from __future__ import annotations

import dataclasses

import flax.linen as nn
import flax.serialization
import jax
import jax.numpy as jnp
import numpy as np
import optax
import orbax.checkpoint
import pytest
from flax import nnx
from flax.training.train_state import TrainState
from jax.test_util import check_grads

import cbam_flax
import cbam_flax.linen as cl
from cbam_core import STATISTICS, CBAMSpec, reference
from tests import specs
from tests.compare import assert_equal
from tests.frameworks.adapters import flax_adapter

OFFICIAL = specs.SPECS["official"]


def block_and_map(spec=OFFICIAL, param_dtype="float64", **options):
    """A block, its variables with the weights of specs.weights, and a feature map for it."""
    block = cl.CBAM.from_spec(spec, param_dtype=param_dtype, **options)
    variables = cl.load_canonical(block, specs.weights(spec))
    return block, variables, jnp.asarray(specs.feature_map(spec), param_dtype)


def run_reference(spec, x, training=False):
    return reference.run(spec, specs.weights(spec), np.asarray(x), training=training)


def assert_close(actual, right, limit):
    assert_equal({"": np.asarray(actual)}, {"": np.asarray(right)}, limit)


def assert_same_bits(variables, other):
    assert jax.tree.structure(variables) == jax.tree.structure(other)
    for found, right in zip(jax.tree.leaves(variables), jax.tree.leaves(other), strict=True):
        assert found.dtype == right.dtype
        assert np.asarray(found).tobytes() == np.asarray(right).tobytes()


@pytest.mark.parametrize("param_dtype", ["float16", "float64"])
@pytest.mark.parametrize("name", specs.SPECS)
def test_loaded_variables_are_those_of_init(name, param_dtype):
    block, variables, x = block_and_map(specs.SPECS[name], param_dtype)
    drawn = jax.eval_shape(block.init, jax.random.key(0), x)
    assert jax.tree.structure(variables) == jax.tree.structure(drawn)
    for found, right in zip(jax.tree.leaves(variables), jax.tree.leaves(drawn), strict=True):
        assert (found.shape, found.dtype) == (right.shape, right.dtype)


def test_init_leaves_the_statistics_as_they_start():
    block = cl.CBAM.from_spec(OFFICIAL, use_running_average=False)
    variables = block.init(jax.random.key(0), jnp.ones((1, 1, 1, 12), jnp.float32))
    assert variables["batch_stats"]["spatial"]["norm"] == {"mean": 0, "var": 1}
    assert variables["params"]["spatial"]["norm"] == {"scale": 1, "bias": 0}


def test_training_updates_the_statistics_where_they_are_mutable():
    block, variables, x = block_and_map(use_running_average=False)
    y, updated = block.apply(variables, x, mutable=["batch_stats"])
    step = run_reference(OFFICIAL, x, training=True)
    assert_close(y, step.output, 1e-12)
    found = cl.to_canonical(block, {**variables, **updated})
    for name in STATISTICS:
        assert_close(found[name], step.statistics[name], 1e-12)
    with pytest.raises(flax.errors.ModifyScopeVariableError):
        block.apply(variables, x)


def test_the_mode_is_a_field_or_an_argument():
    block, variables, x = block_and_map()
    for training in (False, True):
        by_argument, _ = block.apply(
            variables, x, use_running_average=not training, mutable=["batch_stats"]
        )
        by_field, _ = block.clone(use_running_average=not training).apply(
            variables, x, mutable=["batch_stats"]
        )
        assert_close(by_argument, run_reference(OFFICIAL, x, training).output, 1e-12)
        assert np.asarray(by_argument).tobytes() == np.asarray(by_field).tobytes()
    with pytest.raises(ValueError, match='"use_running_average" must be passed'):
        block.apply(variables, x)
    block, variables, x = block_and_map(specs.SPECS["paper"])
    assert_close(block.apply(variables, x), run_reference(block.spec, x).output, 1e-12)


@pytest.mark.parametrize("training", [False, True])
def test_jit_and_grad(training):
    block, variables, x = block_and_map(use_running_average=not training)
    statistics = variables["batch_stats"]

    @jax.jit
    def half_sum_of_squares(params, x):
        variables = {"params": params, "batch_stats": statistics}
        y, updated = block.apply(variables, x, mutable=["batch_stats"])
        return (y**2).sum() / 2, (y, updated)

    gradients, (y, updated) = jax.grad(half_sum_of_squares, argnums=(0, 1), has_aux=True)(
        variables["params"], x
    )
    step = run_reference(OFFICIAL, x, training)
    dx, right = step.pullback(step.output)
    assert_close(y, step.output, 1e-12)
    found = cl.to_canonical(block, {"params": gradients[0], **updated})
    found |= {"grad:input": np.asarray(gradients[1])}
    assert_equal(found, {**right, **step.statistics, "grad:input": dx}, 1e-12)


@pytest.mark.parametrize(("name", "order"), [("official", 1), ("everything", 1), ("paper", 2)])
def test_gradients_equal_differences(name, order):
    block, variables, _ = block_and_map(specs.SPECS[name], use_running_average=True)
    shape = specs.feature_map(block.spec, batch=1)[:, :3, :4].shape
    x = jnp.asarray(np.random.default_rng(0).standard_normal(shape))  # no ties, where it has kinks
    statistics = variables.get("batch_stats", {})

    @jax.jit
    def run(params, x):
        return block.apply({"params": params, "batch_stats": statistics}, x)

    check_grads(run, (variables["params"], x), order, rtol=1e-5, atol=1e-6)


def test_vmap_over_a_further_axis_equals_a_loop():
    block, variables, _ = block_and_map(use_running_average=True)
    xs = jnp.stack([jnp.asarray(specs.feature_map(OFFICIAL, seed=seed)) for seed in range(3)])
    loop = [run_reference(OFFICIAL, x).output for x in xs]
    assert_close(jax.vmap(block.apply, (None, 0))(variables, xs), loop, 1e-12)


def test_statistics_over_a_mapped_axis_are_those_of_the_whole_batch():
    block, variables, x = block_and_map(use_running_average=False)
    y, right = block.apply(variables, x, mutable=["batch_stats"])

    def run(x):
        return block.clone(axis_name="batch").apply(variables, x[None], mutable=["batch_stats"])

    parts, found = jax.vmap(run, axis_name="batch", out_axes=(0, None))(x)
    assert_close(parts[:, 0], y, 1e-12)
    jax.tree.map(lambda found, right: assert_close(found, right, 1e-12), found, right)


@pytest.mark.parametrize(
    ("dtype", "param_dtype", "x_dtype"),
    [(None, "float16", "float32"), (None, "bfloat16", "bfloat16"), (None, "float32", "float16"),
     ("bfloat16", "float32", "float32"), ("float16", "float16", "float32"),
     ("float32", "bfloat16", "float16"), ("float64", "float32", "float32")],
)  # fmt: skip
def test_dtypes(dtype, param_dtype, x_dtype):
    block, variables, _ = block_and_map(OFFICIAL, param_dtype, dtype=dtype)
    x = jnp.asarray(specs.feature_map(OFFICIAL), x_dtype)
    y, updated = jax.jit(block.apply, static_argnames=("use_running_average", "mutable"))(
        variables, x, use_running_average=False, mutable=("batch_stats",)
    )
    assert y.dtype.name == (dtype or x_dtype)
    assert {a.dtype.name for a in jax.tree.leaves(updated)} == {"float32"}
    # Half precisions differ by the one rounding at the end.
    limit = float(jnp.finfo(y.dtype).eps) * (1 if y.dtype.itemsize < 4 else 16)
    read = np.asarray(x.astype(y.dtype), np.float64)
    weights = cl.to_canonical(block, variables)
    output = reference.run(OFFICIAL, weights, read, training=True).output
    assert_close(y.astype(jnp.float64), output, limit)


def test_msgpack_returns_the_same_bits():
    for dtype in ("float16", "bfloat16", "float32", "float64"):
        _, variables, _ = block_and_map(param_dtype=dtype)
        template = jax.tree.map(jnp.zeros_like, variables)
        found = flax.serialization.from_bytes(template, flax.serialization.to_bytes(variables))
        assert_same_bits(found, variables)


def test_orbax_returns_the_same_bits(tmp_path):
    block, variables, x = block_and_map()
    template = jax.eval_shape(block.init, jax.random.key(0), x)
    with orbax.checkpoint.StandardCheckpointer() as checkpointer:
        checkpointer.save(tmp_path / "block", variables)
        checkpointer.wait_until_finished()
        assert_same_bits(checkpointer.restore(tmp_path / "block", template), variables)


def test_a_network_learns():
    """A network of two blocks follows another one: the loss falls to a fifth."""

    class Network(nn.Module):
        @nn.compact
        def __call__(self, x, train):
            x = cl.CBAM.from_spec(OFFICIAL, name="first")(x, use_running_average=not train)
            return cl.SqueezeExcitation(12, mlp_bias=True, name="second")(x)

    class State(TrainState):
        batch_stats: dict

    network = Network()
    x = jnp.asarray(specs.feature_map(OFFICIAL), jnp.float32)
    first = cl.load_canonical(cl.CBAM.from_spec(OFFICIAL), specs.weights(OFFICIAL))
    variables = network.init(jax.random.key(0), x, train=True)
    right = {"params": {**variables["params"], "first": first["params"]}}
    right["batch_stats"] = {"first": first["batch_stats"]}
    target, _ = network.apply(right, x, train=True, mutable=["batch_stats"])
    state = State.create(
        apply_fn=network.apply,
        params=variables["params"],
        batch_stats=variables["batch_stats"],
        tx=optax.sgd(0.3, momentum=0.9),
    )

    @jax.jit
    def step(state):
        def loss(params):
            y, updated = state.apply_fn(
                {"params": params, "batch_stats": state.batch_stats},
                x,
                train=True,
                mutable=["batch_stats"],
            )
            return ((y - target) ** 2).mean(), updated

        (value, updated), gradients = jax.value_and_grad(loss, has_aux=True)(state.params)
        return state.apply_gradients(grads=gradients, batch_stats=updated["batch_stats"]), value

    losses = []
    for _ in range(100):
        state, value = step(state)
        losses.append(float(value))
    assert losses[-1] < 0.2 * losses[0]
    assert float(state.batch_stats["first"]["spatial"]["norm"]["mean"][0]) != 0


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize(
    "name", ["official", "everything", "parallel_conv", "light_lse", "signals", "volumes"]
)
def test_equals_the_nnx_module_bit_for_bit(name, training):
    spec = specs.SPECS[name]
    block, variables, x = block_and_map(spec, "float32", use_running_average=not training)
    other = flax_adapter.build("CBAM.from_spec", spec)
    cbam_flax.load_canonical(other, specs.weights(spec))
    other.set_attributes(use_running_average=not training, raise_if_not_found=False)
    y, updated = jax.jit(lambda v, x: block.apply(v, x, mutable=["batch_stats"]))(variables, x)
    right = nnx.jit(lambda block, x: block(x))(other, x)
    assert np.asarray(y).tobytes() == np.asarray(right).tobytes()
    found = cl.to_canonical(block, {**variables, **updated})
    for key, array in cbam_flax.to_canonical(other).items():
        assert found[key].tobytes() == array.tobytes(), key


def test_fields_are_the_vocabulary_in_its_order():
    names = [field.name for field in dataclasses.fields(cl.CBAM)]
    vocabulary = [field.name for field in dataclasses.fields(CBAMSpec)]
    assert names[: len(vocabulary)] == vocabulary
    for name, spec in specs.SPECS.items():
        block = cl.CBAM.from_spec(spec)
        assert block.spec == spec
        assert hash(block) == hash(cl.CBAM.from_spec(spec)), name
        assert block == cl.CBAM(**{field: getattr(spec, field) for field in vocabulary})
    assert cl.CBAM(8, channel_pools=["max"]) == cl.CBAM(8, channel_pools=("max",))
    with pytest.raises(TypeError, match="channel_pools"):
        cl.SqueezeExcitation(8, channel_pools=("max",))


def test_foreign_variables_are_refused():
    block, variables, _ = block_and_map()
    with pytest.raises(ValueError, match=r"missing: spatial.norm.mean \(1,\)"):
        cl.to_canonical(block, {"params": variables["params"]})
    with pytest.raises(ValueError, match=r"missing: channel.reduce.kernel \(12, 3\)"):
        cl.to_canonical(block, variables["params"])

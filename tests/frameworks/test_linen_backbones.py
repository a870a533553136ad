"""What linen users do with a network and its variables."""

from __future__ import annotations

import flax.serialization
import jax
import jax.numpy as jnp
import numpy as np
import optax
import orbax.checkpoint
import pytest
from flax.training.train_state import TrainState

import cbam_flax.linen as cl
from cbam_core import Architecture, reference_network
from tests import networks
from tests.compare import assert_equal

# One of few and small layers, since XLA compiles slowly.
TOY = Architecture("basic", (1, 1), (8, 16), stem="cifar", attention="cbam", num_classes=3)
# A generator that XLA compiles ten times faster than the default one.
KEY = jax.random.key(0, impl="rbg")


def network_of(architecture=TOY, param_dtype="float64", **options):
    """A network and its variables, with the weights of tests.networks."""
    network = cl.Backbone(architecture, param_dtype=param_dtype, **options)
    return network, cl.load_canonical(network, networks.weights(architecture))


def pictures(dtype="float64"):
    return jnp.asarray(networks.picture(8, 9), dtype)


def run_reference(architecture, x, training=False):
    weights = networks.weights(architecture)
    return reference_network.run(architecture, weights, np.asarray(x), training=training)


def assert_close(actual, right, limit):
    assert_equal({"": np.asarray(actual)}, {"": np.asarray(right)}, limit)


def assert_same_bits(variables, other):
    assert jax.tree.structure(variables) == jax.tree.structure(other)
    for found, right in zip(jax.tree.leaves(variables), jax.tree.leaves(other), strict=True):
        assert found.dtype == right.dtype
        assert np.asarray(found).tobytes() == np.asarray(right).tobytes()


@pytest.mark.parametrize("features_only", [False, True])
@pytest.mark.parametrize("param_dtype", ["float16", "float64"])
@pytest.mark.parametrize("name", networks.NETWORKS)
def test_loaded_variables_are_those_of_init(name, param_dtype, features_only):
    network = cl.Backbone(
        networks.NETWORKS[name], param_dtype=param_dtype, features_only=features_only
    )
    loaded = cl.initial_variables(network, "he_normal")
    drawn = jax.eval_shape(network.init, KEY, pictures())
    assert jax.tree.structure(loaded) == jax.tree.structure(drawn)
    for found, right in zip(jax.tree.leaves(loaded), jax.tree.leaves(drawn), strict=True):
        assert (found.shape, found.dtype) == (right.shape, right.dtype)


def test_init_leaves_the_statistics_as_they_start():
    network = cl.Backbone(TOY, use_running_average=False)
    statistics = jax.jit(network.init)(KEY, pictures())["batch_stats"]
    started = cl.initial_variables(network)["batch_stats"]
    assert_same_bits(statistics, started)


def test_the_mode_is_a_field_or_an_argument():
    x = pictures()
    for training in (False, True):
        network, variables = network_of()
        step = run_reference(TOY, x, training)
        argument = {"use_running_average": not training}
        by_argument, updated = network.apply(variables, x, **argument, mutable=["batch_stats"])
        by_field = network.clone(**argument).apply(variables, x, mutable=["batch_stats"])[0]
        assert_close(by_argument, step.output, 1e-12)
        assert np.asarray(by_argument).tobytes() == np.asarray(by_field).tobytes()
        found = cl.to_canonical(network, {**variables, **updated})
        assert_equal({n: found[n] for n in step.statistics}, step.statistics, 1e-12)
    with pytest.raises(ValueError, match='"use_running_average" must be passed'):
        network.apply(variables, x)
    maps = network.apply(variables, x, True, method="features")
    assert [part.shape[-1] for part in maps] == [64, 8, 16]


def test_a_network_learns():
    """A network follows another one: the loss falls to a tenth."""

    class State(TrainState):
        batch_stats: dict

    network, variables = network_of(use_running_average=False)
    target, _ = network.apply(variables, pictures(), mutable=["batch_stats"])
    state = State.create(
        apply_fn=network.apply, **cl.initial_variables(network), tx=optax.sgd(0.1, momentum=0.9)
    )

    @jax.jit
    def step(state):
        def loss(params):
            variables = {"params": params, "batch_stats": state.batch_stats}
            y, updated = state.apply_fn(variables, pictures(), mutable=["batch_stats"])
            return ((y - target) ** 2).mean(), updated

        (value, updated), gradients = jax.value_and_grad(loss, has_aux=True)(state.params)
        return state.apply_gradients(grads=gradients, batch_stats=updated["batch_stats"]), value

    losses = []
    for _ in range(40):
        state, value = step(state)
        losses.append(float(value))
    assert losses[-1] < 0.1 * losses[0]


def test_vmap_over_inputs_and_over_networks_equals_a_loop():
    network, variables = network_of(use_running_average=True)
    xs = jnp.stack([pictures(), -pictures()])
    loop = [run_reference(TOY, x).output for x in xs]
    assert_close(jax.jit(jax.vmap(network.apply, (None, 0)))(variables, xs), loop, 1e-12)
    several = jax.tree.map(lambda a: jnp.stack([a, a / 2]), variables)
    both = jax.jit(jax.vmap(network.apply, (0, None)))(several, xs[0])
    halved = {n: a / 2 for n, a in networks.weights(TOY).items()}
    right = [loop[0], reference_network.run(TOY, halved, np.asarray(xs[0])).output]
    assert_close(both, right, 1e-12)


def test_statistics_over_a_mapped_axis_are_those_of_the_whole_batch():
    network, variables = network_of(axis_name="batch", use_running_average=False)

    def run(x):
        return network.apply(variables, x[None], mutable=["batch_stats"])

    x = pictures()
    parts, updated = jax.jit(jax.vmap(run, axis_name="batch", out_axes=(0, None)))(x)
    step = run_reference(TOY, x, training=True)
    assert_close(parts[:, 0], step.output, 1e-12)
    found = cl.to_canonical(network, {**variables, **updated})
    assert_equal({n: found[n] for n in step.statistics}, step.statistics, 1e-12)


@pytest.mark.parametrize(
    ("dtype", "param_dtype", "x_dtype"),
    [(None, "bfloat16", "bfloat16"), ("float16", "float32", "uint8")],
)
def test_dtypes(dtype, param_dtype, x_dtype):
    network, variables = network_of(param_dtype=param_dtype, dtype=dtype, use_running_average=False)
    x = jnp.asarray(np.abs(networks.picture(8, 9)), x_dtype)
    y, updated = jax.jit(network.apply, static_argnames="mutable")(
        variables, x, mutable=("batch_stats",)
    )
    assert y.dtype == (dtype or jnp.promote_types(x_dtype, param_dtype))
    assert {a.dtype.name for a in jax.tree.leaves(updated)} == {"float32"}
    weights = cl.to_canonical(network, variables)
    output = reference_network.run(TOY, weights, np.asarray(x, np.float64), training=True).output
    # Each of the six layers rounds once, the head's sums apart.
    assert_close(y.astype(jnp.float64), output, 8 * float(jnp.finfo(y.dtype).eps))


def test_dropout_follows_its_rng():
    head, x = cl.DualPoolingHead(6, 3), jnp.ones((2, 4, 5, 6))
    variables = head.init(KEY, x, True)

    def logits(deterministic, seed):
        rngs = {"dropout": jax.random.key(seed)}
        return np.asarray(head.apply(variables, x, deterministic, rngs=rngs))

    assert (logits(False, 1) == logits(False, 1)).all()
    assert (logits(False, 1) != logits(False, 2)).any()
    assert (logits(True, 1) == logits(True, 2)).all()


def test_a_network_is_a_static_argument():
    network, variables = network_of()

    @jax.jit
    def run(variables, x):
        return network.apply(variables, x, True)

    assert hash(network) == hash(cl.Backbone(TOY, param_dtype="float64"))
    assert network == cl.Backbone(TOY, param_dtype="float64")
    assert run(variables, pictures()).shape == (2, 3)


@pytest.mark.parametrize("param_dtype", ["bfloat16", "float64"])
def test_msgpack_returns_the_same_bits(param_dtype):
    _, variables = network_of(param_dtype=param_dtype)
    template = jax.tree.map(jnp.zeros_like, variables)
    found = flax.serialization.from_bytes(template, flax.serialization.to_bytes(variables))
    assert_same_bits(found, variables)


def test_orbax_returns_the_same_bits(tmp_path):
    network, variables = network_of()
    template = jax.eval_shape(network.init, KEY, pictures())
    with orbax.checkpoint.StandardCheckpointer() as checkpointer:
        checkpointer.save(tmp_path / "network", variables)
        checkpointer.wait_until_finished()
        assert_same_bits(checkpointer.restore(tmp_path / "network", template), variables)


def test_foreign_variables_are_refused():
    network, variables = network_of()
    with pytest.raises(ValueError, match=r"missing: stem.norm.mean \(64,\)"):
        cl.to_canonical(network, {"params": variables["params"]})

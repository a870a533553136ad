"""What nnx users do with a network besides calling it."""

from __future__ import annotations

import flax.serialization
import jax
import jax.numpy as jnp
import numpy as np
import optax
import orbax.checkpoint
import pytest
from flax import nnx

import cbam_flax
from cbam_core import Architecture, initial_network, network_shapes, reference_network
from cbam_core.costs import is_statistic
from tests import networks
from tests.compare import assert_equal
from tests.frameworks.adapters import flax_adapter

# One of few and small layers, since XLA compiles slowly.
TOY = Architecture("basic", (1, 1), (8, 16), stem="cifar", attention="cbam", num_classes=3)


def network_of(architecture=TOY, dtype="float64", **options):
    """A network with the weights of tests.networks."""
    network = flax_adapter.build("Backbone", architecture, dtype=dtype, **options)
    cbam_flax.load_canonical(network, networks.weights(architecture))
    return network


def pictures(dtype="float64"):
    return jnp.asarray(networks.picture(8, 9), dtype)


def run_reference(architecture, x, training=False):
    weights = networks.weights(architecture)
    return reference_network.run(architecture, weights, np.asarray(x), training=training)


def assert_close(actual, right, limit):
    assert_equal({"": np.asarray(actual)}, {"": np.asarray(right)}, limit)


def assert_same_bits(network, other):
    found, right = cbam_flax.to_canonical(network), cbam_flax.to_canonical(other)
    assert {n: a.tobytes() for n, a in found.items()} == {n: a.tobytes() for n, a in right.items()}


@nnx.jit
def forward(network, x):
    return network(x)


@pytest.mark.parametrize("name", networks.NETWORKS)
def test_the_state_has_the_canonical_names_and_shapes(name):
    architecture = networks.NETWORKS[name]
    state = nnx.state(nnx.eval_shape(lambda: flax_adapter.build("Backbone", architecture)))
    weights = {
        ".".join(path): variable
        for path, variable in nnx.to_flat_state(state)
        if not isinstance(variable, nnx.RngState)
    }
    assert {n: v.shape for n, v in weights.items()} == network_shapes(architecture)
    for path, variable in weights.items():
        assert type(variable) is (nnx.BatchStat if is_statistic(path) else nnx.Param), path


def test_a_network_trains_until_eval():
    network, x = network_of(), pictures()
    step = run_reference(TOY, x, training=True)
    assert_close(forward(network, x), step.output, 1e-12)
    found = cbam_flax.to_canonical(network)
    assert_equal({n: found[n] for n in step.statistics}, step.statistics, 1e-12)
    before = nnx.clone(network)
    after = reference_network.run(TOY, found, np.asarray(x)).output
    assert_close(forward(nnx.view(network, use_running_average=True), x), after, 1e-12)
    network.eval()
    assert_close(forward(network, x), after, 1e-12)
    assert_same_bits(network, before)


def test_a_network_learns():
    """A network follows another one: the loss falls to a tenth."""
    network = cbam_flax.Backbone(TOY, param_dtype="float64", rngs=nnx.Rngs(flax_adapter.KEY))
    target = network_of()(pictures())
    optimizer = nnx.Optimizer(network, optax.sgd(0.1, momentum=0.9), wrt=nnx.Param)

    @nnx.jit
    def step(network, optimizer):
        def loss(network):
            return ((network(pictures()) - target) ** 2).mean()

        value, gradients = nnx.value_and_grad(loss)(network)
        optimizer.update(network, gradients)
        return value

    losses = [float(step(network, optimizer)) for _ in range(40)]
    assert losses[-1] < 0.1 * losses[0]


def test_vmap_over_inputs_and_over_networks_equals_a_loop():
    network = network_of()
    network.eval()
    xs = jnp.stack([pictures(), -pictures()])
    loop = [run_reference(TOY, x).output for x in xs]
    assert_close(jax.jit(jax.vmap(network))(xs), loop, 1e-12)
    graph, state = nnx.split(network)
    states = jax.tree.map(lambda a: jnp.stack([a, a / 2]), state)
    both = jax.jit(jax.vmap(lambda state: nnx.merge(graph, state)(xs[0])))(states)
    halved = {n: a / 2 for n, a in networks.weights(TOY).items()}
    right = [loop[0], reference_network.run(TOY, halved, np.asarray(xs[0])).output]
    assert_close(both, right, 1e-12)


def test_statistics_over_a_mapped_axis_are_those_of_the_whole_batch():
    graph, state = nnx.split(network_of(axis_name="batch"))

    def run(x):
        network = nnx.merge(graph, state, copy=True)
        return network(x[None])[0], nnx.state(network, nnx.BatchStat)

    x = pictures()
    parts, statistics = jax.jit(jax.vmap(run, axis_name="batch", out_axes=(0, None)))(x)
    step = run_reference(TOY, x, training=True)
    found = {".".join(path): v[...] for path, v in nnx.to_flat_state(statistics)}
    assert_equal({"output": parts, **found}, {"output": step.output, **step.statistics}, 1e-12)


@pytest.mark.parametrize(
    ("dtype", "param_dtype", "x_dtype"),
    [(None, "bfloat16", "bfloat16"), (None, "float16", "float32"), (None, "float32", "float16"),
     ("bfloat16", "float32", "float32"), ("float16", "float16", "uint8")],
)  # fmt: skip
def test_dtypes(dtype, param_dtype, x_dtype):
    rngs = nnx.Rngs(flax_adapter.KEY)
    network = cbam_flax.Backbone(TOY, dtype=dtype, param_dtype=param_dtype, rngs=rngs)
    cbam_flax.load_canonical(network, networks.weights(TOY))
    x = jnp.asarray(np.abs(networks.picture(8, 9)), x_dtype)
    y = forward(network, x)
    assert y.dtype == (dtype or jnp.promote_types(x_dtype, param_dtype))
    for path, variable in nnx.to_flat_state(nnx.state(network)):
        is_norm = path[-2].startswith("norm")
        assert variable.dtype == (jnp.float32 if is_norm else param_dtype), path
    weights = cbam_flax.to_canonical(network)
    output = reference_network.run(TOY, weights, np.asarray(x, np.float64), training=True).output
    # Each of the six layers rounds once, the head's sums apart.
    assert_close(y.astype(jnp.float64), output, 8 * float(jnp.finfo(y.dtype).eps))


def test_without_x64_all_is_float32():
    with jax.enable_x64(False):
        network = network_of(dtype="float32")
        y = forward(network, np.asarray(networks.picture(8, 9)))
    assert y.dtype == jnp.float32
    assert {a.dtype.name for a in jax.tree.leaves(nnx.state(network))} == {"float32"}
    assert_close(y, run_reference(TOY, pictures(), training=True).output, 1e-5)


@pytest.mark.parametrize("init", [None, "authors"])
def test_dropout_follows_the_rngs_of_the_network(init):
    arguments = {"widen": 0.25, "num_classes": 3, "head": "dual_pooling"}
    weights = initial_network(Architecture.named("mobilenet", **arguments), "he_normal")
    features = jnp.ones((2, 1, 1, 256))

    def logits(seed, training):
        rngs = nnx.Rngs(jax.random.key(seed, impl="rbg"))
        network = cbam_flax.mobilenet(init=init, rngs=rngs, **arguments)
        cbam_flax.load_canonical(network, weights)
        network.train() if training else network.eval()
        first, second = np.asarray(network.head(features)), np.asarray(network.head(features))
        assert (first == second).all() != training
        return first

    assert (logits(1, True) == logits(1, True)).all()
    assert (logits(1, True) != logits(2, True)).any()
    assert (logits(1, False) == logits(2, False)).all()


def test_stages_keep_the_order_of_their_blocks():
    """Also where a split and a merge sort the names: block10 before block2."""
    architecture = Architecture("basic", (11,), (64,), stem="cifar", num_classes=3)
    network = network_of(architecture)
    network.eval()
    merged = nnx.merge(*nnx.split(network))
    assert_same_bits(merged, network)
    assert merged.architecture == architecture
    assert_close(merged(pictures()), run_reference(architecture, pictures()).output, 1e-12)


@pytest.mark.parametrize("dtype", ["bfloat16", "float64"])
def test_msgpack_returns_the_same_bits(dtype):
    network, other = network_of(dtype=dtype), flax_adapter.build("Backbone", TOY, dtype=dtype)
    content = flax.serialization.to_bytes(nnx.to_pure_dict(nnx.state(network)))
    pure = flax.serialization.from_bytes(nnx.to_pure_dict(nnx.state(other)), content)
    nnx.update(other, pure)
    assert_same_bits(other, network)


def test_orbax_returns_the_same_bits(tmp_path):
    network = network_of()
    graph, state = nnx.split(
        nnx.eval_shape(lambda: flax_adapter.build("Backbone", TOY, dtype="float64"))
    )
    with orbax.checkpoint.StandardCheckpointer() as checkpointer:
        checkpointer.save(tmp_path / "network", nnx.state(network))
        checkpointer.wait_until_finished()
        restored = checkpointer.restore(tmp_path / "network", state)
    assert_same_bits(nnx.merge(graph, restored), network)

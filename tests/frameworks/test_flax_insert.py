"""CBAM into nnx models that know nothing of it."""

from __future__ import annotations

import copy
import re

import flax.serialization
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

import cbam_flax
from cbam_core import Architecture, CBAMSpec, reference_network
from cbam_core.initial import initial_at
from cbam_flax import insert_cbam, new_parameters
from tests import networks
from tests.compare import assert_equal
from tests.frameworks.adapters.flax_adapter import KEY

X = jnp.asarray(networks.picture(8, 9), jnp.float32)
WITH_NORM = CBAMSpec.preset("official", 1, gate="double_sigmoid", kernel_size=3)


class Model(nnx.Module):
    """Two convolutions with flax's own norm, one of them used twice, and a classifier."""

    def __init__(self, rngs):
        self.stem = nnx.Conv(3, 6, (3, 3), strides=2, rngs=rngs)
        self.layers = nnx.List([nnx.Conv(6, 6, (3, 3), rngs=rngs)])
        self.norm = nnx.BatchNorm(6, rngs=rngs)
        self.unused = nnx.Conv(6, 6, (1, 1), rngs=rngs)
        self.linear = nnx.Linear(6, 2, rngs=rngs)

    def __call__(self, x, scale=1.0):
        x = nnx.relu(self.norm(self.stem(x)))
        x = nnx.relu(self.norm(self.layers[0](x * scale)))
        return self.linear(x.mean((1, 2)))


def build(training=False):
    model = Model(nnx.Rngs(KEY))
    model.train() if training else model.eval()
    return model


def bits(model):
    """Path -> bytes of everything in the model's state."""
    flat = nnx.to_flat_state(nnx.state(model))
    return {path: np.asarray(variable[...]).tobytes() for path, variable in flat}


@pytest.mark.parametrize("spec", [None, "identity", WITH_NORM], ids=str)
@pytest.mark.parametrize("training", [False, True], ids=["eval", "train"])
def test_identity_leaves_the_output_bit_for_bit(training, spec):
    model, other = build(training), build(training)
    assert insert_cbam(other, ["norm", "layers.0", "stem"], spec, example=X) is other
    other.train() if training else other.eval()
    for _ in range(2):
        assert np.asarray(other(X)).tobytes() == np.asarray(model(X)).tobytes()
    found = bits(other)
    assert {path: found[path] for path in bits(model)} == bits(model)


@pytest.mark.parametrize("training", [False, True], ids=["eval", "train"])
def test_identity_leaves_a_network_as_it_is_under_jit(training):
    architecture = Architecture("bottleneck", (1,), (4,), stem="cifar", num_classes=3)
    network = cbam_flax.Backbone(architecture, rngs=nnx.Rngs(KEY))
    cbam_flax.load_canonical(network, networks.weights(architecture))
    network.train() if training else network.eval()
    other = insert_cbam(nnx.clone(network), "stage*.norm?", example=X)
    run = nnx.jit(lambda network, x: network(x))
    np.testing.assert_allclose(run(other, X), run(network, X), rtol=0, atol=1e-6)


def test_training_starts_from_the_identity():
    model = build(training=True)
    insert_cbam(model, nnx.BatchNorm, example=X)

    @nnx.jit
    def gradients(model):
        return nnx.grad(lambda model: (model(X) ** 2).sum())(model)

    moved = gradients(model)["norm"]["cbam"]
    assert np.asarray(moved["channel"]["expand"]["kernel"][...]).any()
    assert np.asarray(moved["spatial"]["conv"]["kernel"][...]).any()


@pytest.mark.parametrize("placement", ["block", "stem_and_tail"])
def test_an_inserted_cbam_is_that_of_the_architecture(placement):
    plain = Architecture("basic", (1, 1), (4, 6), stem="cifar", num_classes=3)
    attended = Architecture(
        "basic", (1, 1), (4, 6), stem="cifar", num_classes=3, attention="cbam", placement=placement
    )
    weights = networks.weights(attended)
    network = cbam_flax.Backbone(plain, param_dtype="float64", rngs=nnx.Rngs(KEY))
    own = {name: array for name, array in weights.items() if name in networks.weights(plain)}
    cbam_flax.load_canonical(network, own)
    where = {"stage1.block0.norm2": "stage1.block0.attention"}
    where["stage2.block0.norm2"] = "stage2.block0.attention"
    if placement == "stem_and_tail":
        # Without a max pool the stem ends with the attention.
        where = {"stem": "stem.attention", "stage2": "tail"}
    x = jnp.asarray(X, "float64")
    insert_cbam(network, list(where), "official", init="authors", example=x, param_dtype="float64")
    modules = {".".join(path): module for path, module in nnx.iter_modules(network)}
    for path, attention in where.items():
        prefix = f"{attention}."
        inside = {n.removeprefix(prefix): a for n, a in weights.items() if n.startswith(prefix)}
        cbam_flax.load_canonical(modules[path].cbam, inside)
    network.eval()
    right = reference_network.run(attended, weights, np.asarray(x)).output
    assert_equal({"": np.asarray(network(x))}, {"": right}, 1e-12)


class Residual(nnx.Module):
    """A block with the names of torchvision's."""

    def __init__(self, rngs):
        self.conv1 = nnx.Conv(3, 3, (3, 3), rngs=rngs)
        self.bn1 = nnx.BatchNorm(3, rngs=rngs)
        self.conv2 = nnx.Conv(3, 3, (3, 3), rngs=rngs)
        self.bn2 = nnx.BatchNorm(3, rngs=rngs)
        self.downsample = None

    def __call__(self, x):
        return nnx.relu(x + self.bn2(self.conv2(nnx.relu(self.bn1(self.conv1(x))))))


def test_block_is_the_last_norm_of_each_block():
    rngs = nnx.Rngs(KEY)
    model = nnx.Sequential(Residual(rngs), Residual(rngs))
    insert_cbam(model, "block", example=X)
    paths = [path for path, module in nnx.iter_modules(model) if isinstance(module, cbam_flax.CBAM)]
    assert sorted(paths) == [("layers", 0, "bn2", "cbam"), ("layers", 1, "bn2", "cbam")]


def test_old_states_still_go_into_the_model():
    model, trained = build(), build(training=True)
    trained(X)
    content = flax.serialization.to_bytes(nnx.to_pure_dict(nnx.state(trained)))
    insert_cbam(model, ["stem", "norm"], example=X)
    old = nnx.to_pure_dict(nnx.state(build()))
    nnx.update(model, flax.serialization.from_bytes(old, content))
    trained.eval()
    assert np.asarray(model(X)).tobytes() == np.asarray(trained(X)).tobytes()


def test_an_optimizer_can_move_the_new_parameters_alone():
    model = insert_cbam(build(training=True), ["stem", "norm"], WITH_NORM, example=X)
    new = new_parameters(model)
    before = bits(model)
    optimizer = nnx.Optimizer(model, optax.sgd(0.1), wrt=new)
    loss = lambda model: (model(X) ** 2).sum()  # noqa: E731
    for _ in range(2):
        optimizer.update(model, nnx.grad(loss, argnums=nnx.DiffState(0, new))(model))
    after = bits(model)
    params = {path for path, _ in nnx.to_flat_state(nnx.state(model, nnx.Param))}
    inserted = {path for path in params if "cbam" in path}
    assert {path for path, _ in nnx.to_flat_state(nnx.state(model, new))} == inserted
    moved = {path for path in params if after[path] != before[path]}
    assert moved
    assert moved <= inserted


def test_the_initial_values_are_those_of_the_core():
    places = {"stem": 6, "layers.0": 6}
    model = insert_cbam(build(), list(places), "official", init="authors", seed=5, example=X)
    found = cbam_flax.to_canonical(model.stem.cbam), cbam_flax.to_canonical(model.layers[0].cbam)
    for (path, channels), weights in zip(places.items(), found, strict=True):
        drawn = initial_at(path, CBAMSpec.preset("official", channels), "authors", seed=5)
        assert all(weights[name].tobytes() == drawn[name].tobytes() for name in drawn)


def test_a_model_with_cbam_is_a_model_like_any_other():
    model = insert_cbam(build(), ["stem", "norm"], WITH_NORM, example=X)
    model.eval()
    y = np.asarray(model(X))
    for other in (nnx.merge(*nnx.split(model)), nnx.clone(model), copy.deepcopy(model)):
        assert np.asarray(other(X)).tobytes() == y.tobytes()
    assert isinstance(model.norm, nnx.BatchNorm)
    assert model.norm.cbam.spatial.norm.use_running_average
    model.train()
    assert not model.norm.cbam.spatial.norm.use_running_average


def test_a_second_insertion_leaves_the_first():
    model = insert_cbam(build(), "norm", example=X)
    is_used = lambda path, module: isinstance(module, nnx.Conv) and path != "unused"  # noqa: E731
    insert_cbam(model, is_used, example=X)
    paths = {path for path, module in nnx.iter_modules(model) if isinstance(module, cbam_flax.CBAM)}
    assert paths == {("norm", "cbam"), ("stem", "cbam"), ("layers", 0, "cbam")}


@pytest.mark.parametrize(("rank", "size"), [(1, (9,)), (3, (4, 5, 3))])
def test_signals_and_volumes(rank, size):
    model = nnx.Conv(2, 4, (3,) * rank, rngs=nnx.Rngs(KEY))
    x = jnp.ones((2, *size, 2))
    y = np.asarray(model(x))
    insert_cbam(model, nnx.Conv, CBAMSpec.preset("identity", 1, kernel_size=3), example=x)
    assert model.cbam.spec.rank == rank
    assert np.asarray(model(x)).tobytes() == y.tobytes()


class Odd(nnx.Module):
    """Modules that give no map, an integer one, or two of different widths."""

    class Split(nnx.Module):
        def __call__(self, x):
            return x, x

    class Round(nnx.Module):
        def __call__(self, x):
            return x.astype("int32")

    class Act(nnx.Module):
        def __call__(self, x):
            return nnx.relu(x)

    def __init__(self, rngs):
        self.split, self.round, self.act = self.Split(), self.Round(), self.Act()
        self.conv, self.rest = nnx.Conv(3, 5, (1, 1), rngs=rngs), nnx.Conv(3, 5, (1, 1), rngs=rngs)

    def __call__(self, x):
        x, _ = self.split(x)
        y = self.act(self.conv(self.act(x)))
        return y + self.round(y)


@pytest.mark.parametrize(
    ("where", "options", "error", "message"),
    [
        ("bn*", {}, ValueError, "where='bn*' names no module of the model; choose from "),
        (["conv", "rest"], {}, ValueError, "where='rest' is not called when the model runs"),
        (["conv", "split"], {}, ValueError, "where='split' gives tuple, and a CBAM refines"),
        (["conv", "round"], {}, TypeError, "where='round' gives a map of dtype int32"),
        (["conv", "act"], {}, ValueError, "where='act' gives maps of several widths or ranks"),
        ("conv", {"spec": "eca"}, ValueError, "preset='eca' is unknown; choose from"),
        ("conv", {"spec": "official"}, ValueError, "'identity' needs gate='double_sigmoid'"),
        ("conv", {"init": "zeros"}, ValueError, "scheme='zeros' is unknown; choose from"),
    ],
)
def test_a_wrong_place_is_named_and_the_model_is_as_it_was(where, options, error, message):
    model = Odd(nnx.Rngs(KEY))
    graph, before = nnx.graphdef(model), bits(model)
    with pytest.raises(error, match=re.escape(message)):
        insert_cbam(model, where, **{"example": X, **options})
    assert nnx.graphdef(model) == graph
    assert bits(model) == before


def test_a_place_takes_one_cbam():
    model = insert_cbam(build(), "norm", example=X)
    with pytest.raises(ValueError, match="where='norm' has an attribute cbam already"):
        insert_cbam(model, "norm", example=X)


def test_the_trace_computes_nothing_and_takes_further_arguments():
    model = build(training=True)
    before = bits(model)
    example = (jax.ShapeDtypeStruct((1, 16, 16, 3), "float32"),)
    insert_cbam(model, "norm", example=example, call={"scale": 0.5})
    found = bits(model)
    assert {path: found[path] for path in before} == before

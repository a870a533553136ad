"""CBAM into linen models that know nothing of it."""

from __future__ import annotations

import re

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax.traverse_util import flatten_dict, unflatten_dict

import cbam_flax.linen as cl
from cbam_core import Architecture, CBAMSpec, reference_network
from cbam_core.initial import initial_at
from cbam_flax.linen import insert_cbam, new_parameters
from tests import networks
from tests.compare import assert_equal
from tests.frameworks.adapters.flax_adapter import KEY

X = jnp.asarray(networks.picture(8, 9), jnp.float32)
WITH_NORM = CBAMSpec.preset("official", 1, gate="double_sigmoid", kernel_size=3)
EVAL, TRAIN = {"train": False}, {"train": True}


class Block(nn.Module):
    """A convolution and flax's own norm."""

    strides: int = 1

    @nn.compact
    def __call__(self, x, train):
        x = nn.Conv(6, (3, 3), self.strides)(x)
        return nn.relu(nn.BatchNorm(use_running_average=not train)(x))


class Model(nn.Module):
    """Blocks, one of them used twice and one rematerialised, and a classifier."""

    def setup(self):
        self.stem = Block(2)
        self.shared = Block()
        self.remat = nn.remat(Block, static_argnums=2)()
        self.linear = nn.Dense(2)

    def __call__(self, x, train):
        x = self.shared(self.shared(self.stem(x, train), train), train)
        return self.linear(self.remat(x, train).mean((1, 2)))


def build():
    """The model and its variables."""
    model = Model()
    return model, model.init(KEY, X, False)


def insert(where, spec=None, **options):
    model, variables = build()
    return insert_cbam(model, where, spec, variables=variables, example=X, call=EVAL, **options)


def apply(model, variables, mode):
    """Output and updates of a call, which mutates statistics in training."""
    return model.apply(variables, X, **mode, mutable=["batch_stats"] if mode["train"] else [])


def bits(variables):
    return {name: np.asarray(a).tobytes() for name, a in flatten_dict(variables).items()}


@pytest.mark.parametrize("spec", [None, "identity", WITH_NORM], ids=str)
@pytest.mark.parametrize("mode", [EVAL, TRAIN], ids=str)
def test_identity_leaves_the_output_bit_for_bit(mode, spec):
    model, variables = build()
    other, new = insert(["stem.BatchNorm_0", "shared", "remat"], spec)
    assert bits(variables).items() <= bits(new).items()
    y, updated = apply(model, variables, mode)
    found, moved = apply(other, new, mode)
    assert np.asarray(found).tobytes() == np.asarray(y).tobytes()
    assert bits(updated).items() <= bits(moved).items()


@pytest.mark.parametrize("mode", [EVAL, TRAIN], ids=str)
def test_the_norm_of_a_cbam_follows_the_statistics_of_the_model(mode):
    model, variables = insert("shared", WITH_NORM)
    _, updated = apply(model, variables, mode)
    before, after = bits(variables), bits(updated)
    norm = ("batch_stats", "shared", "cbam", "spatial", "norm", "mean")
    assert (norm in after and after[norm] != before[norm]) == mode["train"]


def test_init_gives_the_same_tree():
    model, variables = insert(["stem", "shared.Conv_0", "remat.BatchNorm_0"], WITH_NORM)
    drawn = jax.eval_shape(lambda: model.init(KEY, X, False))
    assert jax.tree.structure(drawn) == jax.tree.structure(variables)
    for found, right in zip(jax.tree.leaves(variables), jax.tree.leaves(drawn), strict=True):
        assert (found.shape, found.dtype) == (right.shape, right.dtype)


def test_the_new_variables_stand_behind_their_module():
    model, variables = insert(["stem", "shared.Conv_0"])
    new = {name for name in flatten_dict(variables) if "cbam" in name}
    assert {name[: name.index("cbam")] for name in new} == {
        ("params", "stem"),
        ("params", "shared", "Conv_0"),
    }
    assert hash(model) == hash(insert(["stem", "shared.Conv_0"])[0])


class Residual(nn.Module):
    """A block with the names of torchvision's."""

    downsample: nn.Module | None = None

    def setup(self):
        self.conv1, self.conv2 = nn.Conv(3, (3, 3)), nn.Conv(3, (3, 3))
        self.bn1, self.bn2 = nn.BatchNorm(True), nn.BatchNorm(True)

    def __call__(self, x):
        return nn.relu(x + self.bn2(self.conv2(nn.relu(self.bn1(self.conv1(x))))))


def test_block_is_the_last_norm_of_each_block():
    model = nn.Sequential([Residual(), Residual(nn.Conv(3, (1, 1)))])
    variables = model.init(KEY, X)
    model, _ = insert_cbam(model, "block", variables=variables, example=X)
    assert [place.path for place in model.places] == ["layers_0.bn2", "layers_1.bn2"]


@pytest.mark.parametrize("placement", ["block", "stem_and_tail"])
def test_an_inserted_cbam_is_that_of_the_architecture(placement):
    plain = Architecture("basic", (1, 1), (4, 6), stem="cifar", num_classes=3)
    attended = Architecture(
        "basic", (1, 1), (4, 6), stem="cifar", num_classes=3, attention="cbam", placement=placement
    )
    weights = networks.weights(attended)
    network = cl.Backbone(plain, param_dtype="float64")
    own = {name: array for name, array in weights.items() if name in networks.weights(plain)}
    where = {"stage1.block0.norm2": "stage1.block0.attention"}
    where["stage2.block0.norm2"] = "stage2.block0.attention"
    if placement == "stem_and_tail":
        # Without a max pool the stem ends with the attention.
        where = {"stem": "stem.attention", "stage2": "tail"}
    x = jnp.asarray(X, "float64")
    model, variables = insert_cbam(
        network,
        list(where),
        "official",
        variables=cl.load_canonical(network, own),
        example=x,
        call={"use_running_average": True},
        init="authors",
        param_dtype="float64",
    )
    for collection in variables:
        flat = flatten_dict(variables[collection], sep=".")
        for path, attention in where.items():
            for name in [name for name in flat if name.startswith(f"{path}.cbam.")]:
                inside = name.removeprefix(f"{path}.cbam.")
                flat[name] = jnp.asarray(weights[f"{attention}.{inside}"])
        variables[collection] = unflatten_dict(flat, sep=".")
    right = reference_network.run(attended, weights, np.asarray(x)).output
    found = model.apply(variables, x, use_running_average=True)
    assert_equal({"": np.asarray(found)}, {"": right}, 1e-12)


def test_it_works_under_jit_and_inside_a_larger_model():
    inner, inside = insert(["shared", "remat"])

    class Outer(nn.Module):
        part: nn.Module

        def __call__(self, x, train):
            return 2 * self.part(x, train)

    outer = Outer(inner)
    variables = {name: {"part": tree} for name, tree in inside.items()}
    run = jax.jit(outer.apply, static_argnums=2)
    y = inner.apply(inside, X, False)
    np.testing.assert_allclose(run(variables, X, False), 2 * y, rtol=0, atol=1e-6)
    # And a second insertion into the outer one keeps the first.
    again, variables = insert_cbam(outer, "part.stem", variables=variables, example=X, call=EVAL)
    assert np.asarray(again.apply(variables, X, False)).tobytes() == np.asarray(2 * y).tobytes()


def test_a_second_insertion_leaves_the_first():
    model, variables = insert("shared")
    again, more = insert_cbam(model, nn.Conv, variables=variables, example=X, call=EVAL)
    assert bits(variables).items() <= bits(more).items()
    y = np.asarray(model.apply(variables, X, False))
    assert np.asarray(again.apply(more, X, False)).tobytes() == y.tobytes()
    mask = flatten_dict(new_parameters(again)(more["params"]))
    assert {name for name, is_new in mask.items() if is_new} == {n for n in mask if "cbam" in n}


def test_an_optimizer_can_move_the_new_parameters_alone():
    model, variables = insert(["stem", "shared"], WITH_NORM)
    params, statistics = variables["params"], variables["batch_stats"]
    old = jax.tree.map(lambda is_new: not is_new, new_parameters(model)(params))
    tx = optax.chain(optax.masked(optax.set_to_zero(), old), optax.sgd(0.1))

    @jax.jit
    def gradients(params):
        def loss(params):
            variables = {"params": params, "batch_stats": statistics}
            y, _ = model.apply(variables, X, True, mutable=["batch_stats"])
            return (y**2).sum()

        return jax.grad(loss)(params)

    updates, _ = tx.update(gradients(params), tx.init(params), params)
    moved = {name for name, update in flatten_dict(updates).items() if np.asarray(update).any()}
    assert {name[: name.index("cbam")] for name in moved} == {("stem",), ("shared",)}


def test_the_initial_values_are_those_of_the_core():
    _, variables = insert(["stem", "shared.Conv_0"], "official", init="authors", seed=5)
    flat = flatten_dict(variables, sep=".")
    for path in ("stem", "shared.Conv_0"):
        drawn = initial_at(path, CBAMSpec.preset("official", 6), "authors", seed=5)
        for name, array in drawn.items():
            collection = "batch_stats" if name.endswith((".mean", ".var")) else "params"
            found = flat[f"{collection}.{path}.cbam.{name}"]
            assert np.asarray(found).tobytes() == array.tobytes()


@pytest.mark.parametrize(("rank", "size"), [(1, (9,)), (3, (4, 5, 3))])
def test_signals_and_volumes(rank, size):
    model, x = nn.Conv(4, (3,) * rank), jnp.ones((2, *size, 2))
    variables = model.init(KEY, x)
    y = np.asarray(model.apply(variables, x))
    spec = CBAMSpec.preset("identity", 1, kernel_size=3)
    model, variables = insert_cbam(model, nn.Conv, spec, variables=variables, example=x)
    assert [place.spec for place in model.places] == [spec.replace(channels=4, rank=rank)]
    assert np.asarray(model.apply(variables, x)).tobytes() == y.tobytes()


class Split(nn.Module):
    def __call__(self, x):
        return x, x


class Round(nn.Module):
    def __call__(self, x):
        return x.astype("int32")


class Act(nn.Module):
    def __call__(self, x):
        return nn.relu(x)


class Odd(nn.Module):
    """Modules that give no map, an integer one, or two of different widths."""

    def setup(self):
        self.split, self.round, self.act = Split(), Round(), Act()
        self.conv = nn.Conv(5, (1, 1))

    def __call__(self, x):
        x, _ = self.split(x)
        y = self.act(self.conv(self.act(x)))
        return y + self.round(y)


@pytest.mark.parametrize(
    ("where", "options", "error", "message"),
    [
        ("bn*", {}, ValueError, "where='bn*' names no module of the model; choose from "),
        (["conv", "split"], {}, ValueError, "where='split' gives tuple, and a CBAM refines"),
        (["conv", "round"], {}, TypeError, "where='round' gives a map of dtype int32"),
        (["conv", "act"], {}, ValueError, "where='act' gives maps of several widths or ranks"),
        ("conv", {"spec": "eca"}, ValueError, "preset='eca' is unknown; choose from"),
        ("conv", {"spec": "official"}, ValueError, "'identity' needs gate='double_sigmoid'"),
        ("conv", {"init": "zeros"}, ValueError, "scheme='zeros' is unknown; choose from"),
    ],
)
def test_a_wrong_place_is_named_and_the_variables_are_as_they_were(where, options, error, message):
    model = Odd()
    variables = model.init(KEY, X)
    before = bits(variables)
    with pytest.raises(error, match=re.escape(message)):
        insert_cbam(model, where, **{"variables": variables, "example": X, **options})
    assert bits(variables) == before


def test_a_place_takes_one_cbam():
    model, variables = insert("shared")
    with pytest.raises(ValueError, match="where='shared' has variables cbam already"):
        insert_cbam(model, "shared", variables=variables, example=X, call=EVAL)

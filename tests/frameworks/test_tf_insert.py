"""CBAM into tf modules that know nothing of it."""

from __future__ import annotations

import copy
import re

import numpy as np
import pytest
import tensorflow as tf

import cbam_tf
from cbam_core import Architecture, CBAMSpec, reference_network
from cbam_core.initial import initial_at
from cbam_tf import insert_cbam, new_parameters
from tests import networks
from tests.compare import assert_equal

X = tf.constant(networks.picture(8, 9), tf.float32)
WITH_NORM = CBAMSpec.preset("official", 1, gate="double_sigmoid", kernel_size=3)


class Conv(tf.Module):
    """A convolution, as a tf.function that knows nothing of training."""

    def __init__(self, inputs, outputs, strides=1, name=None):
        super().__init__(name)
        values = np.random.default_rng(0).standard_normal((3, 3, inputs, outputs))
        self.kernel = tf.Variable(values, dtype=tf.float32)
        self.strides = strides

    @tf.function
    def __call__(self, x):
        return tf.nn.conv2d(x, self.kernel, self.strides, "SAME")


class Norm(tf.Module):
    """TensorFlow's fused batch norm, which moves its statistics when it is told to train."""

    def __init__(self, channels):
        super().__init__()
        self.scale, self.offset = (
            tf.Variable(tf.fill([channels], 0.7)),
            tf.Variable(tf.ones(channels)),
        )
        self.mean = tf.Variable(tf.zeros(channels), trainable=False)
        self.variance = tf.Variable(tf.ones(channels), trainable=False)

    def __call__(self, x, training):
        statistics = {} if training else {"mean": self.mean, "variance": self.variance}
        y, mean, variance = tf.compat.v1.nn.fused_batch_norm(
            x, self.scale, self.offset, **statistics, is_training=training
        )
        if training:
            self.mean.assign(0.9 * self.mean + 0.1 * mean)
            self.variance.assign(0.9 * self.variance + 0.1 * variance)
        return y


class Shift(tf.Module):
    """Control flow that depends on values, as AutoGraph has it."""

    def __call__(self, x):
        while tf.reduce_sum(x) < 0:
            x = x + 1
        return x


class Model(tf.Module):
    """Convolutions and a norm, one of them used twice, and a classifier."""

    def __init__(self):
        super().__init__()
        self.stem = Conv(3, 6, 2)
        self.layers = [Conv(6, 6), {"shift": Shift()}]
        self.norm = Norm(6)
        self.unused = Conv(6, 6)
        self.linear = tf.Variable(tf.reshape(tf.range(12.0), (6, 2)))

    @tf.function
    def __call__(self, x, training=False, scale=1.0):
        x = tf.nn.relu(self.norm(self.stem(x), training))
        x = self.layers[1]["shift"](self.layers[0](x * scale))
        x = tf.nn.relu(self.norm(x, training=training))
        return tf.reduce_mean(x, (1, 2)) @ self.linear


def _is_variable(leaf):
    return isinstance(leaf, tf.Variable)


def bits(model):
    flat = model._flatten(predicate=_is_variable, with_path=True)
    return {path: variable.numpy().tobytes() for path, variable in flat}


def places(model):
    found = model._flatten(predicate=lambda leaf: isinstance(leaf, cbam_tf.CBAM), with_path=True)
    return {".".join(map(str, path)).removesuffix(".cbam") for path, _ in found}


@pytest.mark.parametrize("spec", [None, WITH_NORM], ids=str)
@pytest.mark.parametrize("around", [lambda model: model, tf.function], ids=["eager", "function"])
def test_identity_leaves_the_output_bit_for_bit(around, spec):
    """Also where the model was traced before the insertion."""
    model, other = Model(), Model()
    for one in (model, other):
        one(X, training=True)
    where = ["stem", "norm", "layers.0", "layers.1.shift"]
    assert insert_cbam(other, where, spec, example=X) is other
    for training in (True, True, False):
        found, right = around(other)(X, training=training), around(model)(X, training=training)
        assert found.numpy().tobytes() == right.numpy().tobytes()
    assert bits(model).items() <= bits(other).items()


def test_training_starts_from_the_identity():
    model = Model()
    before = model(X, training=True)
    insert_cbam(model, ["norm", "stem"], example=X)

    @tf.function
    def gradients():
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(model(X, training=True) ** 2)
        return tape.gradient(loss, {"norm": moved(model.norm), "stem": moved(model.stem)})

    def moved(module):
        return [module.cbam.channel.expand.kernel, module.cbam.spatial.conv.kernel]

    for gradient in tf.nest.flatten(gradients()):
        assert gradient.numpy().any()
    for variable, gradient in zip(moved(model.norm), gradients()["norm"], strict=True):
        variable.assign_sub(0.1 * gradient)
    assert (model(X, training=True) != before).numpy().any()


@pytest.mark.parametrize("placement", ["block", "stem_and_tail"])
def test_an_inserted_cbam_is_that_of_the_architecture(placement):
    plain = Architecture("basic", (1, 1), (4, 6), stem="cifar", num_classes=3)
    attended = Architecture(
        "basic", (1, 1), (4, 6), stem="cifar", num_classes=3, attention="cbam", placement=placement
    )
    weights = networks.weights(attended)
    network = cbam_tf.Backbone(plain, dtype=tf.float64)
    own = {name: array for name, array in weights.items() if name in networks.weights(plain)}
    cbam_tf.load_canonical(network, own)
    where = {"stage1.block0.norm2": "stage1.block0.attention"}
    where["stage2.block0.norm2"] = "stage2.block0.attention"
    if placement == "stem_and_tail":
        # Without a max pool the stem ends with the attention.
        where = {"stem": "stem.attention", "stage2": "tail"}
    x = tf.constant(networks.picture(8, 9))
    insert_cbam(network, list(where), "official", init="authors", example=x)
    for path, attention in where.items():
        prefix = f"{attention}."
        inside = {n.removeprefix(prefix): a for n, a in weights.items() if n.startswith(prefix)}
        module = network
        for name in path.split("."):
            module = getattr(module, name)
        cbam_tf.load_canonical(module.cbam, inside)
    right = reference_network.run(attended, weights, x.numpy()).output
    assert_equal({"": network(x).numpy()}, {"": right}, 1e-12)


class Residual(tf.Module):
    """A block with the names of torchvision's."""

    def __init__(self):
        super().__init__()
        self.conv1, self.bn1, self.conv2, self.bn2 = Conv(3, 3), Norm(3), Conv(3, 3), Norm(3)
        self.downsample = None

    def __call__(self, x):
        out = self.bn1(self.conv1(x), False)
        return tf.nn.relu(x + self.bn2(self.conv2(tf.nn.relu(out)), False))


class Chain(tf.Module):
    def __init__(self, *layers):
        super().__init__()
        self.layers = layers

    def __call__(self, x):
        for layer in self.layers:
            x = layer(x)
        return x


def test_block_is_the_last_norm_of_each_block():
    model = insert_cbam(Chain(Residual(), Residual()), "block", example=X)
    assert places(model) == {"layers.0.bn2", "layers.1.bn2"}


def test_old_checkpoints_still_load(tmp_path):
    model, trained = Model(), Model()
    trained(X, training=True)
    path = tf.train.Checkpoint(trained).save(tmp_path / "model")
    insert_cbam(model, ["stem", "norm"], example=X)
    tf.train.Checkpoint(model).restore(path).assert_nontrivial_match().expect_partial()
    assert model(X).numpy().tobytes() == trained(X).numpy().tobytes()


def test_the_new_parameters_can_be_trained_alone():
    model = insert_cbam(Model(), ["stem", "norm"], WITH_NORM, example=X)
    new = {id(variable) for variable in new_parameters(model)}
    found = model._flatten(predicate=_is_variable, with_path=True)
    inserted = {path: variable for path, variable in found if "cbam" in path}
    assert new == {id(variable) for variable in inserted.values() if variable.trainable}
    assert len(new) < len(inserted)


def test_the_initial_values_are_those_of_the_core():
    model = insert_cbam(
        Model(), ["stem", "layers.0"], "official", init="authors", seed=5, example=X
    )
    for path, module in {"stem": model.stem, "layers.0": model.layers[0]}.items():
        weights = cbam_tf.to_canonical(module.cbam)
        drawn = initial_at(path, CBAMSpec.preset("official", 6), "authors", seed=5)
        assert all(weights[name].tobytes() == drawn[name].tobytes() for name in drawn)


def test_a_model_with_cbam_is_a_model_like_any_other(tmp_path):
    model = insert_cbam(Model(), ["stem", "norm"], WITH_NORM, example=X)
    for number, variable in enumerate(new_parameters(model)):
        variable.assign(tf.random.stateless_normal(variable.shape, (number, 0)))
    y = model(X).numpy()
    assert copy.deepcopy(model)(X).numpy().tobytes() == y.tobytes()
    assert isinstance(model.norm, Norm)
    tf.saved_model.save(model, tmp_path / "saved")
    loaded = tf.saved_model.load(tmp_path / "saved")
    assert loaded(X).numpy().tobytes() == y.tobytes()


def test_a_cbam_is_in_the_mode_of_its_module():
    model = insert_cbam(Model(), ["norm", "stem"], WITH_NORM, example=X)
    for training in (False, True):
        before = [module.cbam.spatial.norm.mean.numpy() for module in (model.norm, model.stem)]
        model(X, training=training)
        after = [module.cbam.spatial.norm.mean.numpy() for module in (model.norm, model.stem)]
        assert [new != old for new, old in zip(after, before, strict=True)] == [training, False]


def test_a_second_insertion_leaves_the_first():
    model = insert_cbam(Model(), "norm", example=X)
    is_used = lambda path, module: isinstance(module, Conv) and path != "unused"  # noqa: E731
    insert_cbam(model, is_used, example=X)
    assert places(model) == {"norm", "stem", "layers.0"}


@pytest.mark.parametrize(("rank", "size"), [(1, (9,)), (3, (4, 5, 3))])
def test_signals_and_volumes(rank, size):
    model, x = Shift(), tf.ones((2, *size, 4), tf.float64)
    y = model(x)
    insert_cbam(model, Shift, CBAMSpec.preset("identity", 1, kernel_size=3), example=x)
    assert (model.cbam.spec.channels, model.cbam.spec.rank) == (4, rank)
    assert tf.function(model)(x).numpy().tobytes() == y.numpy().tobytes()


def test_channels_first():
    model = insert_cbam(
        Relu(), "", example=tf.TensorSpec((2, 5, 8, 9)), data_format="channels_first"
    )
    assert model.cbam.spec.channels == 5


class Split(tf.Module):
    def __call__(self, x):
        return x, x


class Round(tf.Module):
    def __call__(self, x):
        return tf.cast(x, tf.int32)


class Relu(tf.Module):
    def __call__(self, x):
        return tf.nn.relu(x)


class Odd(tf.Module):
    """Modules that give no map, an integer one, or two of different widths."""

    def __init__(self):
        super().__init__()
        self.split, self.round, self.act = Split(), Round(), Relu()
        self.conv, self.rest = Conv(3, 5), Conv(3, 5)

    def __call__(self, x):
        x, _ = self.split(x)
        y = self.act(self.conv(self.act(x)))
        return y + tf.cast(self.round(y), y.dtype)


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
        ("conv", {"data_format": "NHWC"}, ValueError, "data_format='NHWC' is unknown"),
    ],
)
def test_a_wrong_place_is_named_and_the_model_is_as_it_was(where, options, error, message):
    model = Odd()
    before, y = bits(model), model(X)
    with pytest.raises(error, match=re.escape(message)):
        insert_cbam(model, where, **{"example": X, **options})
    assert bits(model) == before
    assert [type(module) for module in model.submodules] == [
        type(module) for module in Odd().submodules
    ]
    assert model(X).numpy().tobytes() == y.numpy().tobytes()


def test_a_place_takes_one_cbam():
    model = insert_cbam(Model(), "norm", example=X)
    with pytest.raises(ValueError, match="where='norm' has an attribute cbam already"):
        insert_cbam(model, "norm", example=X)


def test_the_trace_computes_nothing_and_takes_further_arguments():
    model = Model()
    before = bits(model)
    example = (tf.TensorSpec((None, None, None, 3)),)
    insert_cbam(model, "norm", example=example, call={"training": True, "scale": 0.5})
    found = bits(model)
    assert {path: found[path] for path in before} == before

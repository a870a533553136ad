"""CBAM into Keras models that know nothing of it."""

from __future__ import annotations

import re

import keras
import numpy as np
import pytest
from keras import layers

import cbam_keras
from cbam_core import Architecture, CBAMSpec, reference_network
from cbam_core.initial import initial_at
from cbam_keras import insert_cbam, new_parameters
from cbam_keras.insert import InsertedCBAM
from tests import networks
from tests.compare import assert_equal

X = networks.picture(32, 32).astype("float32")
WITH_NORM = CBAMSpec.preset("official", 1, gate="double_sigmoid", kernel_size=3)


def build():
    """A shared layer, a sum, an operation, a model inside, and layers with a state of their own."""
    keras.utils.set_random_seed(0)
    x = inputs = keras.Input((32, 32, 3))
    # In data that are numbers it has a mean and a variance to copy.
    x = layers.Normalization(name="adapted")(x)
    x = layers.Conv2D(6, 3, 2, use_bias=False, name="stem")(x)
    x = layers.BatchNormalization(name="stem_norm")(x)
    shared = layers.Conv2D(6, 3, padding="same", activation="relu", name="shared")
    x = layers.Add(name="sum")([x, shared(shared(x))])
    inside = keras.Input((None, None, 6))
    norm = layers.BatchNormalization(name="norm")
    body = keras.Model(inside, norm(layers.Conv2D(8, 1, name="conv")(inside)), name="body")
    x = layers.Dropout(0.5, seed=1, name="dropout")(keras.ops.relu(body(x)))
    x = layers.GlobalAveragePooling2D(name="pool")(x)
    model = keras.Model(inputs, layers.Dense(2, name="head")(x), name="mine")
    model.get_layer("adapted").adapt(X)
    return vary(model)


def vary(model):
    """The model with statistics and scales that no initialisation gives."""
    rng = np.random.default_rng(0)
    for layer in model._flatten_layers():
        if isinstance(layer, layers.BatchNormalization):
            for variable in layer.weights:
                variable.assign(rng.uniform(0.5, 1.5, variable.shape))
    return model


def call(model, training=False):
    return keras.ops.convert_to_numpy(model(X, training=training))


def values(model):
    """Path -> value of all variables."""
    return {v.path: np.asarray(keras.ops.convert_to_numpy(v)) for v in model.variables}


def blocks(model):
    return [layer.name for layer in model._flatten_layers() if isinstance(layer, InsertedCBAM)]


def check_same(model, other):
    """Both compute the same, bit for bit, in training too, and have the same state after it."""
    for training in (True, False):
        assert call(other, training).tobytes() == call(model, training).tobytes()
    for path, value in values(model).items():
        # Generators of random numbers are numbered, whatever layer they are in.
        if not path.startswith("seed_generator"):
            assert values(other)[path].tobytes() == value.tobytes(), path


@pytest.mark.parametrize("spec", [None, WITH_NORM], ids=str)
def test_identity_leaves_the_output_bit_for_bit(spec):
    model = build()
    before = values(model)
    other = insert_cbam(model, ["stem*", "shared", "sum", "body.norm", "body"], spec)
    assert other is not model
    assert {path: v.tobytes() for path, v in values(model).items()} == {
        path: v.tobytes() for path, v in before.items()
    }
    check_same(model, other)


RESNET_NORMS = [
    f"conv{stage}_block{block}_3_bn"
    for stage, depth in {2: 3, 3: 4, 4: 6, 5: 3}.items()
    for block in range(1, depth + 1)
]


@pytest.mark.parametrize(
    ("name", "options", "where", "places"),
    [
        ("ResNet50", {}, "block", RESNET_NORMS),
        ("MobileNet", {"alpha": 0.25}, "stem_and_tail", ["conv1_relu", "conv_pw_13_relu"]),
    ],
    ids=["ResNet50", "MobileNet"],
)
def test_the_applications_compute_what_they_did(name, options, where, places):
    application = getattr(keras.applications, name)
    model = vary(application(weights=None, input_shape=(32, 32, 3), classes=5, **options))
    other = insert_cbam(model, where, CBAMSpec.preset("identity", 1, kernel_size=3))
    new = {f"{place}_cbam" for place in places}
    assert set(blocks(other)) == new
    assert {layer.name for layer in other.layers} - new == {layer.name for layer in model.layers}
    check_same(model, other)


def test_training_starts_from_the_identity():
    other = insert_cbam(build(), ["stem_norm", "body.norm"])
    other.compile(keras.optimizers.SGD(0.1), "mse")
    before, y = values(other), call(other)
    other.train_on_batch(X, np.ones((2, 2)))
    moved = {path for path, value in values(other).items() if (value != before[path]).any()}
    for place in ("stem_norm_cbam", "norm_cbam"):
        assert any(f"{place}/channel/expand/kernel" in path for path in moved)
        assert any(f"{place}/spatial/conv/kernel" in path for path in moved)
    assert (call(other) != y).any()


def test_the_others_can_be_frozen():
    other = insert_cbam(build(), ["stem_norm", "shared"], WITH_NORM)
    for layer in other.layers:
        layer.trainable = isinstance(layer, InsertedCBAM)
    new = {variable.path for variable in new_parameters(other)}
    assert {variable.path for variable in other.trainable_variables} == new
    assert new == {v.path for v in other.variables if "_cbam/" in v.path} - {
        v.path for v in other.non_trainable_variables
    }


def functional(architecture, weights):
    """A plain network of basic blocks from Keras' own layers, with "_" for "." in their names."""

    def unit(x, one):
        if one.kernel_size > 1:
            x = layers.ZeroPadding2D(one.kernel_size // 2)(x)
        conv, norm = one.conv.replace(".", "_"), one.norm.replace(".", "_")
        x = layers.Conv2D(one.outputs, one.kernel_size, one.stride, use_bias=False, name=conv)(x)
        return layers.BatchNormalization(epsilon=1e-5, name=norm)(x)

    inputs = keras.Input((None, None, 3))
    x = layers.ReLU(name="stem")(unit(inputs, architecture.stem_unit))
    for (block,) in architecture.stages:
        first, second = block.units
        shortcut = x if block.projection is None else unit(x, block.projection)
        y = unit(layers.ReLU()(unit(x, first)), second)
        x = layers.ReLU(name=block.path.replace(".", "_"))(layers.Add()([y, shortcut]))
    x = layers.GlobalAveragePooling2D()(x)
    outputs = layers.Dense(architecture.num_classes, name="head_linear")(x)
    model = keras.Model(inputs, outputs)
    for layer in model.layers:
        path = re.sub("_(conv|norm|linear|block|projection)", r".\1", layer.name)
        kinds = ("kernel", "scale", "bias", "mean", "var")
        own = [weights[name] for kind in kinds if (name := f"{path}.{kind}") in weights]
        layer.set_weights(own)
    return model


@pytest.mark.parametrize("placement", ["block", "stem_and_tail"])
def test_an_inserted_cbam_is_that_of_the_architecture(placement):
    plain = Architecture("basic", (1, 1), (4, 6), stem="cifar", num_classes=3)
    attended = Architecture(
        "basic", (1, 1), (4, 6), stem="cifar", num_classes=3, attention="cbam", placement=placement
    )
    weights = networks.weights(attended)
    where = {f"stage{n}_block0_norm2": f"stage{n}.block0.attention" for n in (1, 2)}
    if placement == "stem_and_tail":
        # Without a max pool the stem ends with the attention.
        where = {"stem": "stem.attention", "stage2_block0": "tail"}
    model = insert_cbam(functional(plain, weights), list(where), "official", init="authors")
    for name, attention in where.items():
        prefix = f"{attention}."
        inside = {n.removeprefix(prefix): a for n, a in weights.items() if n.startswith(prefix)}
        cbam_keras.load_canonical(model.get_layer(f"{name}_cbam"), inside)
    x = networks.picture(8, 9)
    right = reference_network.run(attended, weights, x).output
    found = keras.ops.convert_to_numpy(model(x.astype("float32")))
    assert_equal({"": found.astype("float64")}, {"": right}, 2e-6)


def test_the_initial_values_are_those_of_the_core():
    other = insert_cbam(build(), ["stem", "body"], "official", init="authors", seed=5)
    for path, channels in {"stem": 6, "body": 8}.items():
        weights = cbam_keras.to_canonical(other.get_layer(f"{path}_cbam"))
        drawn = initial_at(path, CBAMSpec.preset("official", channels), "authors", seed=5)
        assert all(weights[name].tobytes() == drawn[name].tobytes() for name in drawn)


def test_old_weights_still_load(tmp_path):
    trained, other = build(), insert_cbam(build(), ["stem", "shared", "body.norm"])
    for variable in trained.trainable_variables:
        variable.assign(1.25 * keras.ops.convert_to_numpy(variable))
    trained.save_weights(tmp_path / "old.weights.h5")
    other.load_weights(tmp_path / "old.weights.h5", skip_mismatch=True)
    assert call(other).tobytes() == call(trained).tobytes()


def test_it_saves_and_loads(tmp_path):
    other = insert_cbam(build(), ["stem", "shared", "body.norm"], WITH_NORM)
    for number, variable in enumerate(new_parameters(other)):
        variable.assign(keras.random.normal(variable.shape, seed=number))
    other.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert call(loaded).tobytes() == call(other).tobytes()
    assert blocks(loaded) == blocks(other)
    assert len(new_parameters(loaded)) == len(new_parameters(other))
    assert blocks(keras.models.clone_model(other)) == blocks(other)


def test_a_sequential_model_becomes_functional():
    model = keras.Sequential([keras.Input((32, 32, 3)), layers.Conv2D(4, 3, name="conv")])
    model.compile(keras.optimizers.SGD(0.5), "mse")
    other = insert_cbam(model, "conv")
    assert [layer.name for layer in other.layers[1:]] == ["conv", "conv_cbam"]
    assert call(other).tobytes() == call(model).tobytes()
    assert other.optimizer is not model.optimizer
    assert float(other.optimizer.learning_rate) == 0.5


def test_a_second_insertion_leaves_the_first():
    other = insert_cbam(insert_cbam(build(), "stem_norm"), layers.Conv2D)
    assert sorted(blocks(other)) == ["conv_cbam", "shared_cbam", "stem_cbam", "stem_norm_cbam"]
    check_same(build(), other)


@pytest.mark.parametrize("rank", [1, 3])
def test_signals_and_volumes(rank):
    conv = [layers.Conv1D, None, layers.Conv3D][rank - 1]
    model = keras.Sequential([keras.Input((*[6] * rank, 2)), conv(4, 3, name="conv")])
    x = np.ones((2, *[6] * rank, 2), "float32")
    other = insert_cbam(model, "conv", CBAMSpec.preset("identity", 1, kernel_size=3))
    assert other.get_layer("conv_cbam").spec.rank == rank
    np.testing.assert_array_equal(*map(keras.ops.convert_to_numpy, (other(x), model(x))))


def test_the_policy_and_the_format_are_those_of_the_layer():
    inputs = keras.Input((3, 32, 32))
    y = layers.BatchNormalization(axis=1, dtype="mixed_float16", name="norm")(inputs)
    other = insert_cbam(keras.Model(inputs, y), "norm", data_format="channels_first")
    block = other.get_layer("norm_cbam")
    assert (block.spec.channels, block.compute_dtype) == (3, "float16")


class Round(layers.Layer):
    def call(self, x):
        return keras.ops.cast(x, "int32")


def odd():
    """Layers that give no map, an integer one, or two of different widths."""
    inputs = keras.Input((32, 32, 3))
    act = layers.ReLU(name="act")
    x = act(layers.Conv2D(5, 1, name="conv")(act(inputs)))
    whole = Round(name="round")(x)
    pooled = layers.GlobalMaxPooling2D(name="pool")(x)
    return keras.Model(inputs, [x, whole, pooled])


@pytest.mark.parametrize(
    ("where", "options", "error", "message"),
    [
        ("bn*", {}, ValueError, "where='bn*' names no module of the model; choose from act, conv"),
        ("block", {}, ValueError, "where='block' names no module of the model"),
        (["conv", "pool"], {}, ValueError, "where='pool' gives an array of shape (None, 5)"),
        (["conv", "round"], {}, TypeError, "where='round' gives a map of dtype int32"),
        (["conv", "act"], {}, ValueError, "where='act' gives maps of several widths or ranks"),
        ("conv", {"spec": "eca"}, ValueError, "preset='eca' is unknown; choose from"),
        ("conv", {"spec": "official"}, ValueError, "'identity' needs gate='double_sigmoid'"),
        ("conv", {"init": "zeros"}, ValueError, "scheme='zeros' is unknown; choose from"),
        ("conv", {"data_format": "NHWC"}, ValueError, "data_format='NHWC' is unknown"),
    ],
)
def test_a_wrong_place_is_named(where, options, error, message):
    with pytest.raises(error, match=re.escape(message)):
        insert_cbam(odd(), where, **options)


def test_a_place_takes_one_cbam():
    other = insert_cbam(build(), "stem")
    with pytest.raises(ValueError, match="where='stem' has a layer stem_cbam already"):
        insert_cbam(other, "stem")


def test_a_model_without_a_graph_is_refused():
    with pytest.raises(ValueError, match="has no graph of layers; pass a functional model or"):
        insert_cbam(keras.Sequential([layers.Conv2D(4, 3)]), "conv*")

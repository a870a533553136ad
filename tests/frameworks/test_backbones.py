"""What every package's networks must do: one test file for all frameworks."""

from __future__ import annotations

import dataclasses
import re

import numpy as np
import pytest

import cbam_core
from cbam_core import ARCHITECTURES, Architecture, CBAMSpec, reference_network
from tests import networks
from tests.compare import assert_equal

NETWORKS = networks.NETWORKS
MODES = pytest.mark.parametrize("training", [False, True], ids=["eval", "train"])


def build(framework, architecture, **options):
    """The float64 network of `architecture` with the weights of tests.networks."""
    network = framework.build("Backbone", architecture, dtype="float64", **options)
    found = framework.package.to_canonical(network)
    weights = networks.weights(architecture)
    framework.package.load_canonical(network, {name: weights[name] for name in found})
    return network


# The modes differ in the norms alone, which are the same in all networks: one of each kind. And in
# dropout, which draws in training what no two frameworks draw alike.
EVALUATED = ["basic_cbam", "bottleneck_cbam", "separable_cbam", "dual_pooling"]
TRAINED = [name for name in NETWORKS if name != "dual_pooling"]


@pytest.mark.parametrize(
    ("name", "mode"),
    [*((name, "eval") for name in EVALUATED), *((name, "train") for name in TRAINED)],
)
def test_equals_the_reference(framework, name, mode):
    architecture, x = NETWORKS[name], networks.picture()
    weights, cotangent = networks.weights(architecture), networks.cotangent(architecture)
    step = reference_network.run(architecture, weights, x, training=mode == "train")
    network = build(framework, architecture)
    arrays = framework.differentiate(network, x, cotangent, mode == "train")
    assert_equal(arrays, step.quantities(cotangent), 1e-12)


@pytest.mark.parametrize(("attention", "factor"), [("se", 0.5), ("cbam", 0.25), ("both", 1.25)])
def test_attention_stands_between_the_last_norm_and_the_sum(framework, attention, factor):
    """Of weights that are all 0 every gate is a half, which the norm before it can be as well."""
    residual = attention == "both"
    architecture = Architecture(
        "basic",
        (2, 1),
        (4, 6),
        attention="cbam" if residual else attention,
        spec={"spatial_norm": False, "residual": residual} if attention != "se" else {},
        stem="cifar",
    )
    weights = networks.weights(architecture)
    for name in weights:
        if "attention" in name:
            weights[name] *= 0
    network = framework.build("Backbone", architecture, dtype="float64")
    framework.package.load_canonical(network, weights)
    plain = dataclasses.replace(architecture, attention=None, spec=())
    scaled = {
        name: array * factor if re.search(r"block\d.norm2.(scale|bias)", name) else array
        for name, array in weights.items()
        if "attention" not in name
    }
    other = framework.build("Backbone", plain, dtype="float64")
    framework.package.load_canonical(other, scaled)
    x = networks.picture()
    assert_equal({"": framework.call(network, x)}, {"": framework.call(other, x)}, 1e-12)


@pytest.mark.parametrize("name", NETWORKS)
def test_weights_come_back_with_the_same_bits(framework, name):
    architecture = NETWORKS[name]
    network, weights = build(framework, architecture), networks.weights(architecture)
    found = framework.package.to_canonical(network)
    assert list(found) == list(weights)
    assert all(found[key].shape == weights[key].shape for key in weights)
    assert all(found[key].tobytes() == weights[key].tobytes() for key in weights)
    assert network.architecture == architecture


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_a_factory_s_network_is_that_of_its_architecture(framework, name):
    network = framework.build(name, attention="cbam")
    assert network.architecture == Architecture.named(name, attention="cbam")
    found = framework.package.to_canonical(network)
    shapes = cbam_core.network_shapes(network.architecture)
    assert {name: array.shape for name, array in found.items()} == shapes


@pytest.mark.parametrize("name", ["stem_and_tail", "bottleneck_cbam", "separable_cbam"])
def test_features_only_gives_the_map_of_every_stage(framework, name):
    architecture = NETWORKS[name]
    x, weights = networks.picture(40, 32), networks.weights(architecture)
    maps = framework.call(build(framework, architecture, features_only=True), x)
    sides = [(20, 16), (20, 16), (10, 8)] if "separable" in name else [(10, 8), (10, 8), (5, 4)]
    channels = [architecture.stem_unit.outputs, *(s[-1].outputs for s in architecture.stages)]
    assert [part.shape for part in maps] == [
        (2, *side, width) for side, width in zip(sides, channels, strict=True)
    ]
    logits = framework.call(build(framework, architecture), x)
    pooled = maps[-1].mean((1, 2))
    head = pooled @ weights["head.linear.kernel"] + weights["head.linear.bias"]
    assert_equal({"": head}, {"": logits}, 1e-12)


@MODES
def test_dropout_is_for_training(framework, training):
    network = build(framework, NETWORKS["dual_pooling"])
    first, second = (framework.call(network, networks.picture(), training) for _ in range(2))
    # The statistics moved in between, which training does not look at.
    assert (first == second).all() != training


def test_the_sums_of_a_head_do_not_overflow(framework):
    """In float16 the map that the head averages is 512 everywhere, with a sum beyond all bounds."""
    architecture = Architecture("basic", (1,), (64,), stem="cifar", head="dual_pooling")
    network = framework.build("Backbone", architecture, dtype="float16")
    weights = framework.package.to_canonical(network)
    ones = {name: np.ones_like(w) for name, w in weights.items() if name.endswith((".var", "bias"))}
    zeros = {name: np.zeros_like(w) for name, w in weights.items() if name not in ones}
    framework.package.load_canonical(network, zeros | ones | {"stem.norm.bias": np.full(64, 512.0)})
    y = framework.call(network, np.zeros((1, 112, 112, 3), np.float16))
    assert y.dtype == np.float16
    assert np.isfinite(y).all()


@pytest.mark.parametrize("scheme", ["authors", "identity"])
def test_initial_values_are_those_of_the_core(framework, scheme):
    gate = "double_sigmoid" if scheme == "identity" else "sigmoid"
    arguments = {"attention": "cbam", "spec": CBAMSpec.preset("official", 1, gate=gate)}
    network = framework.build("mobilenet", widen=0.25, init=scheme, seed=3, **arguments)
    found = framework.package.to_canonical(network)
    drawn = cbam_core.initial_network(network.architecture, scheme, seed=3)
    assert all(found[name].tobytes() == drawn[name].tobytes() for name in drawn)


def test_a_wrong_set_of_weights_is_refused_whole(framework):
    network = build(framework, NETWORKS["basic_cbam"])
    before = framework.package.to_canonical(network)
    weights = {name: np.zeros_like(array) for name, array in before.items()}
    weights["stem.conv.kernel"] = weights["stem.conv.kernel"].T.copy()
    weights["tail.channel.reduce.kernel"] = np.zeros((6, 3))
    del weights["stage1.block0.attention.spatial.norm.mean"]
    with pytest.raises(ValueError, match="none has been loaded") as caught:
        framework.package.load_canonical(network, weights)
    assert "missing: stage1.block0.attention.spatial.norm.mean (1,)" in str(caught.value)
    assert "unexpected: tail.channel.reduce.kernel (6, 3)" in str(caught.value)
    assert "misshaped: stem.conv.kernel has shape (64, 3, 7, 7), expected (7, 7, 3, 64)" in str(
        caught.value
    )
    after = framework.package.to_canonical(network)
    assert all(after[name].tobytes() == before[name].tobytes() for name in before)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"attention": "eca"}, "attention='eca' is unknown; choose from None, 'cbam', 'se'"),
        (
            {"placement": "tail"},
            "placement='tail' is unknown; choose from 'block', 'stem_and_tail'",
        ),
        ({"stem": "mnist"}, "stem='mnist' is unknown; choose from 'imagenet', 'cifar'"),
        ({"stride_on": "7x7"}, "stride_on='7x7' is unknown; choose from '1x1', '3x3'"),
        ({"head": "none"}, "head='none' is unknown; choose from 'plain', 'dual_pooling'"),
        ({"num_classes": 0}, "num_classes=0 is below 1; pass a positive integer"),
        ({"attention": "cbam", "spec": "eca"}, "preset='eca' is unknown; choose from"),
        ({"init": "zeros"}, "scheme='zeros' is unknown; choose from authors, kaiming_fan_out"),
    ],
    ids=str,
)
def test_a_bad_argument_is_named(framework, arguments, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        framework.build("mobilenet", widen=0.25, **arguments)


@pytest.mark.parametrize("shape", [(2, 32, 32, 6), (2, 32, 32), (2, 0, 32, 3)], ids=str)
def test_a_bad_input_is_named(framework, shape):
    network = framework.build("Backbone", NETWORKS["plain"], dtype="float32")
    with pytest.raises(ValueError, match=r"x has shape .*, expected pictures of at least one posi"):
        framework.call(network, np.zeros(shape, np.float32))
    with pytest.raises(TypeError, match="x has dtype int32, expected a floating-point type"):
        framework.call(network, np.zeros((2, 32, 32, 3), np.int32))


def test_statistics_of_one_value_are_refused(framework):
    network = framework.build("Backbone", NETWORKS["plain"], dtype="float32")
    x = np.ones((1, 8, 8, 3), np.float32)
    assert np.isfinite(framework.call(network, x)).all()
    # The first text is that of torch's own layer.
    message = "Expected more than 1 value per channel|batch statistics need at least 2"
    with pytest.raises(ValueError, match=message):
        framework.call(network, x, training=True)


@pytest.mark.parametrize("name", ["basic_cbam", "separable_cbam"])
def test_an_empty_batch_stays_empty(framework, name):
    network = framework.build("Backbone", NETWORKS[name], dtype="float32")
    assert framework.call(network, np.zeros((0, 33, 47, 3), np.float32)).shape == (0, 5)

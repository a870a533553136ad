"""What a network looks at is the same in every framework: attention maps and Grad-CAM."""

from __future__ import annotations

import dataclasses
import functools
import importlib
import re

import numpy as np
import pytest

from cbam_core import Architecture, CBAMSpec, initial_weights, reference, reference_network
from cbam_core.initial import initial_at
from crosscheck import photograph, trained
from crosscheck.training.data import digits
from tests import networks
from tests.compare import assert_equal

LIMITS = {"float64": 1e-12, "float32": 1e-5}
SMALL = Architecture(
    "basic", (1,), (4,), attention="cbam", spec={"reduction": 1}, stem="cifar", num_classes=3
)


@functools.cache
def subject(name):
    """Architecture, weights, pictures, and which Grad-CAMs, by target and path, are asked for."""
    match name:
        case "digits":
            asked = ((), ((9, 3), "stage1.block0"))
            return *trained.network(), digits().pictures[:2], asked
        case "photograph":
            architecture, pictures = networks.NETWORKS["basic_cbam"], photograph.pictures(side=48)
            asked = ((1,), (None, "stage2.block0.attention"), ((0, 4), "stage1.block0.conv1"))
            return architecture, networks.weights(architecture), pictures, asked
        case _:
            return SMALL, networks.weights(SMALL), networks.picture(9, 8), ((2,),)


@functools.cache
def expected(name):
    architecture, weights, x, asked = subject(name)
    maps = reference_network.attention_maps(architecture, weights, x)
    return maps, [reference_network.grad_cam(architecture, weights, x, *one) for one in asked]


def build(framework, name, dtype="float64"):
    architecture, weights, *_ = subject(name)
    network = framework.build("Backbone", architecture, dtype=dtype)
    framework.package.load_canonical(network, weights)
    return network


@pytest.mark.parametrize("dtype", LIMITS)
@pytest.mark.parametrize("name", ["digits", "photograph"])
def test_equals_the_reference(framework, name, dtype):
    check(framework, name, dtype, compiled=False)


def test_equals_the_reference_in_a_compiled_function(framework):
    check(framework, "small", "float64", compiled=True)


def check(framework, name, dtype, compiled):
    _, _, x, asked = subject(name)
    found, cams = framework.explain(build(framework, name, dtype), x.astype(dtype), asked, compiled)
    maps, expected_cams = expected(name)
    assert list(found) == list(maps)
    assert_equal(found, maps, LIMITS[dtype])
    for cam, expected_cam in zip(cams, expected_cams, strict=True):
        assert cam.dtype == dtype
        assert (cam >= 0).all()
        assert_equal({"": cam}, {"": expected_cam}, LIMITS[dtype])


@pytest.mark.parametrize("order", ["spatial_channel", "parallel", "channel", "spatial"])
def test_a_bare_block_s_gates_have_no_path(framework, order):
    """In the order in which they are computed."""
    spec = CBAMSpec(4, reduction=2, kernel_size=3, order=order, spatial_norm=True, residual=True)
    weights = initial_weights(spec, "kaiming_fan_out", seed=1)
    block = framework.build("CBAM.from_spec", spec, dtype="float64")
    framework.package.load_canonical(block, weights)
    x = np.random.default_rng(3).standard_normal((2, 5, 6, 4))
    found, _ = framework.explain(block, x, ())
    step = reference.run(spec, weights, x)
    assert list(found) == list(step.gates)
    assert_equal(found, step.gates, 1e-12)


def test_gates_alone_are_blocks_too(framework):
    weights = initial_weights(CBAMSpec(4, reduction=2), "kaiming_fan_out", seed=1)
    x = np.random.default_rng(3).standard_normal((2, 5, 6, 4))
    for name, kind in (("ChannelAttention", "channel"), ("SpatialAttention", "spatial")):
        options = {"reduction": 2} if kind == "channel" else {}
        block = framework.build(name, 4, dtype="float64", **options)
        own = {key: array for key, array in weights.items() if key.startswith(kind)}
        framework.package.load_canonical(block, own)
        found, _ = framework.explain(block, x, ())
        step = reference.run(block.spec, own, x)
        assert list(found) == [kind]
        assert_equal(found, step.gates, 1e-12)


def test_an_input_may_be_passed_by_its_name(framework):
    spec = CBAMSpec(4, reduction=2, spatial_norm=True)
    block = framework.build("CBAM.from_spec", spec, dtype="float64")
    weights = initial_weights(spec, "kaiming_fan_out", seed=1)
    framework.package.load_canonical(block, weights)
    x = np.random.default_rng(3).standard_normal((2, 5, 6, 4))
    found, _ = framework.explain(framework.around(block), x, ())
    gates = reference.run(spec, weights, x).gates
    assert_equal(found, {f"inner.{kind}": gate for kind, gate in gates.items()}, 1e-12)


def test_a_model_that_got_its_attention_by_insertion(framework):
    """Behind the last norm of each block, as a network has it that is built with attention."""
    architecture, weights, x, _ = subject("small")
    plain = dataclasses.replace(architecture, attention=None, spec=())
    network = framework.build("Backbone", plain, dtype="float64")
    # Without biases and means, that norms may be a part of their convolutions.
    own = {
        name: array * (not re.search(r"norm\d?\.(bias|mean)", name))
        for name, array in weights.items()
        if "attention" not in name
    }
    framework.package.load_canonical(network, own)
    ((path, spec),) = architecture.attentions()
    place, inserted = framework.PLACE
    network = framework.insert(network, place, spec, x, init="kaiming_fan_out", seed=5)
    new = initial_at(place, spec, "kaiming_fan_out", seed=5)
    whole = own | {f"{path}.{name}": array.astype(float) for name, array in new.items()}
    found, (cam,) = framework.explain(network, x, ((2, inserted),))
    maps = reference_network.attention_maps(architecture, whole, x)
    kinds = ("channel", "spatial")
    assert list(found) == [f"{inserted}.{kind}" for kind in kinds]
    assert_equal(found, {f"{inserted}.{kind}": maps[f"{path}.{kind}"] for kind in kinds}, 1e-12)
    expected_cam = reference_network.grad_cam(architecture, whole, x, 2, path)
    assert_equal({"": cam}, {"": expected_cam}, 1e-12)


def test_what_the_command_runs(framework):
    architecture, weights, x, ((target,),) = subject("small")
    run = importlib.import_module(framework.evaluate.__module__).explain_network
    logits, found, cam = run(architecture, weights, x, target, dtype="float64")
    maps, (expected_cam,) = expected("small")
    assert list(found) == list(maps)
    assert_equal(found, maps, 1e-12)
    output = reference_network.run(architecture, weights, x).output
    assert_equal({"": cam, "logits": logits}, {"": expected_cam, "logits": output}, 1e-12)


def test_a_call_leaves_nothing_changed(framework):
    """Whether it fails or not."""
    network, (_, _, x, _) = build(framework, "small"), subject("small")
    framework.call(network, x[:, :8], training=True)
    before, weights = framework.surface(network), framework.package.to_canonical(network)
    framework.explain(network, x, ((2,),))
    for wrong in (x[..., :2], x.astype("int32")):
        with pytest.raises((TypeError, ValueError), match="x has "):
            framework.explain(network, wrong, ())
    with pytest.raises(ValueError, match="at='head' gives an array"):
        framework.explain(network, x, ((0, "head"),))
    assert framework.surface(network) == before
    after = framework.package.to_canonical(network)
    assert all(after[name].tobytes() == weights[name].tobytes() for name in weights)


@pytest.mark.parametrize(
    ("asked", "error", "message"),
    [
        ((3,), ValueError, "target=3 is no class of a model with 3; pass 0 to 2"),
        (((0, -1),), ValueError, "target=-1 is no class of a model with 3; pass 0 to 2"),
        (
            ((0, 1, 2),),
            ValueError,
            "target has shape (3,), expected one class for each of 2 samples, or an int for all",
        ),
        (
            ("cat",),
            TypeError,
            "target='cat' is no class; pass an int, one for each sample, or None for the class "
            "that the model predicts",
        ),
        (
            (0, "stage9"),
            ValueError,
            "at='stage9' names no module of the model; choose from ",
        ),
        (
            (0, "head"),
            ValueError,
            "at='head' gives an array of shape (2, 3), and Grad-CAM explains feature maps, of 3 to "
            "5 axes; choose a module that gives one",
        ),
    ],
    ids=str,
)
def test_a_bad_argument_is_named(framework, asked, error, message):
    with pytest.raises(error, match=re.escape(message)):
        framework.explain(build(framework, "small"), subject("small")[2], (asked,))


def test_a_model_without_attention_is_refused(framework):
    plain = framework.build("Backbone", networks.NETWORKS["plain"], dtype="float64")
    with pytest.raises(ValueError, match="model=Backbone calls no attention; pass a CBAM, "):
        framework.explain(plain, networks.picture(), ())

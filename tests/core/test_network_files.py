"""Whole networks in weight files: found, written, converted, and built from again."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
import safetensors.numpy

import cbam_core
from cbam_core import Architecture, CBAMSpec, CheckpointError, network_shapes
from cbam_core.networks.dialects import NETWORK_DIALECTS
from cbam_core.networks.finding import find_network
from cbam_core.networks.network import Network
from cbam_core.networks.spelling import spell_network
from cbam_core.planning import plan
from tests import networks
from tests.recorded_networks import NETWORKS

# Published networks: what a reader has to find, by eye.
ARCHITECTURES = {
    "official_resnet50_imagenet": Architecture.named("resnet50", attention="cbam"),
    "official_resnet18_cifar100": Architecture.named(
        "resnet18", attention="cbam", stem="cifar", num_classes=100
    ),
    "luuuyi_resnet18_cbam": Architecture.named(
        "resnet18",
        attention="cbam",
        spec={"mlp_bias": False, "spatial_norm": False, "norm_momentum": 0.1},
    ),
    "osmr_cbam_resnet18": Architecture.named(
        "resnet18", attention="cbam", spec={"norm_momentum": 0.1}
    ),
}


def small(dialect: str, **fields) -> Architecture:
    """An architecture of a few channels that `dialect` can write."""
    preset = CBAMSpec.preset({"official": "official", "luuuyi": "luuuyi"}.get(dialect, "osmr"), 1)
    spec = {**preset.to_dict(), "reduction": 2, "kernel_size": 3}
    own = {name: value for name, value in spec.items() if name not in ("channels", "hidden")}
    attention = {"attention": "cbam", "spec": own} if dialect != "torchvision" else {}
    return Architecture("bottleneck", (2, 1), (4, 6), num_classes=5, **{**attention, **fields})


def a_network(architecture: Architecture) -> Network:
    weights = networks.weights(architecture)
    weights = {name: array.astype(np.float32) for name, array in weights.items()}
    return Network("canonical", architecture, weights, {}, {})


def saved(path, arrays: dict[str, np.ndarray]):
    contiguous = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
    safetensors.numpy.save_file(contiguous, path)
    return path


def spelled(dialect: str, **fields) -> dict[str, np.ndarray]:
    architecture = small(dialect, **fields)
    arrays, _ = spell_network(a_network(architecture), NETWORK_DIALECTS[dialect])
    return arrays


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_finds_the_architecture_of_a_published_network(tmp_path, name):
    path = saved(tmp_path / "owner.safetensors", NETWORKS[name].arrays())
    found = cbam_core.read(path)
    assert found.architecture == ARCHITECTURES[name]
    assert found.dialect == name.partition("_")[0]
    assert found.rest == {}
    assert list(found.weights) == list(network_shapes(found.architecture))


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_a_published_network_goes_to_canonical_and_back_bit_for_bit(tmp_path, name):
    arrays = NETWORKS[name].arrays()
    owner = saved(tmp_path / "owner.safetensors", arrays)
    canonical, again = tmp_path / "canonical.safetensors", tmp_path / "again.safetensors"
    done = cbam_core.convert(owner, canonical)
    assert (done.network, done.dropped) == (ARCHITECTURES[name], [])
    assert cbam_core.read(canonical).architecture == ARCHITECTURES[name]
    cbam_core.convert(canonical, again, to=name.partition("_")[0])
    found = safetensors.numpy.load_file(again)
    expected = {n.removeprefix(NETWORKS[name].nesting): array for n, array in arrays.items()}
    assert found.keys() == expected.keys()
    assert all(found[n].tobytes() == expected[n].tobytes() for n in expected)


@pytest.mark.parametrize(
    ("dialect", "fields"),
    [
        *((dialect, {}) for dialect in NETWORK_DIALECTS),
        ("official", {"kind": "basic", "stem": "cifar"}),
        ("official", {"groups": 2, "group_width": 32}),
        ("torchvision", {"widths": (128, 256), "num_classes": 1}),
        ("torchvision", {"placement": "stem_and_tail", "attention": "cbam"}),
    ],
)
def test_what_a_dialect_writes_is_found_again(tmp_path, dialect, fields):
    if "placement" in fields:
        fields = {**fields, "spec": small("luuuyi").spec}
    architecture = small(dialect)
    architecture = dataclasses.replace(architecture, **fields)
    network = a_network(architecture)
    arrays, _ = spell_network(network, NETWORK_DIALECTS[dialect])
    found = cbam_core.read(saved(tmp_path / "a.safetensors", arrays))
    assert [*found.architecture.units()] == [*architecture.units()]
    assert [*found.architecture.attentions()] == [
        (path, spec.replace(reduction=found.architecture.attention_at(spec.channels).reduction))
        for path, spec in architecture.attentions()
    ]
    assert found.weights.keys() == network.weights.keys()
    assert all(np.array_equal(found.weights[n], network.weights[n]) for n in network.weights)


def test_squeeze_and_excitation_in_every_block_is_a_network_of_its_own(tmp_path):
    arrays = spelled("torchvision")
    for block, channels in (("layer1.0", 16), ("layer1.1", 16), ("layer2.0", 24)):
        arrays[f"{block}.se.fc.0.weight"] = np.ones((channels // 4, channels), np.float32)
        arrays[f"{block}.se.fc.2.weight"] = np.ones((channels, channels // 4), np.float32)
    found = cbam_core.read(saved(tmp_path / "a.safetensors", arrays), "senet")
    assert found.architecture.attention == "se"
    assert dict(found.architecture.spec) == {"mlp_bias": False, "reduction": 4}


def without(name: str):
    return lambda arrays: {n: array for n, array in arrays.items() if not n.startswith(name)}


DAMAGE = {
    "another layer": (lambda a: {**a, "aux.weight": np.ones((3, 3), np.float32)}, "aux.weight"),
    "a norm without its mean": (without("layer1.0.bn2.running_mean"), "stage1.block0.norm2.mean"),
    "no first layer": (without("conv1."), "none of its names"),
    "a block without attention": (without("layer1.1.cbam"), "it has 2 attentions, and 3 residual blocks"),
    "an odd kernel": (
        lambda a: {**a, "layer1.0.conv2.weight": np.ones((4, 4, 5, 5), np.float32)},
        "misshaped: stage1.block0.conv2.kernel",
    ),
    "a kernel without axes": (
        lambda a: {**a, "layer2.0.conv3.weight": np.ones((), np.float32)},
        "no kernel layer2.0.conv3.weight",
    ),
    "not finite": (
        lambda a: {**a, "fc.bias": np.full(5, np.nan, np.float32)},
        "fc.bias",
    ),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_says_why_a_file_holds_no_whole_network_and_reads_its_blocks(tmp_path, damage):
    change, words = DAMAGE[damage]
    found = cbam_core.read(saved(tmp_path / "a.safetensors", change(spelled("official"))))
    assert found.blocks
    with pytest.raises(CheckpointError, match="holds no whole network") as error:
        _ = found.architecture
    assert words in str(error.value)


def test_a_plain_network_of_pytorchcv_does_not_tell_its_stride():
    arrays = {n: a for n, a in spelled("osmr").items() if ".cbam." not in n}
    with pytest.raises(ValueError, match="no array shows which"):
        find_network(arrays, {})


@pytest.mark.parametrize(
    ("dialect", "fields", "words"),
    [
        ("official", {"stride_on": "1x1"}, "stride_on='1x1'"),
        ("official", {"head": "dual_pooling"}, "head='dual_pooling'"),
        ("official", {"kind": "separable"}, "kind='separable'"),
        ("official", {"placement": "stem_and_tail"}, "placement='stem_and_tail'"),
        ("torchvision", {"attention": "cbam"}, "attention='cbam'"),
        ("osmr", {"attention": None}, "attention=None"),
        ("luuuyi", {"spec": small("official").spec}, "stage1.block0.attention"),
    ],
)
def test_refuses_what_a_dialect_can_not_express(dialect, fields, words):
    architecture = dataclasses.replace(small(dialect), **fields)
    with pytest.raises(ValueError, match="can't express it") as error:
        spell_network(a_network(architecture), NETWORK_DIALECTS[dialect])
    assert words in str(error.value)


@pytest.mark.parametrize(
    "fields",
    [
        [],
        None,
        {"kind": "basic"},
        {"kind": "basic", "depths": [10**9], "widths": [4]},
        {"kind": "basic", "depths": [1], "widths": [4], "widen": 1e400},
        {"kind": "basic", "depths": [1.5], "widths": ["4"]},
        {**small("official").to_dict(), "num_classes": 6},
    ],
)
def test_an_architecture_that_is_none_is_an_error_of_the_file(tmp_path, fields):
    path = tmp_path / "a.safetensors"
    weights = a_network(small("official")).weights
    metadata = {"cbam_format": "1", "architecture": json.dumps(fields)}
    safetensors.numpy.save_file(weights, path, metadata)
    with pytest.raises(CheckpointError, match="holds no valid network"):
        cbam_core.read(path)


def test_a_network_beside_its_optimizer_stays_where_it_was(tmp_path):
    arrays = {f"state_dict/module.{n}": a for n, a in spelled("official").items()}
    arrays["optimizer/state/0/momentum_buffer"] = np.ones(3, np.float32)
    source = saved(tmp_path / "a.safetensors", arrays)
    target = tmp_path / "b.safetensors"
    done = cbam_core.convert(source, target, to="official", keep_rest=True)
    assert done.carried == ["optimizer/state/0/momentum_buffer"]
    assert safetensors.numpy.load_file(target).keys() == arrays.keys()
    assert cbam_core.convert(source, target).dropped == ["optimizer/state/0/momentum_buffer"]


# What a factory makes of a file.


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    """A ResNet-18 of torchvision's names, and its arrays."""
    architecture = Architecture.named("resnet18", num_classes=10, stem="cifar")
    network = a_network(architecture)
    arrays, _ = spell_network(network, NETWORK_DIALECTS["torchvision"])
    path = tmp_path_factory.mktemp("plain") / "plain.safetensors"
    return saved(path, arrays), network.weights


def planned(path, name="resnet18", features_only=False, init=None, spec=None, **choices):
    return plan(
        name, weights=path, spec=spec, features_only=features_only, init=init, seed=0, **choices
    )


def test_the_architecture_comes_from_the_file(plain, recwarn):
    path, weights = plain
    architecture, values = planned(path)
    assert (architecture.stem, architecture.num_classes) == ("cifar", 10)
    assert all(np.array_equal(values[name], weights[name]) for name in weights)
    assert not recwarn
    found = cbam_core.read(path)
    assert planned(found)[0] == architecture


@pytest.mark.parametrize("placement", ["block", "stem_and_tail"])
def test_an_attention_can_be_added_and_is_reported(plain, placement):
    path, weights = plain
    first = {"block": "stage1.block0.attention", "stem_and_tail": "stem.attention"}[placement]
    with pytest.warns(UserWarning, match=f"no weights for {first}"):
        architecture, values = planned(
            path, attention="cbam", placement=placement, spec="identity", init="identity"
        )
    assert values.keys() == network_shapes(architecture).keys()
    assert all(np.array_equal(values[name], weights[name]) for name in weights)
    assert not values[f"{first}.channel.expand.kernel"].any()


def test_a_new_head_is_asked_for_by_name_and_reported(plain):
    path, weights = plain
    with pytest.warns(UserWarning, match="no weights for head: they are new"):
        architecture, values = planned(path, head="new", num_classes=3)
    assert architecture.num_classes == 3
    assert values["head.linear.kernel"].shape == (512, 3)
    assert np.array_equal(values["stem.conv.kernel"], weights["stem.conv.kernel"])


def test_a_network_without_its_head_needs_none_to_give_features(plain, tmp_path, recwarn):
    path, _ = plain
    arrays = safetensors.numpy.load_file(path)
    headless = saved(tmp_path / "b.safetensors", without("fc.")(arrays))
    assert planned(headless, features_only=True)[0].stem == "cifar"
    assert not recwarn
    with pytest.raises(ValueError, match='has no head; pass head="new" or features_only'):
        planned(headless)


@pytest.mark.parametrize(
    ("choices", "words"),
    [
        ({"name": "resnet50"}, "which is no resnet50; call resnet18"),
        ({"num_classes": 7}, 'num_classes=7, .* has 10; leave it out; pass head="new"'),
        ({"stem": "imagenet"}, "stem='imagenet', .* has 'cifar'"),
        ({"head": "dual_pooling"}, "head='dual_pooling'"),
        ({"stride_on": "1x1"}, "stride_on='1x1'"),
    ],
)
def test_what_is_asked_for_and_not_in_the_file_is_an_error(plain, choices, words):
    with pytest.raises(ValueError, match=words):
        planned(plain[0], **choices)


@pytest.mark.parametrize(("name", "widen"), [("wide_resnet18", 1.5), ("mobilenet", 0.7)])
def test_a_network_of_any_width_comes_from_its_file(tmp_path, name, widen):
    architecture = Architecture.named(name, widen=widen, attention="cbam", num_classes=4)
    path = tmp_path / "a.safetensors"
    cbam_core.write(path, a_network(architecture).weights, architecture)
    assert planned(path, name)[0] == architecture
    assert planned(path, name, widen=widen)[0] == architecture
    with pytest.raises(ValueError, match=r"widen=1\.25"):
        planned(path, name, widen=1.25)


def test_an_attention_that_is_there_is_the_files(tmp_path):
    path = saved(tmp_path / "a.safetensors", NETWORKS["luuuyi_resnet18_cbam"].arrays())
    assert planned(path, attention="cbam", spec="luuuyi")[0].attention == "cbam"
    with pytest.raises(ValueError, match="spec="):
        planned(path, spec="official")
    with pytest.raises(ValueError, match="attention='se'"):
        planned(path, attention="se")

"""Blocks among the arrays of a file: each dialect wherever it stands, and what is no block."""

from __future__ import annotations

import cProfile
import json
import re
import time
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
from hypothesis import given, settings
from hypothesis import strategies as st

import cbam_core
from cbam_core import DIALECTS, CBAMSpec, CheckpointError
from cbam_core.finding import blocks
from cbam_core.finding.nestings import unwrap
from tests.dialects import EXAMPLES, Example

NETWORKS = Path(__file__).parent.parent / "data" / "networks"


def find(arrays, dialect=None, **fields):
    """Blocks, look-alikes, and the names in the file of all that is in neither."""
    names = unwrap(arrays)
    found, lookalikes = blocks.find({n: arrays[o] for n, o in names.items()}, dialect, fields)
    taken = {names[n] for b in found.values() for n in (*b.names.values(), *b.counters)}
    return found, lookalikes, set(arrays) - taken


def meaning(spec: CBAMSpec) -> CBAMSpec:
    """The spec by its width, whatever ratio gives it."""
    return spec.replace(hidden=spec.hidden_channels, reduction=1)


def assert_is(block: blocks.Block, example: Example, arrays, prefix: str = "") -> None:
    expected = example.canonical(arrays, prefix)
    assert block.dialect == example.dialect
    assert meaning(block.spec) == meaning(example.spec)
    assert set(block.weights) == set(expected)
    assert all(block.weights[n].tobytes() == expected[n].tobytes() for n in expected)


def noise(*shape: int) -> np.ndarray:
    return np.random.default_rng(3).standard_normal(shape).astype(np.float32)


PREFIXES = ("", "cbam.", "layer1.0.cbam.", "neck.blocks.11.attention_2.")


@pytest.mark.parametrize("prefix", PREFIXES)
@pytest.mark.parametrize("name", EXAMPLES)
def test_a_block_is_found_under_any_prefix(name, prefix):
    example = EXAMPLES[name]
    prefix = prefix.replace(".", example.separator)
    arrays = example.arrays(prefix)
    found, lookalikes, rest = find(arrays, example.given)
    path = prefix.replace("/", ".").rstrip(".")
    assert (list(found), lookalikes, rest) == ([path], {}, set())
    assert_is(found[path], example, arrays, prefix)


WRAPPERS = ("", "state_dict/", "model/module.", "state_dict/_orig_mod.module.", "params/")


@pytest.mark.parametrize("wrapper", WRAPPERS)
@pytest.mark.parametrize("name", EXAMPLES)
def test_blocks_are_found_inside_a_network(name, wrapper):
    """Two of them, between layers that are none, with an optimizer beside."""
    example = EXAMPLES[name]
    dot = example.separator
    prefixes = [f"{wrapper}stage{stage}{dot}attention{dot}" for stage in (1, 2)]
    others = {
        f"{wrapper}conv1{dot}weight": noise(64, 3, 7, 7),
        f"{wrapper}stage1{dot}conv1{dot}weight": noise(16, 64, 1, 1),
        f"{wrapper}stage1{dot}conv2{dot}weight": noise(16, 16, 3, 3),
        f"{wrapper}stage1{dot}bn1{dot}weight": noise(16),
        f"{wrapper}stage2{dot}dense{dot}kernel": noise(64, 10),
        f"{wrapper}stage2{dot}dense{dot}bias": noise(10),
        f"{wrapper}fc{dot}weight": noise(10, 64),
        "optimizer/state/0/momentum_buffer": noise(4, 32, 1, 1),
        "opt_state/0/mu/params/ca/mlp/Conv_0/kernel": noise(1, 1, 32, 4),
    }
    blocks_of = [example.arrays(prefix, seed) for seed, prefix in enumerate(prefixes)]
    arrays = {**blocks_of[0], **others, **blocks_of[1]}
    found, lookalikes, rest = find(arrays, example.given)
    assert list(found) == ["stage1.attention", "stage2.attention"]
    assert (lookalikes, rest) == ({}, set(others))
    for block, prefix in zip(found.values(), prefixes, strict=True):
        assert_is(block, example, arrays, prefix)


def test_the_examples_are_of_every_dialect_and_spelling():
    owners = {example.dialect for example in EXAMPLES.values()}
    known = {name for name, dialect in DIALECTS.items() if not dialect.lookalike}
    # Read, nested names are canonical.
    assert owners == known - {"nested"}


def test_a_network_of_two_dialects_gives_both():
    first, second = EXAMPLES["official"], EXAMPLES["luuuyi"]
    arrays = first.arrays("backbone.cbam.") | second.arrays("neck.")
    found, _, rest = find(arrays)
    assert {path: block.dialect for path, block in found.items()} == {
        "backbone.cbam": "official",
        "neck": "luuuyi",
    }
    assert not rest
    only, _, rest = find(arrays, "luuuyi")
    assert (list(only), len(rest)) == (["neck"], 10)
    assert len(find(arrays, "Luuuyi, PytorchInsight")[0]) == 2


def test_numbered_gates_are_blocks_of_their_own():
    example = EXAMPLES["seed_torch, mlp"]
    arrays = {
        re.sub(r"^(.a)\.", rf"\g<1>{number}.", name): array
        for number in (0, 1)
        for name, array in example.arrays(seed=number).items()
    }
    found, _, rest = find(arrays | {"conv1.weight": noise(64, 3, 7, 7)})
    assert (list(found), rest) == (["#0", "#1"], {"conv1.weight"})
    assert found["#1"].names["spatial.conv.kernel"] == "sa1.conv1.weight"


@pytest.mark.parametrize("rank", [1, 3])
def test_signals_and_volumes(rank):
    ones, size = (1,) * rank, (5,) * rank
    arrays = {
        "ca.fc1.weight": noise(2, 16, *ones),
        "ca.fc2.weight": noise(16, 2, *ones),
        "sa.conv1.weight": noise(1, 2, *size),
    }
    block = find(arrays)[0][""]
    assert block.spec == CBAMSpec(16, hidden=2, kernel_size=5, rank=rank)
    kernel = np.moveaxis(arrays["sa.conv1.weight"], (1, 0), (-2, -1))
    assert np.array_equal(block.weights["spatial.conv.kernel"], kernel)


@pytest.mark.parametrize("path", sorted(NETWORKS.glob("*.json")), ids=lambda path: path.stem)
def test_whole_networks(path):
    """The blocks that their owners' networks have, in the order of the file, and no other."""
    shapes = json.loads(path.read_text())["parameters"]
    kinds = {True: np.int64, False: np.float32}
    arrays = {n: np.ones(s, kinds[n.endswith("batches_tracked")]) for n, s in shapes.items()}
    found, lookalikes, rest = find({f"state_dict/module.{n}": a for n, a in arrays.items()})
    own = re.compile(r"(.*?)\.?(ChannelGate|SpatialGate|ch_gate|sp_gate|ca|sa)\.")
    inside = {name: own.match(name)[1] for name in shapes if own.match(name)}
    assert list(found) == list(dict.fromkeys(inside.values()))
    assert rest == {f"state_dict/module.{n}" for n in shapes if n not in inside}
    assert not lookalikes
    for block in found.values():
        assert block.dialect == path.stem.partition("_")[0]
        assert block.spec.hidden_channels == block.spec.channels // 16


def layer(name: str, *shape: int, bias: int = 0) -> dict[str, np.ndarray]:
    """A Keras layer's arrays."""
    return {f"{name}/kernel": noise(*shape)} | ({f"{name}/bias": noise(bias)} if bias else {})


def keras_block(dense: int, conv: int, channels: int = 32, hidden: int = 4):
    """The layers of kobiso's block, with the numbers that Keras gives them."""
    return {
        **layer(f"dense_{dense}", channels, hidden, bias=hidden),
        **layer(f"dense_{dense + 1}", hidden, channels, bias=channels),
        **layer(f"conv2d_{conv}", 7, 7, 2, 1),
    }


def channels_of(found) -> dict[str, int]:
    return {path: block.spec.channels for path, block in found.items()}


def in_layer_order() -> dict[str, np.ndarray]:
    """A Keras network: a stem, a squeeze-and-excitation, three blocks, and a head."""
    return {
        **layer("conv2d", 3, 3, 3, 32, bias=32),
        **layer("dense_1", 32, 2, bias=2),
        **layer("dense_2", 2, 32, bias=32),
        **keras_block(3, 1),
        **layer("conv2d_2", 3, 3, 32, 64),
        **keras_block(9, 3, channels=64),
        **layer("dense_11", 64, 64, bias=64),
        **keras_block(12, 12, channels=16),
        **layer("dense_14", 64, 32, bias=32),
        **layer("dense_15", 32, 10, bias=10),
    }


def test_the_order_of_the_file_gives_the_blocks_of_numbered_layers():
    found, lookalikes, rest = find(in_layer_order(), "keras")
    assert channels_of(found) == {"dense_3": 32, "dense_9": 64, "dense_12": 16}
    assert found["dense_9"].names["spatial.conv.kernel"] == "conv2d_3/kernel"
    assert (len(rest), lookalikes) == (13, {})


def test_numbers_give_them_where_the_file_is_sorted():
    arrays = in_layer_order()
    del arrays["dense_1/kernel"]  # of the squeeze-and-excitation, which has no convolution
    arrays = {name: arrays[name] for name in sorted(arrays)}
    found, _, _ = find(arrays, "keras")
    assert channels_of(found) == {"dense_12": 16, "dense_3": 32, "dense_9": 64}
    assert found["dense_12"].names["spatial.conv.kernel"] == "conv2d_12/kernel"


def test_a_sorted_file_with_another_mlp_tells_nothing():
    arrays = in_layer_order()
    found, _, _ = find({name: arrays[name] for name in sorted(arrays)}, "keras")
    assert not found


def test_a_classification_head_is_no_mlp():
    arrays = {
        **layer("dense", 512, 4096, bias=4096),
        **layer("dense_1", 4096, 4096, bias=4096),
        **layer("dense_2", 4096, 10, bias=10),
        **layer("conv2d", 7, 7, 2, 1),
    }
    assert find(arrays, "keras") == ({}, {}, set(arrays))
    head = layer("dense_3", 4, 4, bias=4)
    assert list(find(keras_block(1, 0) | head, "keras")[0]) == [""]


def test_a_keras_convolution_with_a_bias_is_another_s():
    arrays = keras_block(0, 0) | {"conv2d_0/bias": noise(1)}
    assert find(arrays, "keras")[0] == {}
    assert "unexpected: conv2d_0.bias" in blocks.nearest(arrays, "keras")


def test_numbered_layers_that_are_no_block_say_what_one_is():
    arrays = without(keras_block(0, 0), "dense_1/bias")
    assert find(arrays) == ({}, {}, set(arrays))
    assert blocks.nearest(arrays) == (
        "has the convolution conv2d_0.kernel of two maps, and no block of kobiso_keras, which is "
        "dense/kernel (C, h) with a bias, dense/kernel (h, C) with a bias, conv2d/kernel (k.., 2, "
        "1) without a bias, in the order of their numbers"
    )


AMBIGUOUS_PAIR = """\
holds a block at 'stage.se' that several implementations write alike, and no array tells which it \
is:
  --from timm            channel_pools=('avg', 'max'), pooling='separate': timm's CbamModule, \
ChannelAttn and SpatialAttn
  --from timm_light      channel_pools=('avg', 'max'), pooling='light': timm's LightCbamModule, \
LightChannelAttn and LightSpatialAttn
  --from timm_se         channel_pools=('avg',), pooling='separate': timm's SEModule
  --from torchvision_se  channel_pools=('avg',), pooling='separate': torchvision's SqueezeExcitation
pass the one whose code trained it"""

AMBIGUOUS_KERAS = """\
holds a block at '' that several implementations write alike, and no array tells which it is:
  --from kobiso_keras  gate='sigmoid': kobiso's Keras code
  --from keras         gate='hard_sigmoid_keras2': a Keras copy of kobiso's block with Keras 2's \
hard sigmoid
pass the one whose code trained it"""


@pytest.mark.parametrize(
    ("arrays", "text"),
    [
        (EXAMPLES["timm_se"].arrays("stage.se."), AMBIGUOUS_PAIR),
        (EXAMPLES["keras"].arrays(), AMBIGUOUS_KERAS),
    ],
)
def test_what_nothing_tells_is_an_error_with_the_candidates(arrays, text):
    with pytest.raises(ValueError, match="several implementations") as caught:
        find(arrays)
    assert str(caught.value) == text


def test_a_pair_without_a_bias_may_be_five_things():
    with pytest.raises(ValueError, match="several implementations") as caught:
        find(EXAMPLES["timm, ChannelAttn"].arrays())
    named = re.findall(r"--from (\w+)", str(caught.value))
    assert named == ["luuuyi", "seed_torch", "timm", "timm_light", "timm_se"]


def test_what_the_caller_knows_may_decide():
    arrays = EXAMPLES["keras"].arrays()
    found, _, _ = find(arrays, gate="hard_sigmoid_keras2")
    assert found[""].spec.gate == "hard_sigmoid_keras2"
    assert found[""].unseen["gate"] == "caller"


def test_a_pair_inside_a_bigger_block_is_part_of_it_alone():
    inside = EXAMPLES["luuuyi, older"].arrays("layer1.0.")
    found, _, rest = find(inside)
    assert (list(found), rest) == (["layer1.0"], set())
    pair = EXAMPLES["timm_se"].arrays("layer1.0.se.")
    found, _, rest = find(inside | pair, "luuuyi, timm_se")
    assert {path: block.dialect for path, block in found.items()} == {
        "layer1.0": "luuuyi",
        "layer1.0.se": "timm_se",
    }


def test_a_pair_in_a_module_with_other_layers_is_no_block():
    """Such as the two 1x1 convolutions of a bottleneck, with their norms."""
    arrays = {
        "conv1.weight": noise(16, 64, 1, 1),
        "bn1.weight": noise(16),
        "conv2.weight": noise(64, 16, 1, 1),
        "mlp.fc1.weight": noise(256, 64, 1, 1),
        "mlp.fc2.weight": noise(64, 256, 1, 1),
    }
    assert find(arrays) == ({}, {}, set(arrays))


def test_fields_that_no_array_shows_say_where_they_are_from():
    arrays = EXAMPLES["official"].arrays()
    block = find(arrays, channel_pools=["avg", "max", "lp"])[0][""]
    assert block.spec.channel_pools == ("avg", "max", "lp")
    assert block.unseen == {
        "channel_pools": "caller",
        "gate": "dialect",
        "pooling": "dialect",
        "norm_eps": "dialect",
        "norm_momentum": "dialect",
        "order": "dialect",
        "residual": "dialect",
    }
    assert find(arrays)[0][""].unseen["channel_pools"] == "default"
    alone = find(EXAMPLES["official, no_spatial"].arrays())[0][""]
    assert alone.unseen == {
        "channel_pools": "default",
        "gate": "dialect",
        "pooling": "dialect",
        "rank": "default",
        "residual": "dialect",
    }


@pytest.mark.parametrize(
    ("name", "fields", "text"),
    [
        (
            "official",
            {"kernel_size": 3},
            "holds at '' arrays that show kernel_size=7, and kernel_size=3 was passed; leave it "
            "out",
        ),
        (
            "official, no_spatial",
            {"order": "parallel"},
            "holds at '' arrays that show order='channel', and order='parallel' was passed; leave "
            "it out",
        ),
        (
            "luuuyi",
            {"order": "channel"},
            "holds at '' the arrays of both gates, and order='channel' was passed; leave it out",
        ),
    ],
)
def test_fields_that_arrays_deny_are_refused(name, fields, text):
    with pytest.raises(ValueError, match="leave it out") as caught:
        find(EXAMPLES[name].arrays(), **fields)
    assert str(caught.value) == text


def test_a_spatial_gate_alone_needs_its_channels():
    kernel = {"neck.sa.conv1.weight": noise(1, 2, 7, 7)}
    text = (
        "holds at 'neck' a spatial gate alone, whose arrays do not show the channels of the map; "
        "pass channels= (--set channels=)"
    )
    with pytest.raises(ValueError, match="spatial gate alone") as caught:
        find(kernel)
    assert str(caught.value) == text
    block = find(kernel, channels=64)[0]["neck"]
    assert (block.spec, block.unseen["channels"]) == (CBAMSpec(64, order="spatial"), "caller")
    module = {"conv1.weight": kernel["neck.sa.conv1.weight"]}
    assert find(module) == ({}, {}, set(module))
    assert find(module, channels=64)[0][""].spec == CBAMSpec(64, order="spatial")


def without(arrays, *names):
    return {name: array for name, array in arrays.items() if name not in names}


OFFICIAL = EXAMPLES["official"].arrays("layer1.0.cbam.")
INCOMPLETE = (
    "holds an incomplete block at 'layer1.0.cbam'; the nearest dialect is official (the authors' "
    "PyTorch code, and PytorchInsight):\n  "
)


@pytest.mark.parametrize(
    ("arrays", "wrong"),
    [
        (
            without(OFFICIAL, "layer1.0.cbam.ChannelGate.mlp.1.bias"),
            "missing: layer1.0.cbam.ChannelGate.mlp.1.bias",
        ),
        (
            {n: a for n, a in OFFICIAL.items() if ".bn." not in n},
            "missing: layer1.0.cbam.SpatialGate.spatial.bn.weight\n"
            "  missing: layer1.0.cbam.SpatialGate.spatial.bn.bias\n"
            "  missing: layer1.0.cbam.SpatialGate.spatial.bn.running_mean\n"
            "  missing: layer1.0.cbam.SpatialGate.spatial.bn.running_var",
        ),
        (
            OFFICIAL | {"layer1.0.cbam.ChannelGate.mlp.3.weight": noise(4, 32)},
            "misshaped: layer1.0.cbam.ChannelGate.mlp.3.weight has shape (4, 32), expected (32, 4)",
        ),
        (
            OFFICIAL | {"layer1.0.cbam.ChannelGate.mlp.3.weight": noise(32, 4, 1, 1)},
            "misshaped: layer1.0.cbam.ChannelGate.mlp.3.weight has shape (32, 4, 1, 1), expected "
            "(out, in)",
        ),
        (
            OFFICIAL | {"layer1.0.cbam.SpatialGate.spatial.conv.weight": noise(1, 2, 6, 6)},
            "misshaped: layer1.0.cbam.SpatialGate.spatial.conv.weight has shape (1, 2, 6, 6), "
            "expected (out, in, k..) with an odd k",
        ),
        (
            OFFICIAL | {"layer1.0.cbam.ChannelGate.mlp.2.running_mean": noise(4)},
            "unexpected: layer1.0.cbam.ChannelGate.mlp.2.running_mean",
        ),
    ],
    ids=["bias", "norm", "transposed", "convolution", "even", "another layer"],
)
def test_a_part_of_a_block_is_an_error_that_says_what_is_wrong(tmp_path, arrays, wrong):
    """Alone, beside whole ones, and where its dialect was asked for."""
    path = tmp_path / "part.safetensors"
    whole = EXAMPLES["official"].arrays("layer1.1.cbam.")
    other = {"layer1.0.conv1.weight": noise(64, 64, 3, 3)}
    for beside, dialect in [({}, None), (whole, None), (other, None), (other, "official")]:
        safetensors.numpy.save_file(arrays | beside, path)
        with pytest.raises(CheckpointError, match="incomplete") as caught:
            cbam_core.read(path, dialect)
        assert str(caught.value) == f"{path}: {INCOMPLETE}{wrong}"


def test_a_bias_that_a_dialect_has_not_is_never_dropped():
    arrays = EXAMPLES["luuuyi"].arrays("neck.") | {"neck.ca.fc.0.bias": noise(4)}
    assert find(arrays)[0] == {}
    assert "unexpected: neck.ca.fc.0.bias" in blocks.nearest(arrays)


def test_half_a_block_under_other_names_is_not_read_as_a_channel_gate():
    arrays = EXAMPLES["luuuyi, the channel gate"].arrays("neck.")
    arrays |= {"neck.sa.conv.weight": noise(1, 2, 7, 7), "conv1.weight": noise(8, 3, 3, 3)}
    with pytest.raises(ValueError, match="beside it") as caught:
        find(arrays)
    assert str(caught.value) == (
        "holds the channel gate of luuuyi at 'neck', and beside it neck.sa.conv.weight "
        "(1, 2, 7, 7), which may be the convolution of its spatial gate under a name that luuuyi "
        "has not; pass order='channel' (--set order=channel) to read the channel gate alone"
    )
    found, _, rest = find(arrays, order="channel")
    assert (list(found), rest) == (["neck"], {"neck.sa.conv.weight", "conv1.weight"})


@pytest.mark.parametrize("names", [("ca", "sa"), ("channel_attention", "spatial_attention")])
@pytest.mark.parametrize("fields", [{}, {"channels": 32}])
def test_half_a_block_under_other_names_is_not_read_as_a_spatial_gate(names, fields):
    first, second = (f"neck.{names[0]}.shared_MLP.{n}.weight" for n in (0, 2))
    gate = f"neck.{names[1]}.conv1.weight"
    arrays = {first: noise(4, 32, 1, 1), second: noise(32, 4, 1, 1), gate: noise(1, 2, 7, 7)}
    # Layers of the network that narrow and widen among others are no MLP.
    arrays |= {"neck.conv1.weight": noise(8, 32, 1, 1), "neck.conv2.weight": noise(8, 8, 3, 3)}
    arrays |= {"neck.conv3.weight": noise(32, 8, 1, 1)}
    reason = _refusal(arrays, fields)
    assert f", and beside it {first} (4, 32, 1, 1) and {second} (32, 4, 1, 1), which" in reason
    assert reason.endswith("order='spatial' (--set order=spatial) to read the spatial gate alone")
    found, _, rest = find(arrays, channels=32, order="spatial")
    assert [block.names for block in found.values()] == [{"spatial.conv.kernel": gate}]
    del arrays[first], arrays[second]
    (block,) = find(arrays, channels=32)[0].values()
    assert (block.spec.order, rest - set(arrays)) == ("spatial", {first, second})


def _refusal(arrays, fields) -> str:
    """Why nothing is read."""
    try:
        found, _, _ = find(arrays, **fields)
    except ValueError as error:
        return str(error)
    assert not found
    return blocks.nearest(arrays)


@pytest.mark.parametrize(
    ("value", "wrong"),
    [
        (np.ones((4, 32), np.int32), "has dtype int32"),
        (np.full((4, 32), np.nan, np.float32), "has values that are not finite"),
        (np.full((4, 32), -np.inf, np.float16), "has values that are not finite"),
        (np.ones((4, 32), np.complex64), "has dtype complex64"),
    ],
)
def test_values_that_are_no_finite_floats_are_refused(value, wrong):
    name = "layer1.0.cbam.ChannelGate.mlp.1.weight"
    with pytest.raises(ValueError, match="finite") as caught:
        find(OFFICIAL | {name: value})
    assert str(caught.value) == (
        f"holds a block at 'layer1.0.cbam' whose {name} {wrong}; expected finite values of "
        f"float64, float32, float16, bfloat16"
    )


ULTRALYTICS = {
    "channel_attention.fc.weight": noise(32, 32, 1, 1),
    "channel_attention.fc.bias": noise(32),
    "spatial_attention.cv1.weight": noise(1, 2, 7, 7),
}


def pair(first: str, second: str, *, torch: bool = True) -> dict[str, np.ndarray]:
    shape = ((4, 32, 1, 1), (32, 4, 1, 1)) if torch else ((32, 4), (4, 32))
    return {first: noise(*shape[0]), second: noise(*shape[1])}


UNSHARED = {
    "modules": {
        **pair("avg_mlp.0.weight", "avg_mlp.2.weight"),
        **pair("max_mlp.0.weight", "max_mlp.2.weight"),
        "conv.weight": noise(1, 2, 7, 7),
    },
    "gates": {
        **pair("ca.mlp_avg.fc1.weight", "ca.mlp_avg.fc2.weight"),
        **pair("ca.mlp_max.fc1.weight", "ca.mlp_max.fc2.weight"),
        "sa.conv1.weight": noise(1, 2, 7, 7),
        "conv1.weight": noise(64, 32, 3, 3),
        "conv2.weight": noise(64, 64, 3, 3),
    },
    "beside names that are known": {
        **pair("ca.fc1.weight", "ca.fc2.weight"),
        **pair("ca.fc1_max.weight", "ca.fc2_max.weight"),
        "sa.conv1.weight": noise(1, 2, 7, 7),
    },
    "a scope": {
        **pair("ch_at/mlp_0_avg/kernel", "ch_at/mlp_1_avg/kernel", torch=False),
        **pair("ch_at/mlp_0_max/kernel", "ch_at/mlp_1_max/kernel", torch=False),
        "sp_at/conv/kernel": noise(7, 7, 2, 1),
    },
    "layers of Keras": {
        **layer("dense", 32, 4, bias=4),
        **layer("dense_1", 4, 32, bias=32),
        **layer("dense_2", 32, 4, bias=4),
        **layer("dense_3", 4, 32, bias=32),
        **layer("conv2d", 7, 7, 2, 1),
    },
}


@pytest.mark.parametrize("prefix", ["", "layer1/0/"])
@pytest.mark.parametrize(
    ("arrays", "name"),
    [(ULTRALYTICS, "ultralytics"), *((arrays, "unshared_mlp") for arrays in UNSHARED.values())],
    ids=["ultralytics", *UNSHARED],
)
def test_a_lookalike_is_named_as_what_it_is(arrays, name, prefix):
    beside = EXAMPLES["official"].arrays("head.cbam.")
    arrays = {prefix + own: array for own, array in arrays.items()}
    found, lookalikes, rest = find(arrays | beside)
    assert list(found) == ["head.cbam"]
    path = prefix.replace("/", ".").rstrip(".")
    assert {path: d.name for path, d in lookalikes.items()} == {path: name}
    assert rest == set(arrays)


def test_several_keras_lookalikes_have_paths_of_their_own():
    arrays = in_layer_order() | {
        **layer("dense_20", 32, 4, bias=4),
        **layer("dense_21", 4, 32, bias=32),
        **keras_block(22, 22),
    }
    found, lookalikes, _ = find(arrays, "keras")
    assert (len(found), {p: d.name for p, d in lookalikes.items()}) == (
        3,
        {"dense_20": "unshared_mlp"},
    )


def test_a_bottleneck_with_the_shapes_of_a_second_mlp_is_none():
    arrays = EXAMPLES["luuuyi"].arrays("layer1.0.")
    arrays |= pair("layer1.0.conv1.weight", "layer1.0.conv3.weight")
    found, lookalikes, rest = find(arrays)
    assert (list(found), lookalikes, len(rest)) == (["layer1.0"], {}, 2)


@pytest.mark.parametrize(
    ("arrays", "text"),
    [
        (
            ULTRALYTICS,
            "holds no CBAM: what stands at '' is the CBAM of Ultralytics: its channel gate takes "
            "the average pool alone through one layer, without the maximum and without the hidden "
            "layer of the paper's",
        ),
        (
            UNSHARED["modules"],
            "holds no CBAM: what stands at '' is a block with an unshared MLP: the average and the "
            "maximum go through MLPs of their own, and CBAM has one that they share",
        ),
        (
            {"x": noise(3), "y.weight": noise(3)},
            "holds no CBAM in any dialect that this project knows: its 2 arrays are called x, "
            "y.weight, ...",
        ),
        (
            {"conv1.weight": noise(1, 2, 7, 7)},
            "holds at '' a spatial gate alone, whose arrays do not show the channels of the map; "
            "pass channels= (--set channels=)",
        ),
    ],
    ids=["ultralytics", "unshared", "foreign", "spatial"],
)
def test_a_file_without_a_block_says_what_it_has(tmp_path, arrays, text):
    path = tmp_path / "none.safetensors"
    safetensors.numpy.save_file(arrays, path)
    with pytest.raises(CheckpointError) as caught:
        cbam_core.read(path)
    assert str(caught.value) == f"{path}: {text}"


def test_another_dialect_than_the_one_asked_for_is_named(tmp_path):
    path = tmp_path / "official.safetensors"
    safetensors.numpy.save_file(OFFICIAL, path)
    with pytest.raises(CheckpointError) as caught:
        cbam_core.read(path, "luuuyi")
    text = f"{path}: is written in official (at 'layer1.0.cbam'); pass that dialect"
    assert str(caught.value) == text
    with pytest.raises(ValueError, match="dialect='cbam' is unknown; choose from canonical, "):
        cbam_core.read(path, "cbam")


def test_two_blocks_at_one_place_are_refused():
    arrays = EXAMPLES["official"].arrays("neck.") | EXAMPLES["luuuyi"].arrays("neck.")
    with pytest.raises(ValueError, match="two blocks at 'neck', of official and luuuyi; pass the"):
        find(arrays)


def test_the_checkpoint_has_the_names_of_the_file(tmp_path):
    path = tmp_path / "wrapped.safetensors"
    arrays = EXAMPLES["official"].arrays("state_dict/module.cbam.")
    safetensors.numpy.save_file(arrays | {"optimizer/state/0/momentum_buffer": noise(3)}, path)
    found = cbam_core.read(path)
    assert set(found.rest) == {"optimizer/state/0/momentum_buffer"}
    block = found.blocks["cbam"]
    assert {*block.names.values(), *block.counters} == set(arrays)


NESTINGS = {
    "state_dict/module._orig_mod.a.b": "a.b",
    "model/_orig_mod.module.a.b": "a.b",
    "model_state_dict/a.b": "a.b",
    "net/a.b": "a.b",
    "params/ca/mlp/Conv_0/kernel": "ca/mlp/Conv_0/kernel",
    "batch_stats/norm/mean": "norm/mean",
    "ema/module.a.b": "a.b",
    "dense/kernel:0": "dense/kernel",
    "dense/kernel/ExponentialMovingAverage": "dense/kernel",
    "model.a.b": "model.a.b",
    "backbone.module.a": "backbone.module.a",
    "optimal.a.b": "optimal.a.b",
    "optimizer/state/0/exp_avg": None,
    "opt_state/0/mu/params/a/kernel": None,
    "state/opt_state/0/nu/params/a/kernel": None,
    "optimizer_weights/Adam/m/dense/kernel": None,
    "optimizers/0/state/1/exp_avg": None,
}


@pytest.mark.parametrize(("name", "bare"), NESTINGS.items())
def test_what_stands_around_a_name_is_taken_off(name, bare):
    assert unwrap([name]) == ({} if bare is None else {bare: name})


def test_averages_and_slots_are_not_taken_for_weights():
    names = ["a/kernel", "a/kernel/Adam", "a/kernel/Adam_1", "a/kernel/ExponentialMovingAverage"]
    assert unwrap(names) == {"a/kernel": "a/kernel"}
    assert unwrap(["ema/a.b", "model/module.a.b", "ema/c"]) == {
        "a.b": "model/module.a.b",
        "c": "ema/c",
    }
    assert unwrap(["b/kernel:0", "b/kernel/Momentum:0"]) == {"b/kernel": "b/kernel:0"}


def test_two_nestings_with_the_same_names_are_both_kept():
    arrays = EXAMPLES["luuuyi"].arrays("state_dict/") | EXAMPLES["luuuyi"].arrays("net/", seed=1)
    assert list(find(arrays)[0]) == ["", "net"]


def test_slots_of_a_block_are_not_an_unshared_mlp():
    arrays = EXAMPLES["kobiso"].arrays("block1/")
    slots = {f"{name}/Momentum": array for name, array in arrays.items()}
    found, lookalikes, rest = find(arrays | slots)
    assert (list(found), lookalikes, rest) == (["block1"], {}, set(slots))


def calls(work) -> int:
    """How many functions a piece of work calls: its time, but for the machine's."""
    profile = cProfile.Profile()
    profile.runcall(work)
    return sum(entry.callcount for entry in profile.getstats())


CROWDS = {
    "foreign": lambda i: {f"layer{i // 9}.{i}.conv.weight": noise(3)},
    "pairs": lambda i: {f"l{i}.{n}": a for n, a in EXAMPLES["senet"].arrays().items()},
    "blocks": lambda i: {f"l{i}.{n}": a for n, a in EXAMPLES["luuuyi, older"].arrays().items()},
    "parts": lambda i: {f"l{i}.ca.fc1.weight": noise(4, 32, 1, 1), f"l{i}.conv1.weight": noise(1)},
    "numbered layers": lambda i: {f"b{i}/{n}": a for n, a in EXAMPLES["keras"].arrays().items()},
    "convolutions": lambda i: {"a." * (i % 50) + f"{i}.conv.weight": noise(1, 2, 3, 3)},
}


def test_as_many_blocks_as_a_file_may_have_are_found_soon():
    """What no count of calls shows, such as unions of sets: 2 s, or a hundred if it grows with the
    square of the names."""
    arrays = {name: array for i in range(16_000) for name, array in CROWDS["blocks"](i).items()}
    begun = time.process_time()
    found, _ = blocks.find(arrays)
    assert (len(found), time.process_time() - begun < 30) == (16_000, True)


@pytest.mark.parametrize("crowd", CROWDS.values(), ids=CROWDS)
def test_the_time_grows_with_the_names_alone(crowd):
    """Ten times the names take ten times as long, with at most so many calls for each."""
    counts = []
    for size in (100, 1000):
        arrays = {name: array for i in range(size) for name, array in crowd(i).items()}
        dialect = "keras" if "b0/dense/kernel" in arrays else None
        counts.append(calls(lambda a=arrays, d=dialect: blocks.find(a, d)) / len(arrays))
    assert counts[1] < min(1.2 * counts[0], 600)


@st.composite
def damaged(draw) -> tuple[dict[str, np.ndarray], dict[str, tuple[Example, str, bool]]]:
    """Blocks of several dialects in one file, some of them without an array or with another."""
    names = draw(st.lists(st.sampled_from(sorted(EXAMPLES)), min_size=1, max_size=4))
    arrays: dict[str, np.ndarray] = {}
    parts = {}
    for index, name in enumerate(names):
        prefix = f"part{index}{EXAMPLES[name].separator}"
        own = EXAMPLES[name].arrays(prefix, index)
        victim = draw(st.none() | st.sampled_from(sorted(own)))
        if victim is not None:
            change = draw(st.sampled_from(["drop", "shape", "name"]))
            array = own.pop(victim)
            own |= {"shape": {victim: noise(3, 5)}, "name": {f"{victim}_2": array}}.get(change, {})
        arrays |= own
        parts[f"part{index}"] = (EXAMPLES[name], prefix, victim is None)
    return arrays, parts


@settings(max_examples=300, deadline=None)
@given(damaged())
def test_what_is_found_in_a_damaged_file_is_right(file):
    """No array is in two blocks, a whole block has its weights, and of another no weight is wrong:
    without its convolution one may be a channel gate."""
    arrays, parts = file
    try:
        found, _, _ = find(arrays)
    except ValueError:
        return
    owned = [name for block in found.values() for name in (*block.names.values(), *block.counters)]
    assert len(owned) == len(set(owned))
    assert {path for path, (_, _, is_whole) in parts.items() if is_whole} <= set(found)
    for path, block in found.items():
        example, prefix, is_whole = parts[path]
        if is_whole:
            assert_is(block, example, arrays, prefix)
        for name, (_, canonical, layout) in example.names.items():
            if canonical in block.weights:
                assert block.weights[canonical].tobytes() == layout(arrays[prefix + name]).tobytes()

"""Which places are chosen for a CBAM, which CBAM each gets, and what is said of a wrong one."""

from __future__ import annotations

import re
from types import SimpleNamespace

import pytest

from cbam_core import CBAMSpec
from cbam_core.insertion import chosen, inserted_spec

# Any objects will do as modules: numbers, and a text as the closed one.
MODULES = {
    "": 0,
    "stem.conv": 1.5,
    "stem.norm": 2,
    "layers.10.norm": 3,
    "attention": "closed",
    "attention.norm": 4,
}


@pytest.mark.parametrize(
    ("where", "paths"),
    [
        ("stem.norm", ["stem.norm"]),
        ("*.norm", ["stem.norm", "layers.10.norm"]),
        ("stem.*", ["stem.conv", "stem.norm"]),
        ("layers.[0-9]*.norm", ["layers.10.norm"]),
        (float, ["stem.conv"]),
        (lambda path, module: path.endswith("norm") and module > 2, ["layers.10.norm"]),
        (["layers*", float, "stem.conv"], ["stem.conv", "layers.10.norm"]),
        ("", [""]),
    ],
)
def test_where_is_a_pattern_a_type_a_predicate_or_a_list(where, paths):
    assert chosen(where, MODULES, str) == paths


@pytest.mark.parametrize(
    ("where", "error", "message"),
    [
        (
            "*.bn",
            ValueError,
            "where='*.bn' names no module of the model; choose from "
            "stem.conv, stem.norm, layers.10.norm, attention",
        ),
        (["*.norm", bytes], ValueError, "where=<class 'bytes'> names no module of the model"),
        ("attention.*", ValueError, "where='attention.*' names no module"),
        (
            3,
            TypeError,
            "where=3 is no pattern, type or predicate; pass a string such as '*.norm2', a class, "
            "a function of (path, module), or a list of these",
        ),
    ],
    ids=str,
)
def test_a_wrong_choice_is_named(where, error, message):
    with pytest.raises(error, match=re.escape(message)):
        chosen(where, MODULES, str)


def test_of_many_modules_the_message_lists_twelve():
    modules = {f"layers.{number}": number for number in range(40)}
    with pytest.raises(ValueError, match=r"layers\.11 and 28 more$"):
        chosen("norm", modules, str)


class Block:
    """A residual block has a path around itself, which may be none at all."""

    downsample = None


def named(*names, blocks=()):
    return dict.fromkeys(blocks, Block()) | dict.fromkeys(names)


# Names of torchvision and timm, and of keras.applications.
RESNET = named(
    *("", "conv1", "bn1", "relu", "maxpool", "layer1", "layer2", "fc"),
    *("layer1.0.bn1", "layer1.0.bn2", "layer1.0.bn3", "layer1.0.downsample.1", "layer2.10.bn1"),
    *("layer2.10.bn2", "head.bn1"),
    blocks=("layer1.0", "layer2.10"),
) | {"head": 0}
APPLICATION = named(
    *("conv1_bn", "conv1_relu", "conv2_block1_0_bn", "conv2_block1_1_bn", "conv2_block1_2_bn"),
    *("conv2_block1_3_bn", "conv2_block1_add", "conv2_block1_out", "conv2_block10_1_bn"),
    *("conv2_block10_2_bn", "conv2_block10_add", "conv2_block10_out"),
)
PREACTIVATED = named(
    "conv2_block1_preact_bn", "conv2_block1_1_bn", "conv2_block1_2_bn", "block1_out"
)
MOBILENET = named(
    "conv1_relu", "conv_dw_1_bn", "conv_dw_1_relu", "conv_pw_1_relu", "conv_pw_10_relu"
)


@pytest.mark.parametrize("inside", ["", "backbone.body"], ids=["alone", "inside"])
@pytest.mark.parametrize(
    ("modules", "block", "stem_and_tail"),
    [
        (RESNET, ["layer1.0.bn3", "layer2.10.bn2"], ["relu", "layer2"]),
        (
            {name.replace("relu", "act1"): module for name, module in RESNET.items()},
            ["layer1.0.bn3", "layer2.10.bn2"],
            ["act1", "layer2"],
        ),
        (
            APPLICATION,
            ["conv2_block1_3_bn", "conv2_block10_2_bn"],
            ["conv1_relu", "conv2_block10_out"],
        ),
        (
            MOBILENET,
            ["conv1_relu", "conv_dw_1_relu", "conv_pw_1_relu", "conv_pw_10_relu"],
            ["conv1_relu", "conv_pw_10_relu"],
        ),
        (PREACTIVATED, [], []),
        ({"conv1": 1, "bn1": 2, "relu": 3}, [], []),
    ],
    ids=["torchvision", "timm", "keras-resnet", "keras-mobilenet", "keras-resnet-v2", "others"],
)
def test_block_and_stem_and_tail_go_by_names(modules, block, stem_and_tail, inside):
    prefix = f"{inside}." if inside else ""
    modules = {f"{prefix}{name}".removesuffix("."): module for name, module in modules.items()}
    for where, paths in {"block": block, "stem_and_tail": stem_and_tail}.items():
        if paths:
            assert set(chosen(where, modules, bytes)) == {f"{prefix}{path}" for path in paths}
        else:
            with pytest.raises(ValueError, match=f"where='{where}' names no module"):
                chosen(where, modules, bytes)


def test_a_module_named_block_is_meant_by_its_name():
    assert chosen("block", {"": 0, "block": 1}, str) == ["block"]


def output(*shape, dtype="float32"):
    return SimpleNamespace(shape=shape, dtype=dtype)


@pytest.mark.parametrize(
    ("outputs", "axis", "spec", "right"),
    [
        ([output(2, 8, 9, 32)], -1, None, CBAMSpec.preset("identity", 32)),
        ([output(2, 32, 8, 9)], 1, "official", CBAMSpec.preset("official", 32)),
        ([output(2, 9, 4, dtype="bfloat16")], -1, "se", CBAMSpec.preset("se", 4, rank=1)),
        (
            [output(2, 5, 5, 5, 8), output(2, 3, 3, 3, 8)],
            -1,
            CBAMSpec(64, hidden=7, reduction=2, kernel_size=3),
            CBAMSpec(8, reduction=2, kernel_size=3, rank=3),
        ),
    ],
    ids=str,
)
def test_the_spec_has_the_channels_and_the_rank_that_were_found(outputs, axis, spec, right):
    assert inserted_spec("norm", outputs, spec, channel_axis=axis) == right


@pytest.mark.parametrize(
    ("outputs", "error", "message"),
    [
        ([], ValueError, "where='norm' is not called when the model runs; choose a module that is"),
        (
            [output(2, 10)],
            ValueError,
            "where='norm' gives an array of shape (2, 10), and a CBAM refines feature maps, of 3 "
            "to 5 axes; choose a module that gives one",
        ),
        ([(output(2, 8, 9, 32),)], ValueError, "where='norm' gives tuple, and a CBAM refines"),
        ([output(2, 8, 9, 32), None], ValueError, "where='norm' gives NoneType, and a CBAM"),
        (
            [output(2, 8, 9, 32, dtype="int32")],
            TypeError,
            "where='norm' gives a map of dtype int32, and a CBAM refines floating-point ones; "
            "choose a module that gives one",
        ),
        (
            [output(2, 8, 9, 32), output(2, 4, 4, 64)],
            ValueError,
            "where='norm' gives maps of several widths or ranks, (2, 8, 9, 32) and (2, 4, 4, 64), "
            "and a CBAM refines maps of one; choose another module",
        ),
    ],
    ids=str,
)
def test_a_place_that_can_not_take_a_cbam_is_named(outputs, error, message):
    with pytest.raises(error, match=re.escape(message)):
        inserted_spec("norm", outputs, None, channel_axis=-1)

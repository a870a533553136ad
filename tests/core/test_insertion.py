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
    ids=str,
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

"""CBAMSpec: validation with texts, presets, round trips."""

from __future__ import annotations

import dataclasses
import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cbam_core import PRESETS, CBAMSpec
from cbam_core.spec import GATES, ORDERS, POOLINGS, POOLS, SPATIAL_DESCRIPTORS

SPECS = st.builds(
    CBAMSpec,
    st.integers(1, 4096),
    reduction=st.integers(1, 64),
    hidden=st.none() | st.integers(1, 512),
    mlp_bias=st.booleans(),
    channel_pools=st.permutations(POOLS).flatmap(
        lambda pools: st.integers(1, 4).map(lambda count: tuple(pools[:count]))
    ),
    kernel_size=st.integers(0, 30).map(lambda half: 2 * half + 1),
    spatial_bias=st.booleans(),
    spatial_norm=st.booleans(),
    gate=st.sampled_from(GATES),
    order=st.sampled_from(ORDERS),
    pooling=st.sampled_from(POOLINGS),
    spatial_descriptor=st.sampled_from(SPATIAL_DESCRIPTORS),
    residual=st.booleans(),
    norm_eps=st.floats(0, 1),
    norm_momentum=st.floats(0, 1),
    rank=st.integers(1, 3),
)


@given(SPECS)
def test_round_trips_through_json_and_repr(spec):
    assert CBAMSpec.from_dict(json.loads(json.dumps(spec.to_dict()))) == spec
    assert eval(repr(spec)) == spec
    assert hash(spec.replace()) == hash(spec)


@given(SPECS)
def test_the_gates_take_their_own_fields(spec):
    channel = CBAMSpec(**spec.channel_arguments(), order="channel")
    spatial = CBAMSpec(**spec.spatial_arguments(), order="spatial")
    assert channel.hidden_channels == spec.hidden_channels
    assert (channel.gate, spatial.kernel_size) == (spec.gate, spec.kernel_size)


def test_the_defaults_are_the_papers_equations():
    spec = CBAMSpec(64)
    assert spec == CBAMSpec.preset("paper", 64)
    assert spec.channel_pools == ("avg", "max")
    assert (spec.kernel_size, spec.reduction, spec.order) == (7, 16, "channel_spatial")


def test_a_spec_is_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        CBAMSpec(64).channels = 3


@pytest.mark.parametrize(
    ("channels", "reduction", "hidden", "width"),
    [(64, 16, None, 4), (24, 16, None, 1), (3, 16, None, 1), (64, 16, 7, 7)],
)
def test_hidden_channels(channels, reduction, hidden, width):
    assert CBAMSpec(channels, reduction=reduction, hidden=hidden).hidden_channels == width


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_builds_and_takes_changes(name):
    assert CBAMSpec.preset(name, 32).channels == 32
    assert CBAMSpec.preset(name, 32, kernel_size=5).kernel_size == 5


def test_presets_differ_as_their_sources_do():
    assert CBAMSpec.preset("official", 8).norm_momentum == 0.01
    assert CBAMSpec.preset("osmr", 8).norm_momentum == 0.1
    assert CBAMSpec.preset("keras", 8).gate == "hard_sigmoid_keras2"
    assert CBAMSpec.preset("timm_light", 8).pooling == "light"
    assert CBAMSpec.preset("xmu", 8).residual


def test_a_list_of_pools_becomes_a_tuple():
    assert CBAMSpec(8, channel_pools=["avg", "lp"]).channel_pools == ("avg", "lp")


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"channels": 0}, ValueError, "channels=0 is below 1; pass a positive integer"),
        ({"channels": 8.0}, TypeError, "channels=8.0 is not an integer; pass a whole number"),
        ({"channels": True}, TypeError, "channels=True is not an integer; pass a whole number"),
        ({"channels": None}, TypeError, "channels=None is not an integer; pass a whole number"),
        ({"hidden": 0}, ValueError, "hidden=0 is below 1; pass a positive integer"),
        (
            {"kernel_size": 4},
            ValueError,
            "kernel_size=4 is even, and only an odd kernel keeps the size of the map; pass 3 or 5",
        ),
        (
            {"channel_pools": ("avg", "avg")},
            ValueError,
            "channel_pools=('avg', 'avg') names a pool twice; pass each at most once",
        ),
        ({"channel_pools": 3}, TypeError, "channel_pools=3 is no sequence of names"),
        ({"gate": None}, ValueError, "gate=None is unknown; choose from sigmoid, hard_sigmoid"),
        ({"gate": ["sigmoid"]}, ValueError, "gate=['sigmoid'] is unknown; choose from sigmoid"),
        ({"spatial_norm": 1}, TypeError, "spatial_norm=1 is not a bool; pass True or False"),
        ({"norm_eps": -1e-5}, ValueError, "norm_eps=-1e-05 is negative"),
        ({"norm_eps": "small"}, TypeError, "norm_eps='small' is not a number; pass a float"),
        ({"norm_eps": float("nan")}, ValueError, "norm_eps=nan is not finite"),
        (
            {"norm_momentum": 1.5},
            ValueError,
            "norm_momentum=1.5 is not between 0 and 1; it is the weight of the new value "
            "(PyTorch's convention), so Keras' momentum=0.99 is 0.01 here",
        ),
        ({"rank": 4}, ValueError, "rank=4 is not supported; pass 1 for signals, 2 for images"),
        ({"pooling": "heavy"}, ValueError, "pooling='heavy' is unknown; choose from separate"),
        ({"spatial_descriptor": "x"}, ValueError, "choose from pool, conv"),
    ],
)
def test_a_bad_field_is_named(arguments, error, message):
    with pytest.raises(error, match=re.escape(message)):
        CBAMSpec(**({"channels": 8} | arguments))


def test_unknown_names_are_listed():
    with pytest.raises(ValueError, match="a CBAMSpec has no field 'ratio'; its fields are channel"):
        CBAMSpec.from_dict({"channels": 8, "ratio": 16})
    with pytest.raises(ValueError, match="lack 'channels'; add the number of channels"):
        CBAMSpec.from_dict({"reduction": 8})
    with pytest.raises(ValueError, match="preset='resnet' is unknown; choose from paper, official"):
        CBAMSpec.preset("resnet", 8)


@pytest.mark.parametrize("change", [{"channel_pools": ("max",)}, {"order": "spatial"}])
def test_squeeze_excitation_takes_no_other_block(change):
    spec = CBAMSpec.preset("se", 8)
    assert spec.squeeze_excitation_arguments()["channels"] == 8
    with pytest.raises(ValueError, match=r"is no squeeze-and-excitation, .* build a CBAM"):
        spec.replace(**change).squeeze_excitation_arguments()

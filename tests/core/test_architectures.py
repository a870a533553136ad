"""Architectures as data: what they count to, what they refuse, and how they travel."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

from cbam_core import (
    ARCHITECTURES,
    PRESETS,
    Architecture,
    CBAMSpec,
    flops,
    initial_network,
    network_shapes,
    parameters,
)
from cbam_core.architectures import HEADS, PLACEMENTS, STEMS, STRIDES_ON, attention_fields
from cbam_core.costs import is_statistic, parts
from cbam_core.paper import EXPLAINED, PRINTED

# Counted in the networks of their owners: depth -> the authors' parameters, and luuuyi's.
RELEASED = {
    18: (11_779_392, 11_777_336),
    34: (21_960_468, 21_956_424),
    50: (28_089_624, 28_073_544),
    101: (49_330_172, 49_295_562),
    152: (66_826_848, 66_775_884),
}

VARIANTS = [
    {"attention": None},
    {"attention": "se", "stem": "cifar", "num_classes": 10},
    {"attention": "cbam", "head": "dual_pooling"},
    {"attention": "cbam", "placement": "stem_and_tail", "stride_on": "1x1"},
    {"attention": "cbam", "spec": {"gate": "hard_sigmoid", "channel_pools": ("max",)}},
]


@pytest.fixture(params=ARCHITECTURES)
def name(request):
    return request.param


@pytest.mark.parametrize("depth", RELEASED)
def test_parameters_are_those_of_the_released_networks(depth):
    official, luuuyi = RELEASED[depth]
    name = f"resnet{depth}"
    assert parameters(Architecture.named(name, attention="cbam")) == official
    spec = attention_fields("luuuyi")
    assert parameters(Architecture.named(name, attention="cbam", spec=spec)) == luuuyi


@pytest.mark.parametrize("printed", PRINTED, ids=lambda p: f"{p.name}-{p.widen}-{p.attention}")
def test_every_figure_of_the_paper(printed):
    if (printed.name, printed.widen, printed.attention) == ("mobilenet", 0.7, "se"):
        assert printed.computed == ("2.70", printed.flops)
        assert printed.parameters == "2.71"
    else:
        assert printed.computed == (printed.parameters, printed.flops)
    assert printed.agrees != bool(printed.explained)


def test_one_way_of_rounding_the_hidden_width_gives_the_paper_s_every_figure():
    """C/16 rounded to nearest; docs/networks.md says why the packages round down."""
    for printed in PRINTED:
        architecture = printed.architecture
        count, multiply_adds = parameters(architecture), flops(architecture, 224, 224)
        for _, spec in architecture.attentions():
            nearest = spec.replace(hidden=math.floor(spec.channels / 16 + 0.5))
            count += parameters(nearest) - parameters(spec)
            # On a map of any size: the hidden width is the channel gate's.
            multiply_adds += flops(nearest, 1, 1) - flops(spec, 1, 1)
        figures = f"{count / 1e6:.2f}", f"{multiply_adds / 1e9:.3f}"
        assert figures == (printed.parameters, printed.flops), printed


def test_the_counts_of_the_figure_that_differs():
    architecture = Architecture.named("mobilenet", widen=0.7, attention="se")
    ((place, explanation),) = EXPLAINED.items()
    assert place == ("mobilenet", 0.7, "se")
    assert parameters(architecture) == 2_704_661
    assert "2,704,661" in explanation


@pytest.mark.parametrize("variant", VARIANTS, ids=str)
def test_the_parts_sum_to_the_whole(name, variant):
    architecture = Architecture.named(name, **variant)
    found = list(parts(architecture, 160, 97))
    assert sum(part.parameters for part in found) == parameters(architecture)
    assert sum(part.flops for part in found) == flops(architecture, 160, 97)
    paths = [part.path for part in found]
    blocks = [block.path for stage in architecture.stages for block in stage]
    attended = [path for path, _ in architecture.attentions()]
    assert sorted(paths) == sorted(["stem", *blocks, *attended, "head"])
    shapes = network_shapes(architecture)
    trained = (shape for name, shape in shapes.items() if not is_statistic(name))
    assert parameters(architecture) == sum(map(math.prod, trained))


def test_flops_by_hand():
    """A stem, one block with a projection's worth of units, and a head."""
    architecture = Architecture("basic", (1, 1), (64, 128), num_classes=10)
    stem = 16 * 16 * 7 * 7 * 3 * 64  # 32 x 32 halved
    first = 2 * 8 * 8 * 3 * 3 * 64 * 64  # halved by the max pool
    second = 4 * 4 * (3 * 3 * 64 * 128 + 3 * 3 * 128 * 128 + 64 * 128)
    assert flops(architecture, 32, 32) == stem + first + second + 128 * 10


def test_the_stride_s_place_costs_only_multiply_adds():
    paper, released = (Architecture.named("resnet50", stride_on=place) for place in STRIDES_ON)
    assert network_shapes(paper) == network_shapes(released)
    assert (flops(paper, 224, 224), flops(released, 224, 224)) == (3_857_973_248, 4_089_184_256)


@pytest.mark.parametrize("variant", VARIANTS, ids=str)
def test_it_travels_through_json(name, variant):
    architecture = Architecture.named(name, **variant)
    fields = json.loads(json.dumps(architecture.to_dict()))
    assert Architecture.from_dict(fields) == architecture
    assert hash(Architecture.from_dict(fields)) == hash(architecture)


def test_every_preset_and_spec_can_stand_in_a_network():
    for preset in PRESETS:
        spec = CBAMSpec.preset(preset, 64)
        for given in (preset, spec):
            architecture = Architecture.named(
                "resnet18", attention="cbam", spec=attention_fields(given)
            )
            (found,) = {s for _, s in architecture.attentions() if s.channels == 64}
            assert found == spec


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"kind": "dense"}, "kind='dense' is unknown; choose from 'basic', 'bottleneck'"),
        ({"attention": "eca"}, "attention='eca' is unknown; choose from None, 'cbam', 'se'"),
        ({"placement": "head"}, f"placement='head' is unknown; .* {PLACEMENTS[1]!r}"),
        ({"stem": "mnist"}, f"stem='mnist' is unknown; .* {STEMS[1]!r}"),
        ({"stride_on": "7x7"}, f"stride_on='7x7' is unknown; .* {STRIDES_ON[1]!r}"),
        ({"head": "none"}, f"head='none' is unknown; .* {HEADS[1]!r}"),
        ({"num_classes": 0}, "num_classes=0 is below 1; pass a positive integer"),
        ({"depths": (2, 2)}, r"depths=\(2, 2\) and widths=\(64, 128, 256, 512\) do not fit"),
        ({"depths": (2, 0, 2, 2)}, r"depths=\(2, 0, 2, 2\) .* one positive integer each"),
        ({"depths": (), "widths": ()}, r"depths=\(\) and widths=\(\) do not fit"),
        ({"widen": 0.01}, r"widen=0.01 leaves no channel of widths=\(64, 128, 256, 512\)"),
        ({"attention": "cbam", "spec": {"gate": "tanh"}}, "gate='tanh'"),
        ({"attention": "cbam", "spec": {"rank": 3}}, "spec has rank=3; pass rank=2"),
    ],
    ids=str,
)
def test_a_bad_field_is_named(fields, message):
    with pytest.raises(ValueError, match=message):
        Architecture(**{"kind": "basic", "depths": (2, 2, 2, 2), **fields})


def test_an_unknown_name_is_refused():
    with pytest.raises(ValueError, match="name='resnet20' is unknown; choose from resnet18, "):
        Architecture.named("resnet20")
    with pytest.raises(ValueError, match="an Architecture has no field 'depth'; its fields are k"):
        Architecture.from_dict({"kind": "basic", "depth": 2})


def test_initial_values_fit_and_are_those_of_the_scheme():
    architecture = Architecture.named("mobilenet", widen=0.25, attention="cbam", num_classes=7)
    drawn = initial_network(architecture, seed=5)
    shapes = network_shapes(architecture)
    assert {name: array.shape for name, array in drawn.items()} == shapes
    assert {array.dtype for array in drawn.values()} == {np.dtype(np.float32)}
    for name, array in drawn.items():
        value = {"bias": 0, "mean": 0, "scale": 1, "var": 1}.get(name.rpartition(".")[2])
        if name.endswith("spatial.norm.scale"):
            value = 0  # the authors': the spatial gate starts at 0.5
        if value is None:
            assert array.std() > 0, name
        elif ".channel." not in name:
            assert (array == value).all(), name


def test_initial_values_depend_on_their_names_alone():
    """So that what two networks share is drawn alike, whatever else they have."""
    fields = {"attention": "cbam", "widen": 0.25}
    small, large = (Architecture.named(n, **fields) for n in ("resnet18", "resnet34"))
    first, second = initial_network(small, seed=2), initial_network(large, seed=2)
    shared = [n for n in first if n in second and first[n].shape == second[n].shape]
    assert len(shared) > 100
    assert all(first[name].tobytes() == second[name].tobytes() for name in shared)
    other = initial_network(small, seed=3)["stem.conv.kernel"]
    assert not np.array_equal(other, first["stem.conv.kernel"])


@pytest.mark.parametrize("scheme", ["authors", "kaiming_fan_out", "he_normal"])
def test_convolutions_have_the_scheme_s_deviation(scheme):
    architecture = Architecture.named("resnet18", widen=0.5)
    for name, array in initial_network(architecture, scheme).items():
        if array.ndim == 4:
            *size, inputs, outputs = array.shape
            fan = inputs if scheme == "he_normal" else outputs
            expected = math.sqrt(2 / (math.prod(size) * fan))
            assert array.std() == pytest.approx(expected, rel=0.05), name

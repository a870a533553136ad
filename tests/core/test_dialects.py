"""Every dialect read and written: round trips, the table of pairs, and recorded files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import cbam_core
from cbam_core import DIALECTS, PRESETS, CBAMSpec, reference
from cbam_core.dialects import ALIASES, named
from cbam_core.expression import express, spell
from cbam_core.spec import GATES, POOLS, fields_read
from cbam_core.weights import SWITCHES
from tests import recorded, specs
from tests.compare import assert_equal
from tests.core.test_blocks import find, meaning

ROOT = Path(__file__).parent.parent.parent
WRITTEN = [name for name, dialect in DIALECTS.items() if not dialect.lookalike]
CHOICES = {
    "channel_pools": st.permutations(POOLS).flatmap(
        lambda pools: st.integers(1, 4).map(lambda count: tuple(pools[:count]))
    ),
    "gate": st.sampled_from(GATES),
    "order": st.sampled_from(["channel_spatial", "spatial_channel", "parallel"]),
    "pooling": st.sampled_from(["separate", "light"]),
    "residual": st.booleans(),
    "norm_eps": st.floats(0, 1),
    "norm_momentum": st.floats(0, 1),
}


@st.composite
def expressible(draw, name: str) -> CBAMSpec:
    """A spec that a dialect can express."""
    dialect = DIALECTS[name]
    every = [("channel", "spatial"), ("channel",), ("spatial",)]
    gates = draw(st.sampled_from([g for g in every if dialect.spelling(g) is not None]))
    leaves = [leaf for leaf in dialect.spelling(gates) if leaf.startswith(gates)]
    fields = {**dialect.fields, **{f: draw(CHOICES[f]) for f in dialect.settable}}
    for switch in ("mlp_bias", "spatial_bias", "spatial_norm"):
        has = switch in {SWITCHES.get(leaf) for leaf in leaves}
        fields[switch] = has and (switch not in dialect.optional or draw(st.booleans()))
    if "spatial.squeeze.kernel" in leaves:
        fields["spatial_descriptor"] = draw(st.sampled_from(["pool", "conv"]))
    if len(gates) == 1:
        fields["order"] = gates[0]
    channels = draw(st.integers(1, 9))
    fields["hidden"] = draw(st.integers(1, channels if name in ("kobiso_keras", "keras") else 9))
    fields |= {"kernel_size": draw(st.sampled_from([1, 3, 5])), "rank": draw(st.integers(1, 3))}
    read = fields_read(
        channel="channel" in gates, spatial="spatial" in gates, norm=fields["spatial_norm"]
    )
    return CBAMSpec(channels, **{f: v for f, v in fields.items() if f in read})


def read(arrays, name: str, spec: CBAMSpec):
    """The blocks of `arrays` by their paths, told what no array shows of their spec."""
    fields = {f: getattr(spec, f) for f in (*DIALECTS[name].settable, "rank", "channels")}
    found, lookalikes, rest = find(arrays, name, **fields)
    assert (lookalikes, rest) == ({}, set())
    return found


def same_bits(one, other) -> bool:
    return set(one) == set(other) and all(
        (one[n].dtype, one[n].shape, one[n].tobytes())
        == (other[n].dtype, other[n].shape, other[n].tobytes())
        for n in one
    )


@pytest.mark.parametrize("name", WRITTEN)
@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_round_trips_keep_the_bits(name, data):
    """Canonical to the dialect and back, and the dialect to canonical and back."""
    spec = data.draw(expressible(name))
    dtype = data.draw(st.sampled_from(["float16", "float32", "float64"]))
    path = data.draw(st.sampled_from(["", "cbam", "layer1.0.cbam"]))
    weights = {n: w.astype(dtype) for n, w in specs.weights(spec).items()}
    given_spec, given_weights = express(spec, weights, DIALECTS[name])
    assert (given_spec, same_bits(given_weights, weights)) == (spec, True)
    arrays = spell({path: (spec, weights)}, DIALECTS[name])
    ((place, block),) = read(arrays, name, spec).items()
    assert place == ("" if name in ("kobiso_keras", "keras") else path)
    assert meaning(block.spec) == meaning(spec)
    assert same_bits(block.weights, weights)
    again = spell({path: (block.spec, block.weights)}, DIALECTS[name])
    assert list(again) == list(arrays)
    assert same_bits(again, arrays)


# What has to be said of a recorded file: what nothing in it tells.
HINTS = {
    "official_lp_lse": {"channel_pools": ("avg", "max", "lp", "lse")},
    "timm_se": {"dialect": "timm_se"},
    "kobiso_keras2_cbam": {"dialect": "kobiso_keras"},
    "seed_keras2_cbam_hard_sigmoid": {"dialect": "keras"},
}


@pytest.mark.parametrize("name", recorded.NAMES)
def test_a_recorded_file_is_read_as_its_hand_made_map_says(name):
    data, case = recorded.load(name), recorded.read(name)
    arrays = {n.removeprefix("weights/"): a for n, a in data.items() if n.startswith("weights/")}
    found, lookalikes, rest = find(arrays, **HINTS.get(name, {}))
    (block,) = found.values()
    assert not lookalikes
    assert rest == (
        {n for n in arrays if "conv" in n or "bn" in n} - {"sa.conv1.weight"}
        if name == "luuuyi_basicblock"
        else set()
    )
    assert meaning(block.spec) == meaning(case.spec)
    wide = {n: w.astype(np.float64) for n, w in block.weights.items()}
    assert same_bits(wide, {n: np.asarray(w, np.float64) for n, w in case.weights.items()})
    for mode, output in case.outputs.items():
        step = reference.run(block.spec, block.weights, case.x, training=mode == "train")
        known = np.isfinite(output)
        assert_equal(
            {"output": np.where(known, step.output, 0.0)},
            {"output": np.where(known, output, 0.0)},
            case.limit,
        )


def test_what_is_recorded_and_ambiguous_has_an_error_that_says_so():
    for name in ("timm_se", "kobiso_keras2_cbam", "seed_keras2_cbam_hard_sigmoid"):
        data = recorded.load(name)
        arrays = {n.removeprefix("weights/"): a for n, a in data.items() if "weights/" in n}
        with pytest.raises(ValueError, match=f"--from {HINTS[name]['dialect']} "):
            find(arrays)


def test_a_dialect_has_the_name_of_its_preset_and_its_fields():
    for name, fields in PRESETS.items():
        if name in DIALECTS:
            assert DIALECTS[name].fields == fields, name
    assert {"paper", "official_no_spatial", "se", "identity"} == set(PRESETS) - set(DIALECTS)


def test_a_dialect_has_a_file_of_its_name():
    folder = Path(cbam_core.__file__).parent / "dialects"
    files = {path.stem for path in folder.glob("*.py")}
    assert files - {"__init__", "dialect", "layouts"} == set(DIALECTS) - {"cbam_torch"}


def test_the_page_has_the_facts_of_the_tables():
    page = (ROOT / "docs" / "dialects.md").read_text()
    rows = {line.split("`")[1]: line for line in page.splitlines() if line.startswith("| `")}
    del rows["--from"]
    assert list(rows) == list(DIALECTS)
    for name, dialect in DIALECTS.items():
        row = rows[name]
        if dialect.lookalike:
            assert row == f"| `{name}` | {dialect.lookalike} |"
        elif name != "cbam_torch":
            assert all(f"`{layer}`" in row for layer in layers(dialect)), row
        if not dialect.lookalike and "conv" in row.split("|")[3] and name != "timm_light":
            assert f"[{', '.join(dialect.maps)}]" in row
    for alias, name in ALIASES.items():
        assert f"`{alias}`" in page, alias
        assert named(alias.upper().replace("_", "-")) == [DIALECTS[name]]


def layers(dialect) -> set[str]:
    """The layers of a block, as they are written, without the numbers of Keras."""
    leaves = (*dialect.spellings, *dialect.bare)[0]
    ends = (".weight", ".kernel", "/kernel", "/vars/0")
    names = [name for leaf, (name, _) in leaves.items() if leaf.endswith("kernel")]
    return {
        name.removesuffix(end).replace("{_}", "")
        for name in names
        for end in ends
        if name.endswith(end) and "squeeze" not in name
    }

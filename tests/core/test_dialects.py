"""Every dialect: found wherever it stands, read to the same bits, written as it was."""

from __future__ import annotations

import numpy as np
import pytest
import safetensors.numpy

import cbam_core
from cbam_core import DIALECTS, CBAMSpec, conversion
from tests import specs


def test_luuuyi_s_block_is_found_anywhere(tmp_path):
    rng = np.random.default_rng(1)
    arrays = {
        "state_dict/module.layer1.0.ca.fc1.weight": rng.standard_normal((4, 64, 1, 1)),
        "state_dict/module.layer1.0.ca.fc2.weight": rng.standard_normal((64, 4, 1, 1)),
        "state_dict/module.layer1.0.sa.conv1.weight": rng.standard_normal((1, 2, 7, 7)),
        "state_dict/module.conv1.weight": rng.standard_normal((64, 3, 7, 7)),
        "optimizer/state/0/momentum_buffer": rng.standard_normal(3),
    }
    safetensors.numpy.save_file(arrays, tmp_path / "a.safetensors")
    found = cbam_core.read(tmp_path / "a.safetensors")
    assert list(found.blocks) == ["layer1.0"]
    assert (found.dialect, found.spec) == ("luuuyi", CBAMSpec(64))
    assert set(found.rest) == {
        "state_dict/module.conv1.weight",
        "optimizer/state/0/momentum_buffer",
    }
    kernel = found.weights["spatial.conv.kernel"]
    assert np.array_equal(
        kernel[:, :, 1, 0], arrays["state_dict/module.layer1.0.sa.conv1.weight"][0, 1]
    )


@pytest.mark.parametrize("name", DIALECTS)
def test_round_trip_keeps_the_bits(tmp_path, name):
    """Canonical to the dialect and back, and the dialect to canonical and back."""
    dialect = DIALECTS[name]
    has = {conversion._leaf_field(leaf) for leaf in dialect.spellings[0]}
    flags = {flag: flag in has for flag in ("mlp_bias", "spatial_bias", "spatial_norm")}
    spec = CBAMSpec(32, hidden=4, **dialect.fields, **flags)
    weights = specs.weights(spec)
    cbam_core.write(tmp_path / "a.safetensors", weights, spec)
    cbam_core.convert(tmp_path / "a.safetensors", tmp_path / "b.safetensors", to=name)
    found = cbam_core.read(tmp_path / "b.safetensors", name)
    assert found.spec == spec
    assert all(found.weights[n].tobytes() == weights[n].tobytes() for n in weights)
    cbam_core.convert(tmp_path / "b.safetensors", tmp_path / "c.safetensors", to="canonical")
    again = cbam_core.read(tmp_path / "c.safetensors")
    assert again.spec == spec
    assert all(again.weights[n].tobytes() == weights[n].tobytes() for n in weights)

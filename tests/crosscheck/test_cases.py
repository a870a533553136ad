"""The cases: what they cover, and that rounding to a dtype is exact."""

from __future__ import annotations

import numpy as np
import pytest
from skimage import data, io

from cbam_core import PRESETS, Architecture, CBAMSpec, check_input, check_weights, network_shapes
from crosscheck import cases, photograph, trained
from crosscheck.case import round_to
from crosscheck.cases import INPUTS, SELECTION, default_cases, full_cases


@pytest.fixture(scope="module")
def defaults():
    return default_cases()


def test_the_defaults_cover_each_preset_input_and_field(defaults):
    specs = [case.described for case in defaults if isinstance(case.described, CBAMSpec)]
    names = {case.name for case in defaults}
    assert len(names) == len(defaults)
    for preset in PRESETS:
        assert CBAMSpec.preset(preset, 16, hidden=4) in specs, preset
    assert names >= {f"official-{kind}" for kind in INPUTS}
    assert names >= SELECTION
    assert names >= {trained.NETWORK, trained.ATTENTION}
    for field in CBAMSpec(1).to_dict():
        assert len({getattr(spec, field) for spec in specs}) > 1, field


def test_the_full_grid_has_every_variation_of_every_preset():
    grid = full_cases()
    names = {case.name for case in grid}
    assert len(names) == len(grid)
    assert names >= {trained.NETWORK, trained.ATTENTION}
    specs = {case.described for case in grid}
    for preset in PRESETS:
        spec = CBAMSpec.preset(preset, 16, hidden=4)
        for name, changed in cases._variations(preset, spec):
            assert changed in specs, name


def test_every_case_fits_its_spec(defaults):
    for case in defaults:
        if isinstance(case.described, Architecture):
            check_weights(network_shapes(case.described), case.weights)
            assert case.cotangent.shape == (len(case.x), case.described.num_classes)
            continue
        check_input(case.described, case.x.shape, case.x.dtype, channel_axis=-1)
        check_weights(case.described, case.weights)
        assert case.cotangent.shape == case.x.shape


def test_cases_are_the_same_every_time(defaults):
    for first, again in zip(defaults, default_cases(), strict=True):
        assert first.x.tobytes() == again.x.tobytes()
        assert first.cotangent.tobytes() == again.cotangent.tobytes()


def test_inputs_have_what_they_are_for(defaults):
    by_name = {case.name: case.x for case in defaults}
    assert 0.4 < (by_name["official-relu"] == 0).mean() < 0.7
    assert 0.2 < (by_name["official-photo"] == 0).mean() < 0.8
    # What a norm gives, on both sides of 0, and no flat area in it.
    attended = by_name[trained.ATTENTION]
    assert 0.2 < (attended > 0).mean() < 0.8
    assert len(np.unique(attended)) > 0.9 * attended.size
    assert np.ptp(by_name["official-constant"]) == 0
    assert by_name["official-one-position"].shape[1:3] == (1, 1)
    assert by_name["official-one-sample"].shape[0] == 1
    assert by_name["official-one-channel"].shape[-1] == 1
    assert np.isnan(by_name["official-nan"]).sum() == 1
    assert np.isinf(by_name["official-infinity"]).sum() == 1
    assert np.abs(by_name["official-large"]).max() > 1000


def test_rounding_to_bfloat16_is_to_nearest_even():
    values = np.array([1.0, 1 + 2**-8, 1 + 3 * 2**-8, -(1 + 2**-7), np.inf, np.nan, 3e38])
    expected = [1.0, 1.0, 1 + 2**-6, -(1 + 2**-7), np.inf, np.nan, 2.9907e38]
    np.testing.assert_allclose(round_to(values, "bfloat16"), expected, rtol=1e-2)
    assert round_to(values, "bfloat16")[:4].tolist() == expected[:4]


def test_rounding_to_float16_is_numpys():
    values = np.random.default_rng(0).standard_normal(100)
    assert np.array_equal(round_to(values, "float16"), values.astype(np.float16))


def test_a_picture_of_the_user(tmp_path):
    io.imsave(tmp_path / "grey.png", data.camera())
    grey = photograph.load(tmp_path / "grey.png")
    assert grey.shape == (224, 224, 3)
    assert 0.0 <= grey.min() < grey.max() <= 1.0
    assert not np.array_equal(grey, photograph.load())
    (tmp_path / "no.png").write_text("not a picture")
    with pytest.raises(ValueError, match=r"--image .*no.png is not a readable picture"):
        photograph.load(tmp_path / "no.png")
    with pytest.raises(ValueError, match=r"--image .*none.png is not a readable picture"):
        photograph.load(tmp_path / "none.png")

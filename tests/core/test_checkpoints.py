"""Weight files: round trips, whole-or-untouched writes, and files that are something else."""

from __future__ import annotations

import json
import os

import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy

import cbam_core
from cbam_core import CBAMSpec, CheckpointError
from tests import specs


@pytest.mark.parametrize("name", specs.SPECS)
def test_round_trip_keeps_the_bits(tmp_path, name):
    spec = specs.SPECS[name]
    weights = specs.weights(spec)
    cbam_core.write(tmp_path / "a.safetensors", weights, spec)
    found = cbam_core.read(tmp_path / "a.safetensors")
    assert (found.dialect, found.spec) == ("canonical", spec)
    assert set(found.weights) == set(weights)
    assert all(found.weights[n].tobytes() == weights[n].tobytes() for n in weights)
    assert os.listdir(tmp_path) == ["a.safetensors"]


def test_what_the_caller_says_goes_before_what_a_file_of_our_own_does(tmp_path):
    path, spec = tmp_path / "a.safetensors", CBAMSpec(8, spatial_norm=True)
    cbam_core.write(path, specs.weights(spec), spec)
    assert cbam_core.read(path, norm_momentum=0.01).spec == spec.replace(norm_momentum=0.01)
    with pytest.raises(CheckpointError) as caught:
        cbam_core.read(path, order="channel")
    assert str(caught.value) == (
        f"{path}: holds no valid CBAM: its arrays are those of CBAMSpec(8, spatial_norm=True), and "
        f"order='channel' was passed; leave it out"
    )


def test_a_transposed_view_is_written_as_it_reads(tmp_path):
    spec = CBAMSpec(8, order="channel", hidden=2)
    weights = specs.weights(spec)
    views = {name: np.asfortranarray(array) for name, array in weights.items()}
    cbam_core.write(tmp_path / "a.safetensors", views, spec)
    found = cbam_core.read(tmp_path / "a.safetensors").weights
    assert all(np.array_equal(found[name], weights[name]) for name in weights)


def test_weights_that_do_not_fit_leave_the_target_alone(tmp_path):
    path = tmp_path / "a.safetensors"
    path.write_bytes(b"old")
    with pytest.raises(ValueError, match="missing"):
        cbam_core.write(path, {}, CBAMSpec(8))
    assert path.read_bytes() == b"old"


def test_a_failed_write_leaves_the_target_and_no_litter(tmp_path, monkeypatch):
    spec = CBAMSpec(8)
    path = tmp_path / "a.safetensors"
    path.write_bytes(b"old")

    def full_disk(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full_disk)
    with pytest.raises(OSError, match="No space left"):
        cbam_core.write(path, cbam_core.initial_weights(spec), spec)
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["a.safetensors"]


def _valid(tmp_path):
    spec = CBAMSpec(8)
    cbam_core.write(tmp_path / "valid.safetensors", cbam_core.initial_weights(spec), spec)
    return (tmp_path / "valid.safetensors").read_bytes()


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (lambda data: b"", "is empty; copy or download it again"),
        (lambda data: data[:-1], "is not a readable safetensors file"),
        (lambda data: data[:40], "is not a readable safetensors file"),
        (lambda data: b"\xff" * 8 + data[8:], "is not a readable safetensors file"),
        (lambda data: b"PK\x03\x04" + data, "is not a readable safetensors file"),
        (lambda data: data.replace(b'cbam_format":"1"', b'cbam_format":"9"'), "expected '1'"),
        (lambda data: data.replace(b"gate", b"gaze"), "holds no valid CBAM"),
        (lambda data: data.replace(b'channels\\": 8', b'channels\\": 9'), "misshaped"),
    ],
)
def test_a_damaged_file_is_a_checkpoint_error(tmp_path, spoil, reason):
    path = tmp_path / "spoiled.safetensors"
    path.write_bytes(spoil(_valid(tmp_path)))
    with pytest.raises(CheckpointError, match=reason) as caught:
        cbam_core.read(path)
    assert str(caught.value).startswith(f"{path}: ")


def test_a_foreign_safetensors_file_is_named_as_such(tmp_path):
    path = tmp_path / "foreign.safetensors"
    safetensors.numpy.save_file({"x": np.zeros(3)}, path)
    with pytest.raises(CheckpointError, match="holds no CBAM in any dialect"):
        cbam_core.read(path)
    safetensors.numpy.save_file({"x": np.zeros(3)}, path, {"cbam_format": "1"})
    with pytest.raises(CheckpointError, match="its metadata has no spec, which is a JSON object"):
        cbam_core.read(path)
    safetensors.numpy.save_file({"x": np.zeros(3)}, path, {"cbam_format": "1", "specs": "{}"})
    with pytest.raises(CheckpointError, match="its metadata has no spec, which is a JSON object"):
        cbam_core.read(path)
    huge = json.dumps({"channels": 8, "norm_eps": 10**400})
    safetensors.numpy.save_file({"x": np.zeros(3)}, path, {"cbam_format": "1", "spec": huge})
    with pytest.raises(CheckpointError, match="norm_eps=inf is not finite"):
        cbam_core.read(path)
    nested = json.dumps({"channels": 8, "channel_pools": []})
    safetensors.numpy.save_file({"x": np.zeros(3)}, path, {"cbam_format": "1", "spec": nested})
    with pytest.raises(CheckpointError, match=r"channel_pools=\(\) is empty"):
        cbam_core.read(path)


def test_values_that_are_not_finite_are_refused_in_a_file_of_our_own(tmp_path):
    path, spec = tmp_path / "a.safetensors", CBAMSpec(8, order="channel")
    weights = cbam_core.initial_weights(spec)
    weights["channel.expand.kernel"][0, 0] = np.nan
    cbam_core.write(path, weights, spec)
    with pytest.raises(CheckpointError) as caught:
        cbam_core.read(path)
    assert str(caught.value) == (
        f"{path}: holds no valid CBAM: channel.expand.kernel has values that are not finite; "
        f"expected finite values of float64, float32, float16, bfloat16"
    )


def test_a_dtype_that_numpy_lacks_is_a_checkpoint_error(tmp_path):
    header = json.dumps({"x": {"dtype": "F8_E4M3", "shape": [2], "data_offsets": [0, 2]}}).encode()
    path = tmp_path / "f8.safetensors"
    path.write_bytes(len(header).to_bytes(8, "little") + header + b"\0\0")
    with pytest.raises(CheckpointError, match="is not a readable safetensors file"):
        cbam_core.read(path)


def test_a_folder_is_a_checkpoint_error(tmp_path):
    with pytest.raises(CheckpointError, match="is a folder in which no weight file"):
        cbam_core.read(tmp_path)


def test_a_new_file_is_readable_by_others_and_an_old_one_keeps_its_mode(tmp_path):
    path, spec = tmp_path / "a.safetensors", CBAMSpec(8)
    umask = os.umask(0o022)
    try:
        cbam_core.write(path, cbam_core.initial_weights(spec), spec)
    finally:
        os.umask(umask)
    assert path.stat().st_mode & 0o777 == 0o644
    path.chmod(0o640)
    cbam_core.write(path, cbam_core.initial_weights(spec), spec)
    assert path.stat().st_mode & 0o777 == 0o640


def test_big_endian_and_bfloat16_arrays_are_written_as_numpy_reads_them(tmp_path):
    spec = CBAMSpec(8, order="channel")
    weights = cbam_core.initial_weights(spec)
    swapped = {name: array.astype(">f4") for name, array in weights.items()}
    cbam_core.write(tmp_path / "a.safetensors", swapped, spec)
    found = cbam_core.read(tmp_path / "a.safetensors").weights
    assert all(found[name].tobytes() == weights[name].tobytes() for name in weights)
    bfloat16 = ml_dtypes.bfloat16
    rounded = {name: array.astype(bfloat16) for name, array in weights.items()}
    cbam_core.write(tmp_path / "a.safetensors", rounded, spec)
    found = cbam_core.read(tmp_path / "a.safetensors").weights
    assert all(np.array_equal(found[n], rounded[n].astype(np.float32)) for n in weights)


def test_long_doubles_are_refused(tmp_path):
    spec = CBAMSpec(8, order="channel")
    weights = {n: w.astype(np.longdouble) for n, w in cbam_core.initial_weights(spec).items()}
    with pytest.raises(ValueError, match=r"of another dtype: channel\.reduce\.kernel has"):
        cbam_core.write(tmp_path / "a.safetensors", weights, spec)


def test_a_missing_file_is_said_to_be_missing(tmp_path):
    with pytest.raises(FileNotFoundError, match="no such file"):
        cbam_core.read(tmp_path / "none.safetensors")

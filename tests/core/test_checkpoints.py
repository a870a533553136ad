"""Weight files: round trips, whole-or-untouched writes, and files that are something else."""

from __future__ import annotations

import json
import os

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
        (lambda data: b"", "is not a readable safetensors file"),
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
    with pytest.raises(CheckpointError, match="has cbam_format=None in its metadata, expected '1'"):
        cbam_core.read(path)
    nested = json.dumps({"channels": 8, "channel_pools": []})
    safetensors.numpy.save_file({"x": np.zeros(3)}, path, {"cbam_format": "1", "spec": nested})
    with pytest.raises(CheckpointError, match=r"channel_pools=\(\) is empty"):
        cbam_core.read(path)


def test_a_missing_file_is_said_to_be_missing(tmp_path):
    with pytest.raises(FileNotFoundError, match="no such file"):
        cbam_core.read(tmp_path / "none.safetensors")

"""Weight files that a framework's users save are read, and what is written for them they load."""

from __future__ import annotations

import pytest

import cbam_core
from tests import specs

NAMES = ["everything", "official", "se", "parallel_conv", "volumes"]


def _module(framework, spec):
    module = framework.build("CBAM.from_spec", spec, dtype="float64")
    framework.package.load_canonical(module, specs.weights(spec))
    return module


def _same(found, spec) -> None:
    known = specs.weights(spec)
    assert set(found) == set(known)
    assert all(found[name].tobytes() == known[name].tobytes() for name in known)


@pytest.mark.parametrize("name", NAMES)
def test_what_its_users_save_is_read(framework, tmp_path, name):
    spec = specs.SPECS[name]
    paths = framework.save(_module(framework, spec), tmp_path)
    assert paths
    for path in paths:
        # No array shows the gate, the pools or the order.
        found = cbam_core.read(path, **spec.to_dict())
        assert found.spec == spec, path
        _same(found.weights, spec)


@pytest.mark.parametrize("name", NAMES)
def test_what_is_written_is_loaded(framework, tmp_path, name):
    spec = specs.SPECS[name]
    cbam_core.write(tmp_path / "a.safetensors", specs.weights(spec), spec)
    for number, (ending, dialect, load) in enumerate(framework.LOADS):
        target = tmp_path / f"b{number}{ending}"
        cbam_core.convert(tmp_path / "a.safetensors", target, to=dialect)
        module = framework.build("CBAM.from_spec", spec, dtype="float64")
        load(module, target)
        _same(framework.package.to_canonical(module), spec)

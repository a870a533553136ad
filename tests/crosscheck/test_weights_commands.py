"""`cbam inspect` and `cbam convert`, as their users call them."""

from __future__ import annotations

import json

import numpy as np
import pytest
import safetensors.numpy

import cbam_core
from cbam_core import CBAMSpec
from tests.crosscheck.test_cli import cbam
from tests.recorded import load
from tests.recorded_networks import NETWORKS


@pytest.fixture
def official(tmp_path):
    """The authors' block, with a layer that is not its own beside it."""
    data = load("official_default")
    arrays = {k.removeprefix("weights/"): v for k, v in data.items() if k.startswith("weights/")}
    path = tmp_path / "official.safetensors"
    safetensors.numpy.save_file(arrays | {"fc.weight": np.ones((3, 4), np.float32)}, path)
    return path


def test_inspect_says_what_a_file_holds(official, tmp_path):
    done = cbam("inspect", official, "--json", tmp_path / "facts.json")
    assert (done.returncode, done.stderr) == (0, "")
    words = " ".join(done.stdout.split())
    assert "official CBAMSpec(32, hidden=4, mlp_bias=True, spatial_norm=True" in words
    assert "no array shows channel_pools=('avg', 'max'), gate='sigmoid'" in words
    assert "1 outside the blocks: fc.weight (3, 4)" in words
    facts = json.loads((tmp_path / "facts.json").read_text())
    (block,) = facts["blocks"].values()
    assert block["dialect"] == "official"
    assert CBAMSpec.from_dict(block["spec"]).hidden_channels == 4
    assert facts["rest"] == {"fc.weight": [3, 4]}


def test_convert_writes_what_every_package_reads(official, tmp_path):
    target = tmp_path / "block.safetensors"
    done = cbam("convert", official, target)
    assert (done.returncode, done.stderr) == (0, "")
    assert "left out, --keep-rest carries it: 1 (fc.weight)" in done.stdout
    found = cbam_core.read(target)
    assert (found.dialect, found.rest) == ("canonical", {})
    kept = cbam("convert", official, target, "--keep-rest")
    assert "carried along: 1 (fc.weight)" in kept.stdout
    assert set(cbam_core.read(target).rest) == {"fc.weight"}


def test_what_can_not_be_expressed_is_refused_and_the_target_is_as_it_was(official, tmp_path):
    target = tmp_path / "block.safetensors"
    target.write_bytes(b"old")
    done = cbam("convert", official, target, "--to", "luuuyi")
    assert done.returncode == 1
    assert "luuuyi can't express it:" in done.stderr
    assert "mlp_bias=True: luuuyi has none" in done.stderr
    assert target.read_bytes() == b"old"


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["inspect", "none.pth"], 2, "none.pth: no such file"),
        (["inspect", "pyproject.toml"], 1, "is no weight file of a kind that is known"),
        (["inspect", "pyproject.toml", "--from", "nobody"], 2, "dialect='nobody' is unknown"),
        (["inspect", "pyproject.toml", "--set", "gate"], 2, "'gate' is no FIELD=VALUE"),
        (["convert", "pyproject.toml", "x.exe"], 2, "has an ending that no container has"),
        (["convert", "pyproject.toml", "x.safetensors", "--to", "me"], 2, "to='me' is unknown"),
        (["convert", "pyproject.toml", "x", "--format", "me"], 2, "container='me' is unknown"),
        (["inspect", "tests"], 1, "is a folder in which no weight file that is known stands; pass"),
    ],
)
def test_a_wrong_call_says_why(arguments, code, message):
    done = cbam(*arguments)
    assert done.returncode == code
    assert message in " ".join(done.stderr.replace("│", " ").split())


@pytest.mark.parametrize(
    ("target", "message"),
    [("none/a.npz", "there is no folder"), ("", "is a folder; pass the path of a file")],
)
def test_a_target_that_can_not_be_is_said_to_be_none(official, tmp_path, target, message):
    done = cbam("convert", official, tmp_path / target, "--format", "npz")
    assert done.returncode == 2
    assert message in " ".join(done.stderr.replace("│", " ").split())


@pytest.mark.parametrize("command", ["inspect", "convert"])
def test_help_has_examples_and_exit_codes(command):
    done = cbam(command, "--help")
    assert done.returncode == 0
    assert f"cbam {command} " in done.stdout
    assert "Exit codes" in done.stdout


@pytest.fixture(scope="module")
def network(tmp_path_factory):
    """The authors' ResNet-18 for CIFAR-100, as their training script saves it."""
    path = tmp_path_factory.mktemp("network") / "checkpoint.safetensors"
    arrays = NETWORKS["official_resnet18_cifar100"].arrays()
    safetensors.numpy.save_file(arrays, path)
    return path


def test_inspect_says_which_network_a_file_is(network, tmp_path):
    done = cbam("inspect", network, "--json", tmp_path / "facts.json")
    assert (done.returncode, done.stderr) == (0, "")
    words = " ".join(done.stdout.split())
    assert (
        "a whole network, official: Architecture('basic', (2, 2, 2, 2), attention='cbam'" in words
    )
    facts = json.loads((tmp_path / "facts.json").read_text())
    assert facts["architecture"]["stem"] == "cifar"


def test_convert_writes_a_whole_network_where_the_target_has_networks(network, tmp_path):
    done = cbam("convert", network, tmp_path / "net.safetensors")
    assert (done.returncode, done.stderr) == (0, "")
    assert "the whole network: official -> canonical, Architecture(" in done.stdout
    done = cbam("convert", network, tmp_path / "blocks.safetensors", "--to", "elbuco1", "--fold")
    assert done.returncode == 0
    assert "the blocks alone; the whole network goes to a .safetensors file" in done.stdout

"""Modules that are no CBAM, what is left of a module that was probed, and `cbam identify`."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest
import torch
from torch import nn

import cbam_core
import cbam_torch
from cbam_core import CBAMSpec
from crosscheck import identify
from crosscheck.identifying.__main__ import WrongError, answer
from crosscheck.identifying.departure import POINTS
from tests.crosscheck.modules import torch_rows
from tests.crosscheck.modules.torch_faults import FAULTS
from tests.crosscheck.test_cli import cbam

MODULES = "tests/crosscheck/modules"


@pytest.mark.parametrize("name", FAULTS)
def test_says_where_a_module_is_no_cbam(name):
    fault = FAULTS[name]
    found = identify(fault.build(), channels=fault.channels)
    assert not found.is_cbam
    assert str(found).splitlines()[0] == f"not a CBAM: {fault.words}"
    assert found.parts_at == fault.point
    assert found.spec == fault.spec


def test_every_point_has_a_fault():
    assert {fault.point for fault in FAULTS.values()} == set(POINTS)


@pytest.mark.parametrize("name", ["official", "luuuyi", "timm_light", "xmu", "raw", "half"])
def test_what_it_finds_computes_the_same(name):
    """The spec and the weights, in a block of this project, on a map full of ties."""
    row = torch_rows.ROWS[name]
    module = row.build()
    found = identify(module)
    block = cbam_torch.CBAM.from_spec(found.spec)
    cbam_torch.load_canonical(block, found.weights)
    x = torch.relu(torch.randn(2, found.spec.channels, 8, 8, generator=torch.Generator()))
    with torch.no_grad():
        expected = module.float().eval()(x)
        torch.testing.assert_close(block.eval()(x), expected, rtol=1e-5, atol=1e-5)


def state(module):
    """All that could have changed, with tensors as bytes."""
    tensors = {
        n: bytes(t.detach().flatten().view(torch.uint8)) for n, t in module.state_dict().items()
    }
    modes = [part.training for part in module.modules()]
    attributes = [list(vars(part).items()) for part in module.modules()]
    kept = [(name, id(value)) for own in attributes for name, value in own]
    rest = torch.get_num_threads(), torch.random.get_rng_state().numpy().tobytes()
    return tensors, modes, kept, rest, [p.grad for p in module.parameters()]


class Broken(torch_rows.Official):
    """Fails as soon as it is in training."""

    def forward(self, x):
        if self.training:
            raise RuntimeError("out of order")
        return super().forward(x)


@pytest.mark.parametrize("name", ["official", "several_outputs", "scripted", "half"])
def test_leaves_a_module_as_it_was(name):
    module = torch_rows.ROWS[name].build()
    next(module.children()).eval()
    before = state(module)
    identify(module)
    assert state(module) == before


def test_does_not_spoil_a_backward_pass_that_is_under_way():
    module = torch_rows.Luuuyi(32)
    loss = module(torch.randn(1, 32, 5, 5)).sum()
    identify(module)
    loss.backward()
    # The convolution always has a gradient; two hidden units may both be cut off by the relu.
    assert module.sa.conv1.weight.grad.abs().sum() > 0


def test_leaves_a_module_as_it_was_when_it_fails():
    module = Broken()
    before = state(module)
    with pytest.raises(RuntimeError, match="out of order"):
        identify(module)
    assert state(module) == before


@pytest.mark.parametrize(
    ("module", "channels", "error", "message"),
    [
        ([1], None, TypeError, r"module=\[1\] has the type list, which is of no framework"),
        (torch_rows.LuuuyiSpatial(), None, ValueError, "do not show the channels of the map"),
        (torch_rows.Luuuyi(), 1, ValueError, "channels=1 are too few to tell the gates apart"),
        (torch_rows.Luuuyi(), 32, ValueError, "not be called on any map with 32 channels; pass"),
        (nn.Bilinear(4, 4, 4), 4, ValueError, r"\(TypeError: .*missing 1 required positional"),
    ],
)
def test_a_wrong_call_says_why(module, channels, error, message):
    with pytest.raises(error, match=message):
        identify(module, channels=channels)


def test_a_module_that_is_built_by_its_first_call_needs_its_channels():
    module = torch_rows.TorchvisionSe()
    module.fc1, module.fc2 = nn.LazyConv2d(4, 1), nn.LazyConv2d(16, 1)
    with pytest.raises(ValueError, match="do not show the channels"):
        identify(module)
    assert identify(module, channels=16).spec == CBAMSpec.preset("timm_se", 16, hidden=4)


def test_the_text_of_a_cbam():
    assert str(identify(torch_rows.Luuuyi(64, torch_rows.OldLuuuyiChannel).double())).splitlines()[
        2:
    ] == [
        "  presets           paper, luuuyi",
        "  names             luuuyi's",
        "  returns           the refined map",
        "  ties over space   the first takes the whole gradient",
        "  ties over channels the first takes the whole gradient",
        "  note              its attribute ratio=4 asks for 16 hidden units, and it has 4: the "
        "ratio is ignored",
    ]


def test_imports_no_other_framework():
    code = (
        "import sys; from crosscheck import identify; from cbam_torch import CBAM;"
        "identify(CBAM(8)); print(*{'tensorflow', 'keras', 'jax', 'flax'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stdout.strip()) == (0, "")


def test_the_command_finds_a_cbam(tmp_path):
    path = tmp_path / "found.json"
    done = cbam("identify", f"{MODULES}/torch_rows.py:Official", "--json", path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(
        "CBAMSpec(32, mlp_bias=True, spatial_norm=True, norm_momentum=0.01)\n"
    )
    assert "running variance  unbiased" in done.stdout
    facts = json.loads(path.read_text())
    assert (facts["is_cbam"], facts["parts_at"], facts["departures"]) == (True, "", [])
    assert CBAMSpec.from_dict(facts["spec"]) == torch_rows.ROWS["official"].spec
    assert facts["ties"] == {"space": "first", "channels": "first"}
    assert facts["names"]["spatial.conv.kernel"] == ["SpatialGate.spatial.conv.weight"]


def test_the_command_says_what_is_none():
    done = cbam("identify", f"{MODULES}/torch_faults.py:SpatialNeverApplied")
    assert done.returncode == 1
    assert done.stdout.splitlines()[:3] == [
        "not a CBAM: its spatial gate is never applied",
        "  parts at          the spatial gate",
        "  nearest spec      CBAMSpec(64, order='channel')",
    ]


FILE = """
import torch

instance = torch.nn.Identity()
number = 3

def fails():
    raise RuntimeError("no weights here")

def other():
    return 3

def dies():
    import os
    os._exit(3)
"""


@pytest.fixture
def file(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "path", [*sys.path])
    path = tmp_path / "file.py"
    path.write_text(FILE)
    return path


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("make", "file.py has no make; pass the name of a function, class or module"),
        ("fails", "fails raised RuntimeError in line 8: no weights here"),
        ("number", "number raised TypeError: 'int' object is not callable"),
        ("other", "module=3 has the type int, which is of no framework that is known; pass a"),
        ("instance", "do not show the channels of the map that it takes; say how many there"),
    ],
)
def test_a_factory_that_makes_no_module_is_a_wrong_call(file, name, message):
    with pytest.raises(WrongError) as caught:
        answer(file, name, None)
    assert message in str(caught.value)


def test_a_file_that_can_not_be_loaded_is_a_wrong_call(file):
    file.write_text("import nothing_of_this_name")
    with pytest.raises(WrongError, match="raised ModuleNotFoundError in line 1: No module"):
        answer(file, "make", None)
    with pytest.raises(WrongError, match=r"is no Python file; pass one whose name ends with \.py"):
        answer(file.rename(file.with_suffix(".txt")), "make", None)


@pytest.mark.parametrize(
    ("factory", "message"),
    [
        ("FILE", "names no factory; pass FILE.py:FACTORY"),
        ("none.py:make", "none.py: no such file"),
        ("FILE:other", "which is of no framework that is known"),
        ("FILE:dies", "its process ended early"),
    ],
)
def test_a_wrong_call_of_the_command_exits_with_2(file, factory, message):
    done = cbam("identify", factory.replace("FILE", str(file)))
    assert done.returncode == 2
    assert message in " ".join(done.stderr.replace("│", " ").split())


def test_help_says_that_code_is_run_and_has_examples():
    done = cbam("identify", "--help")
    assert done.returncode == 0
    assert "only pass files that you trust" in " ".join(done.stdout.split())
    assert "cbam identify blocks.py:SpatialGate --channels 64" in done.stdout
    assert "0 it is a CBAM, 1 it is none, 2 the call was wrong" in done.stdout


def test_weights_can_be_written_as_they_are(tmp_path):
    found = identify(torch_rows.Raw(order="parallel"))
    cbam_core.write(tmp_path / "block.safetensors", found.weights, found.spec)
    again = cbam_core.read(tmp_path / "block.safetensors")
    assert again.spec == found.spec
    assert all(np.array_equal(again.weights[n], found.weights[n]) for n in found.weights)

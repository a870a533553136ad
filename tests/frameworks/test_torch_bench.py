"""The public structures that `cbam bench` measures compute what their originals do."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import cbam_core
from cbam_core import reference
from crosscheck.benchmark.structures import STRUCTURES
from tests.compare import assert_equal


@pytest.mark.parametrize("name", STRUCTURES)
@pytest.mark.parametrize("training", [False, True], ids=["eval", "train"])
def test_a_structure_is_the_cbam_of_its_name(name, training, tmp_path):
    """Its weights, read from a file as the original's are, give the reference the same pass."""
    torch.manual_seed(0)
    block = STRUCTURES[name](48).double().train(training)
    with torch.no_grad():
        for weight in block.state_dict().values():
            weight += torch.rand_like(weight.double()).to(weight.dtype)
    torch.save(block.state_dict(), tmp_path / "block.pth")
    found = cbam_core.read(tmp_path / "block.pth")
    assert found.dialect == name
    x = torch.randn(2, 48, 9, 7, dtype=torch.float64, requires_grad=True)
    cotangent = torch.randn_like(x)
    y = block(x)
    (dx,) = torch.autograd.grad(y, x, cotangent)
    step = reference.run(found.spec, found.weights, _channels_last(x), training=training)
    expected = step.quantities(_channels_last(cotangent))
    actual = {"output": _channels_last(y), "grad:input": _channels_last(dx)}
    assert_equal(actual, {name: expected[name] for name in actual}, 1e-12)


def _channels_last(tensor: torch.Tensor) -> np.ndarray:
    return tensor.detach().movedim(1, -1).numpy()

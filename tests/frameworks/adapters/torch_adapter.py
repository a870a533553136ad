"""How the conformance test drives cbam_torch; arrays are NumPy, in canonical layout."""

import numpy as np
import torch

import cbam_torch as package
from cbam_torch.evaluate import evaluate

__all__ = ["LOADS", "build", "call", "evaluate", "gate", "package", "save"]


def build(name, *arguments, dtype="float32", **keywords):
    """An instance of the package's class `name` (or of its from_spec, for "CBAM.from_spec")."""
    constructor = package
    for part in name.split("."):
        constructor = getattr(constructor, part)
    return constructor(*arguments, dtype=getattr(torch, dtype), **keywords)


def call(module, x, training=False):
    """module(x) for x (N, *S, C)."""
    return _last(module.train(training)(_first(x)))


def gate(module, x):
    """module.gate(x) for x (N, *S, C)."""
    return _last(module.eval().gate(_first(x)))


def _first(x):
    # A wrong number of axes or of channels has to arrive at the module as it is.
    array = np.moveaxis(x, -1, 1) if x.ndim > 1 else x
    return torch.from_numpy(np.ascontiguousarray(array))


def _last(y):
    return np.moveaxis(y.detach().numpy(), 1, -1)


def save(module, folder):
    """The files in which its users save a module."""
    torch.save(module.state_dict(), folder / "module.pth")
    torch.save({"state_dict": module.state_dict(), "epoch": 3}, folder / "training.pth.tar")
    return [folder / "module.pth", folder / "training.pth.tar"]


def _load(module, path):
    module.load_state_dict(torch.load(path, weights_only=True))


# Ending, dialect, and how its users load such a file into a module.
LOADS = [(".pth", None, _load)]

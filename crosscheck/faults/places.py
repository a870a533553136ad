"""Where in a package a fault goes, by the names that all packages share."""

from __future__ import annotations

from collections.abc import Callable

from crosscheck.faults.fault import Place, Target

Where = Callable[[Target], Place]


def pool(name: str) -> Where:
    """A pool of the channel gate: (x, axes)."""
    return lambda target: (target.ops.POOLS, name)


def gate(name: str) -> Where:
    """A gate function: (logits)."""
    return lambda target: (target.ops.GATES, name)


def function(name: str) -> Where:
    """A function of ops. "avg" and "max" are the spatial gate's pools there: (x, axes)."""
    return lambda target: (target.ops, name)


def method(cls: str, name: str) -> Where:
    """A method of a block or a gate."""
    return lambda target: (getattr(target.attention, cls), name)


def convolution(target: Target) -> Place:
    """The convolution of the spatial gate: (layer, x)."""
    return target.convolution


def norm(target: Target) -> Place:
    """The batch norm: (layer, x, and the mode where that is an argument)."""
    return target.norm


def update(target: Target) -> Place:
    """What moves the running statistics; its arguments are the library's own, see `norm`."""
    return target.update


def load(target: Target) -> Place:
    """The package's `load_canonical`, which `evaluate` calls: (block, weights)."""
    return target.evaluate, "load_canonical"

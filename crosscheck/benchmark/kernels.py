"""What a package says of its kernels."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable
from types import ModuleType
from typing import Any


def switch(constructor: Callable[..., Any], on: bool) -> dict[str, Any]:
    """The argument that turns the kernels of what is constructed on or off, where it has one."""
    has_switch = "kernels" in inspect.signature(constructor).parameters
    return {"kernels": on} if has_switch else {}


def set_all(parts: Iterable[Any], on: bool) -> None:
    """Turn the kernels of every part of a network on or off that has any."""
    for part in parts:
        if hasattr(part, "kernels"):
            part.kernels = on


def path(ops: ModuleType, x: Any, on: bool) -> str:
    """How a block on x computes its primitives."""
    return ops.path(x, kernels=on) if hasattr(ops, "path") else "composition"

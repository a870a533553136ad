"""What a package says of its kernels."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from types import ModuleType
from typing import Any


def switch(constructor: Callable[..., Any], on: bool) -> dict[str, Any]:
    """The argument that turns the kernels of what is constructed on or off, where it has one."""
    has_switch = "kernels" in inspect.signature(constructor).parameters
    return {"kernels": on} if has_switch else {}


def path(ops: ModuleType, x: Any, on: bool) -> str:
    """How a block on x computes its primitives."""
    return ops.path(x) if on and hasattr(ops, "path") else "composition"

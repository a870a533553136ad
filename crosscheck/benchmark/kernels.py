"""The kernels of a network that is there."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any


def set_all(parts: Iterable[Any], on: bool) -> None:
    """Turn the kernels of every part of a network on or off that has any."""
    for part in parts:
        if hasattr(part, "kernels"):
            part.kernels = on

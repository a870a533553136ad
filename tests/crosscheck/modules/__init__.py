"""Small modules in the manner of public CBAMs, and the spec of each, for `identify` to find."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from cbam_core import CBAMSpec


@dataclass(frozen=True)
class Row:
    """A module to identify.

    Attributes:
        build: makes it.
        spec: what it has to be found to be.
        facts: attributes of `Identified` with their values.
        channels: what `identify` is told.
    """

    build: Callable[[], Any]
    spec: CBAMSpec
    facts: Mapping[str, Any] = field(default_factory=dict)
    channels: int | None = None

"""What is measured beside others: an entry, and the candidate that it is in one mode."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple


class Model(NamedTuple):
    """A block or network as the files of `libraries` run it.

    Attributes:
        call: x -> y; for JAX (weights, x) -> (y, the other state after the pass).
        weights: what is differentiated by.
    """

    call: Callable[..., Any]
    weights: Any


@dataclass(frozen=True)
class Entry:
    """A block or network in every mode.

    Attributes:
        name: of `plan.CANDIDATES` or `plan.NETWORK_CANDIDATES`.
        build: makes the model, for training or for evaluation.
        path: how one of ours computes its primitives.
    """

    name: str
    build: Callable[[bool], Model]
    path: str = ""


@dataclass(frozen=True)
class Candidate:
    """What is measured.

    Attributes:
        runs: pass -> what is timed.
        counts: quantity -> what counts its bytes.
    """

    name: str
    mode: str
    path: str
    runs: Mapping[str, Callable[[], Any]]
    counts: Mapping[str, Callable[[], int | None]] = field(default_factory=dict)

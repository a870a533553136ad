"""Faults that public ports of CBAM have had, and others, planted one at a time.

A fault that no case reveals would pass for equality, so `cbam check --faults` plants every one of
these in every framework and demands that the comparison turns red. A fault is planted in the
place where a programmer would make it: in the code of the package (a function replaced at run
time), in what is built (another spec), in how weights are read, or in what a step leaves behind.
"""

from __future__ import annotations

import contextlib
import importlib
import operator
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import ModuleType
from typing import Any
from unittest import mock

import numpy as np

from cbam_core import CBAMSpec
from crosscheck.frameworks import Framework

Weights = dict[str, np.ndarray]
Arrays = dict[str, np.ndarray]


@dataclass(frozen=True)
class Target:
    """The modules of a package into which a fault is planted."""

    ops: ModuleType
    attention: ModuleType
    stop_gradient: Callable[[Any], Any]
    as_tensor: Callable[[np.ndarray], Any]

    @classmethod
    def of(cls, framework: Framework) -> Target:
        attention = importlib.import_module(f"{framework.package}.attention")
        functions = (
            _resolve(framework.library.stop_gradient),
            _resolve(framework.library.as_tensor),
        )
        return cls(attention.ops, attention, *functions)


def _resolve(reference: str) -> Any:
    module, _, path = reference.partition(":")
    return operator.attrgetter(path)(importlib.import_module(module))


@dataclass(frozen=True)
class Pass:
    """What an implementation is asked to run; `count` is the number of positions, N times S."""

    spec: CBAMSpec
    weights: Weights
    training: bool
    count: int


Patch = tuple[Any, str, Any]


def no_patches(target: Target) -> list[Patch]:
    return []


def unaltered(one: Pass) -> Pass:
    return one


def uncorrupted(arrays: Arrays, one: Pass) -> Arrays:
    return arrays


@dataclass(frozen=True)
class Fault:
    """One mistake, and a case of `cases.default_cases` that reveals it.

    Attributes:
        about: the mistake in words.
        case, mode, dtype: where it shows.
        patches: (object, attribute, replacement) for each part of the package to be replaced.
        alter: what the implementation runs instead of the pass.
        corrupt: what becomes of the resulting arrays.
    """

    name: str
    about: str
    case: str
    mode: str = "eval"
    dtype: str = "float64"
    patches: Callable[[Target], list[Patch]] = no_patches
    alter: Callable[[Pass], Pass] = unaltered
    corrupt: Callable[[Arrays, Pass], Arrays] = uncorrupted


@contextlib.contextmanager
def planted(fault: Fault | None, target: Target) -> Iterator[None]:
    """The package with the code of `fault` in it; afterwards as it was."""
    patches = fault.patches(target) if fault else []
    with contextlib.ExitStack() as stack:
        for place, attribute, replacement in patches:
            if isinstance(place, dict):
                stack.enter_context(mock.patch.dict(place, {attribute: replacement}))
            else:
                stack.enter_context(mock.patch.object(place, attribute, replacement))
        if patches:
            # JAX keeps what it compiled by the Python function, which a patch leaves the same.
            stack.callback(_forget_compiled)
            _forget_compiled()
        yield


def _forget_compiled() -> None:
    if "jax" in sys.modules:
        sys.modules["jax"].clear_caches()

"""Faults that public ports of CBAM have had, and others, planted one at a time.

A fault that no case reveals would pass for equality, so `cbam check --faults` plants every one of
these in the code of every package and demands that the comparison turns red.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import ModuleType
from typing import Any
from unittest import mock

from cbam_core.slots import Convention
from crosscheck.frameworks import Framework

# A module, a class or a dictionary, and the name in it of what is replaced.
Place = tuple[Any, str]


@dataclass(frozen=True)
class Target:
    """The package into which a fault is planted: three of its modules, and what the registry tells.

    Attributes:
        package: its name.
        convolution, norm, update, stop_gradient, as_tensor, convention: see `frameworks.Library`.
    """

    ops: ModuleType
    attention: ModuleType
    evaluate: ModuleType
    convolution: Place
    norm: Place
    update: Place
    stop_gradient: Callable[[Any], Any]
    as_tensor: Callable[[Any], Any]
    package: str
    convention: Convention

    @classmethod
    def of(cls, framework: Framework) -> Target:
        attention = importlib.import_module(f"{framework.package}.attention")
        library = framework.library
        return cls(
            attention.ops,
            attention,
            importlib.import_module(f"{framework.package}.evaluate"),
            convolution=_place(library.convolution),
            norm=_place(library.norm),
            update=_place(library.update),
            stop_gradient=_found(*_place(library.stop_gradient)),
            as_tensor=_found(*_place(library.as_tensor)),
            package=framework.package,
            convention=library.convention,
        )


def _place(reference: str) -> Place:
    """Where "module:function" or "module:Class.method" stands."""
    module, _, path = reference.partition(":")
    *outer, attribute = path.split(".")
    return functools.reduce(getattr, outer, importlib.import_module(module)), attribute


def _found(owner: Any, name: str) -> Any:
    return owner[name] if isinstance(owner, dict) else getattr(owner, name)


@dataclass(frozen=True)
class Fault:
    """One mistake, and a case of `cases.default_cases` that reveals it.

    Attributes:
        about: the mistake in words.
        case, mode, dtype: where it shows.
        where: the place of the code that is replaced, see `places`.
        faulty: the code that runs there, given the target, the right code and the arguments.
        traced: whether that is a part of what a framework compiles.
    """

    name: str
    about: str
    case: str
    where: Callable[[Target], Place]
    faulty: Callable[..., Any]
    mode: str = "eval"
    dtype: str = "float64"
    traced: bool = True


@contextlib.contextmanager
def planted(fault: Fault | None, target: Target) -> Iterator[None]:
    """The package with `fault` in its code; afterwards as it was."""
    if fault is None:
        yield
        return
    owner, name = fault.where(target)
    right, faulty = _found(owner, name), fault.faulty

    # Keras reads off the signature whether a layer takes `training`.
    @functools.wraps(right)
    def replacement(*arguments: Any, **options: Any) -> Any:
        return faulty(target, right, *arguments, **options)

    patch: Any = (
        mock.patch.dict(owner, {name: replacement})
        if isinstance(owner, dict)
        else mock.patch.object(owner, name, replacement)
    )
    # Kernels would go past what is planted in the plain composition.
    with patch, mock.patch.dict(os.environ, CBAM_KERNELS="off"):
        if fault.traced:
            _forget_compiled(target)
        try:
            yield
        finally:
            if fault.traced:
                _forget_compiled(target)


def _forget_compiled(target: Target) -> None:
    """Clear what jax.jit keeps by a function of a module, which a patch leaves the same."""
    train = sys.modules.get(f"{target.package}.train")
    functions = [*vars(target.evaluate).values(), *(vars(train).values() if train else ())]
    for function in functions:
        function = getattr(function, "jitted_fn", function)  # nnx.jit's
        if hasattr(function, "clear_cache"):
            function.clear_cache()

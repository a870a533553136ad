"""Where a CBAM goes in a model that somebody else wrote, and which one it is there.

Each package walks and runs the models of its framework; what is chosen, and what is said of a
place that can't take a CBAM, is the same in all.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Mapping, Sequence
from typing import Any

from cbam_core.architectures import attention_fields
from cbam_core.placements import PLACEMENTS
from cbam_core.spec import CBAMSpec


def chosen(where: Any, modules: Mapping[str, Any], closed: type) -> list[str]:
    """The paths that `where` means, in the order of `modules`.

    Args:
        where: a pattern of paths as fnmatch has them, in which * also stands for dots; "block" or
            "stem_and_tail" (see `cbam_core.placements`); a type; a predicate of (path, module); or
            a list of these.
        modules: dotted path -> module, of all of the model.
        closed: the class of CBAMs, inside of which nothing is meant.

    Raises:
        ValueError, TypeError: nothing is meant, by all of `where` or by one of the list.

    >>> chosen("*.norm", {"stem.norm": 0.5, "attention": 1, "attention.spatial.norm": 2.5}, int)
    ['stem.norm']
    """
    insides = tuple(f"{path}." for path, module in modules.items() if isinstance(module, closed))
    places = {path: module for path, module in modules.items() if not path.startswith(insides)}
    found: set[str] = set()
    for choice in where if isinstance(where, list | tuple) else [where]:
        meant = _meant(choice, places)
        if not meant:
            raise ValueError(
                f"where={choice!r} names no module of the model; choose from {_listed(places)}"
            )
        found.update(meant)
    return [path for path in places if path in found]


def inserted_spec(
    path: str, outputs: Sequence[Any], spec: CBAMSpec | str | None, *, channel_axis: int
) -> CBAMSpec:
    """The spec of the CBAM behind the module at `path`, with the channels and the rank found.

    Args:
        outputs: what the module returned each time that it was called.
        spec: a preset's name or a CBAMSpec, whose channels and rank do not count; the preset
            "identity" if None.
        channel_axis: 1 (channels first) or -1 (channels last).

    Raises:
        ValueError, TypeError: no CBAM can refine what the module returns.
    """
    if not outputs:
        raise ValueError(
            f"where={path!r} is not called when the model runs; choose a module that is"
        )
    fields = attention_fields("identity" if spec is None else spec)
    specs = set()
    for output in outputs:
        shape = _map_shape(path, output)
        specs.add(CBAMSpec(shape[channel_axis], **{**fields, "rank": len(shape) - 2}))
    if len(specs) > 1:
        shapes = " and ".join(str(tuple(output.shape)) for output in outputs)
        raise ValueError(
            f"where={path!r} gives maps of several widths or ranks, {shapes}, and a CBAM refines "
            f"maps of one; choose another module"
        )
    return specs.pop()


def _meant(choice: Any, places: Mapping[str, Any]) -> list[str]:
    if isinstance(choice, str):
        # A module of that name is what its owner means.
        if choice in PLACEMENTS and choice not in places:
            return list(PLACEMENTS[choice](places))
        return [path for path in places if fnmatch.fnmatchcase(path, choice)]
    if isinstance(choice, type):
        return [path for path, module in places.items() if isinstance(module, choice)]
    if callable(choice):
        return [path for path, module in places.items() if choice(path, module)]
    raise TypeError(
        f"where={choice!r} is no pattern, type or predicate; pass a string such as '*.norm2', a "
        f"class, a function of (path, module), or a list of these"
    )


def _listed(modules: Mapping[str, Any]) -> str:
    paths = [path for path in modules if path]
    more = f" and {len(paths) - 12} more" if len(paths) > 12 else ""
    return ", ".join(paths[:12]) + more


def _map_shape(path: str, output: Any) -> tuple[int, ...]:
    shape, dtype = getattr(output, "shape", None), getattr(output, "dtype", None)
    if shape is None or not 3 <= len(shape) <= 5:
        found = type(output).__name__ if shape is None else f"an array of shape {tuple(shape)}"
        raise ValueError(
            f"where={path!r} gives {found}, and a CBAM refines feature maps, of 3 to 5 axes; "
            f"choose a module that gives one"
        )
    name = str(getattr(dtype, "name", dtype)).rpartition(".")[2]
    if "float" not in name:
        raise TypeError(
            f"where={path!r} gives a map of dtype {name}, and a CBAM refines floating-point ones; "
            f"choose a module that gives one"
        )
    return tuple(shape)

"""What a factory builds: a network's architecture and values, drawn anew or read from a file."""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from cbam_core.architectures import ARCHITECTURES, Architecture, attention_fields, network_shapes
from cbam_core.initial import initial_network
from cbam_core.spec import CBAMSpec

if TYPE_CHECKING:
    from cbam_core.checkpoints import Checkpoint

Values = dict[str, np.ndarray]


def plan(
    name: str,
    *,
    weights: os.PathLike[str] | str | Checkpoint | None,
    spec: CBAMSpec | str | None,
    features_only: bool,
    init: str | None,
    seed: int,
    **choices: Any,
) -> tuple[Architecture, Values | None]:
    """The architecture of a factory's network, and its canonical weights.

    Args:
        name: of the factory, a key of `ARCHITECTURES`.
        weights: a file of a whole network in any dialect, or what `read` found in it. The
            architecture comes from there, and what is chosen besides must be in accord with it.
            Two things can be new, and a warning says what is: an attention where the file has
            none, and the head if head="new".
        spec: of the attention.
        features_only: whether the network has no head.
        init, seed: a scheme of `initial_network` for what is new; without `weights` None is the
            framework's own initial values, for which no values are returned.
        choices: fields of an `Architecture`; None is what the file has, or the default.

    Raises:
        FileNotFoundError, ImportError, CheckpointError: as `cbam_core.read`.
        ValueError: no such network, or another one in the file.
    """
    given = {field: value for field, value in choices.items() if value is not None}
    if spec is not None:
        given["spec"] = tuple(attention_fields(spec).items())
    if weights is None:
        architecture = Architecture.named(name, **given)
        drawn = None if init is None else initial_network(architecture, init, seed=seed)
        return architecture, drawn
    found = _read(weights)
    _check_factory(name, found)
    is_head_new = features_only or given.get("head") == "new"
    if given.get("head") == "new":
        del given["head"]
    architecture = _as_given(found, given, is_head_new)
    values = {
        name: array
        for name, array in found.weights.items()
        if not (is_head_new and name.startswith("head."))
    }
    new = [name for name in network_shapes(architecture) if name not in values]
    drawn = initial_network(architecture, init or "authors", seed=seed) if new else {}
    if untrained := _modules(new, without_head=features_only):
        warnings.warn(
            f"{found.path} has no weights for {untrained}: they are new, and not trained",
            stacklevel=4,
        )
    return architecture, {**drawn, **values}


def _read(weights: os.PathLike[str] | str | Checkpoint) -> Checkpoint:
    # Whoever builds a network anew needs no tables of public files.
    from cbam_core.checkpoints import Checkpoint, read

    return weights if isinstance(weights, Checkpoint) else read(weights)


def _check_factory(name: str, found: Checkpoint) -> None:
    """Raise a ValueError if the network of a file is not what a factory builds."""
    if _is_built_by(name, found.architecture):
        return
    fitting = [other for other in ARCHITECTURES if _is_built_by(other, found.architecture)]
    advice = f"; call {' or '.join(fitting)}" if fitting else ", and no factory builds it"
    depths = ", ".join(map(str, found.architecture.depths))
    raise ValueError(
        f"weights={found.path!r} holds a network of {found.architecture.kind} blocks, {depths} "
        f"in its stages, which is no {name}{advice}"
    )


def _is_built_by(name: str, architecture: Architecture) -> bool:
    base = Architecture.named(name)
    same = ("kind", "depths", "groups", "group_width")
    if any(getattr(base, field) != getattr(architecture, field) for field in same):
        return False
    widths = [stage[0].units[-1].outputs for stage in architecture.stages]
    usual = [stage[0].units[-1].outputs for stage in base.stages]
    takes_any_width = name in ("wide_resnet18", "mobilenet")
    ratios = {round(one / other, 1) for one, other in zip(widths, usual, strict=True)}
    return widths == usual or (takes_any_width and len(ratios) == 1)


def _as_given(found: Checkpoint, given: dict[str, Any], is_head_new: bool) -> Architecture:
    """The file's architecture, with the attention and the head that are asked for."""
    own = found.architecture
    free = {"num_classes"} if is_head_new else set()
    free |= {"attention", "spec", "placement"} if own.attention is None else set()
    changes = {field: value for field, value in given.items() if field in free}
    for field, value in given.items():
        if field not in free and not _is_same(own, field, value):
            advice = '; pass head="new" for a new one' if field == "num_classes" else ""
            raise ValueError(
                f"{field}={value!r}, and the network of {found.path} has {getattr(own, field)!r}; "
                f"leave it out{advice}"
            )
    if not is_head_new and not any(name.startswith("head.") for name in found.weights):
        raise ValueError(f'weights={found.path!r} has no head; pass head="new" or features_only')
    if is_head_new:
        changes["head"] = "plain"
    return replace(own, **changes)


def _is_same(own: Architecture, field: str, value: Any) -> bool:
    if field == "widen":
        width = Architecture(own.kind, own.depths, widen=value) if own.kind != "separable" else None
        return (width or replace(own, widen=value)).features == own.features
    if field == "spec":
        return replace(own, spec=value).attention_at(64) == own.attention_at(64)
    return getattr(own, field) == value


def _modules(names: list[str], *, without_head: bool) -> str:
    """The paths of attentions and of the head to which weights belong, a few of them."""
    parts = ("channel", "spatial", "linear", "reduce")
    paths: Mapping[str, None] = dict.fromkeys(
        ".".join(part for part in _until(name.split("."), parts)) for name in names
    )
    shown = [path for path in paths if not (without_head and path == "head")]
    return ", ".join(shown[:3]) + (f" and {len(shown) - 3} more" if len(shown) > 3 else "")


def _until(parts: list[str], ends: tuple[str, ...]) -> list[str]:
    return parts[: next((n for n, part in enumerate(parts) if part in ends), len(parts))]

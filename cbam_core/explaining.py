"""What attention maps are called, what Grad-CAM can explain, and what is said where it can't.

Each package walks and runs the models of its framework; names and errors are the same in all.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeVar

import numpy as np

from cbam_core.architectures import Architecture
from cbam_core.spec import CBAMSpec

Map = TypeVar("Map")


def named_gates(
    calls: Iterable[tuple[str, CBAMSpec, Map | None, Map | None]], model: Any
) -> dict[str, Map]:
    """The gates of a model by name, in the order in which they were computed.

    Args:
        calls: path, spec, Mc and Ms of each block each time that it was called.
        model: which they were found in.

    Raises:
        ValueError: there are none.

    >>> spec = CBAMSpec(4, order="spatial_channel")
    >>> named_gates([("neck", spec, 0.25, 0.5), ("neck", spec, 0.75, 1.0)], None)
    {'neck.spatial': 0.5, 'neck.channel': 0.25, 'neck.spatial#2': 1.0, 'neck.channel#2': 0.75}
    """
    named: dict[str, Map] = {}
    for path, spec, channel, spatial in calls:
        gates = {"channel": channel, "spatial": spatial}
        for kind in reversed(gates) if spec.order == "spatial_channel" else gates:
            gate = gates[kind]
            if gate is not None:
                named[_unused(f"{path}.{kind}".removeprefix("."), named)] = gate
    if not named:
        raise ValueError(
            f"model={type(model).__name__} calls no attention; pass a CBAM, ChannelAttention, "
            f"SpatialAttention or SqueezeExcitation, a network that was built with attention=, or "
            f"put one in with insert_cbam"
        )
    return named


def explained_path(at: str | None, paths: Iterable[str], model: Any) -> str:
    """The path of the module whose output Grad-CAM explains; the last stage of a network if None.

    Args:
        at: what the caller asked for.
        paths: of all modules.
        model: the model, which has an `architecture` if it is one of our networks.

    Raises:
        ValueError: there is no such module.

    >>> explained_path("stage1.block1", ["stem", "stage1", "stage1.block1"], None)
    'stage1.block1'
    """
    architecture = getattr(model, "architecture", None)
    if at is None and isinstance(architecture, Architecture):
        return f"stage{len(architecture.stages)}"
    known = list(paths)
    if at in known:
        return str(at)
    reason = (
        f"at=None, and the model ({type(model).__name__}) is no network of this package, whose "
        f"last stage would be known"
        if at is None
        else f"at={at!r} names no module of the model"
    )
    raise ValueError(f"{reason}; choose from {_listed(known)}")


def check_map(path: str, outputs: Sequence[Any]) -> None:
    """Refuse a module that did not return one feature map.

    Args:
        path: of the module.
        outputs: what it returned each time that it was called.

    Raises:
        ValueError: it is no map, of 3 to 5 axes, or there is not exactly one.
    """
    if len(outputs) != 1:
        times = f"called {len(outputs)} times" if outputs else "not called"
        raise ValueError(
            f"at={path!r} is {times} when the model runs, and Grad-CAM explains one map; choose a "
            f"module that is called once"
        )
    shape = getattr(outputs[0], "shape", None)
    if shape is None or not 3 <= len(shape) <= 5:
        found = type(outputs[0]).__name__ if shape is None else f"an array of shape {tuple(shape)}"
        raise ValueError(
            f"at={path!r} gives {found}, and Grad-CAM explains feature maps, of 3 to 5 axes; "
            f"choose a module that gives one"
        )


def check_logits(logits: Any) -> None:
    """Refuse the output of a model that is no (N, num_classes)."""
    shape = getattr(logits, "shape", None)
    if shape is None or len(shape) != 2:
        found = type(logits).__name__ if shape is None else f"an array of shape {tuple(shape)}"
        raise ValueError(
            f"model gives {found}, and Grad-CAM explains logits (N, num_classes); pass a "
            f"classifier that returns them alone"
        )


def checked_target(target: Any, samples: int | None, classes: int) -> int | list[int]:
    """`target` in plain numbers: a class for all samples, or one for each.

    Args:
        samples: how many there are; None where that is not known yet.

    Raises:
        TypeError, ValueError: it is neither, or there is no such class.

    >>> import numpy as np
    >>> checked_target(np.array([3, 4]), samples=2, classes=10)
    [3, 4]
    """
    # An array of torch may be on a device that NumPy does not reach.
    chosen = np.asarray(target.tolist() if hasattr(target, "tolist") else target)
    if chosen.dtype.kind not in "iu":
        raise TypeError(
            f"target={target!r} is no class; pass an int, one for each sample, or None for the "
            f"class that the model predicts"
        )
    if chosen.ndim > 1 or (chosen.ndim and samples not in (None, len(chosen))):
        raise ValueError(
            f"target has shape {chosen.shape}, expected one class for each of {samples} samples, "
            f"or an int for all"
        )
    outside = chosen[(chosen < 0) | (chosen >= classes)]
    if outside.size:
        raise ValueError(
            f"target={outside.flat[0]} is no class of a model with {classes}; pass 0 to "
            f"{classes - 1}"
        )
    return chosen.tolist()


def _unused(name: str, names: Mapping[str, Any]) -> str:
    """The name itself, or with the number of the call behind it where a block is called again."""
    number = 1 + sum(other.partition("#")[0] == name for other in names)
    return name if number == 1 else f"{name}#{number}"


def _listed(paths: Iterable[str]) -> str:
    """The paths with the fewest dots, and how many others there are."""
    named = sorted((path for path in paths if path), key=lambda path: path.count("."))
    more = f" and {len(named) - 12} more" if len(named) > 12 else ""
    return ", ".join(named[:12]) + more

"""How foreign modules are called: their names for the mode, and the arrays that they return."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

# What modules call the argument that switches to training, and to evaluation.
_TRAINING = ("training", "train", "is_training")
_EVALUATION = ("use_running_average", "deterministic")


def mode_arguments(function: Callable[..., Any], training: bool) -> dict[str, bool]:
    """The arguments by which `function` is told the mode."""
    accepted = inspect.signature(function).parameters
    names = dict.fromkeys(_TRAINING, training) | dict.fromkeys(_EVALUATION, not training)
    return {name: value for name, value in names.items() if name in accepted}


def leaves(returned: Any) -> list[Any]:
    """The arrays in what a module returns: itself, or those of a tuple, list or dict."""
    if isinstance(returned, Mapping):
        return leaves(list(returned.values()))
    if isinstance(returned, (tuple, list)):
        return [leaf for one in returned for leaf in leaves(one)]
    return [] if returned is None else [returned]

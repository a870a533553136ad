"""Nested dicts as flat names with slashes, and back."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from cbam_core.contents import MAX_HEADER, Contents

MAX_DEPTH = 64
# What a value costs besides its name, so that empty lists are not free.
_COST = 16

# Under this name metadata travels in containers that hold nothing but trees, or arrays.
RESERVED = "__cbam__"


def flatten(tree: object, convert: Callable[[Any], Any]) -> Contents:
    """The arrays and facts in dicts and lists, however deep, by their path.

    A pickle of a few bytes may hold one list 10^9 times; what is walked through is bounded, so
    that this ends.

    Args:
        convert: a leaf to an array, a number, a text, a bool or None.

    Raises:
        ValueError: a leaf is something else, a name is there twice, or it is too much.

    >>> contents = flatten({"state_dict": {"w": np.zeros(2)}, "epoch": 90}, lambda leaf: leaf)
    >>> list(contents.arrays), contents.facts
    (['state_dict/w'], {'epoch': 90})
    """
    arrays: dict[str, np.ndarray] = {}
    facts: dict[str, Any] = {}
    left = MAX_HEADER

    def walk(name: str, value: Any, depth: int) -> None:
        nonlocal left
        left -= len(name) + _COST
        if left < 0 or depth > MAX_DEPTH:
            raise ValueError("it nests more, or deeper, than any weights do")
        if not isinstance(value, (Mapping, list, tuple)):
            value = convert(value)
        if isinstance(value, (Mapping, list, tuple)):
            pairs = value.items() if isinstance(value, Mapping) else enumerate(value)
            for key, one in pairs:
                if not isinstance(key, (str, int)):
                    raise ValueError(f"a key in {name!r} is a {type(key).__name__}, not a text")
                walk(f"{name}/{key}" if depth else str(key), one, depth + 1)
            return
        if name in arrays or name in facts or not depth:
            raise ValueError(f"{name!r} is there twice" if depth else "it has no names")
        if isinstance(value, np.ndarray):
            arrays[name] = value
        elif value is None or isinstance(value, (bool, int, float, str)):
            left -= len(str(value))
            facts[name] = value
        else:
            raise ValueError(f"{name!r} is a {type(value).__name__}, no array, number or text")

    walk("", tree, 0)
    return Contents(arrays, facts)


def nest(contents: Contents, convert: Callable[[np.ndarray], Any]) -> dict[str, Any]:
    """Dicts of which `flatten` gives the same names.

    Raises:
        ValueError: a fact has the name of an array.

    >>> nest(Contents({"a/b": np.zeros(2)}, {"epoch": 90}), np.ndarray.tolist)
    {'a': {'b': [0.0, 0.0]}, 'epoch': 90}
    """
    twice = contents.arrays.keys() & contents.facts.keys()
    if twice:
        raise ValueError(f"{', '.join(sorted(twice))}: an array and a fact have this name")
    flat = {name: convert(array) for name, array in contents.arrays.items()} | dict(contents.facts)
    tree: dict[str, Any] = {}
    for name, value in flat.items():
        node, start = tree, 0
        for end in (place for place, letter in enumerate(name) if letter == "/"):
            # Where a leaf has the name of a path, the path goes on in the key: "a" and "a/b".
            if name[:end] not in flat:
                node = node.setdefault(name[start:end], {})
                start = end + 1
        node[name[start:]] = value
    return tree

"""What TensorFlow 2 calls a variable: its path through the objects that were saved.

The key of a variable is the shortest path to it, and that may be a list that Keras keeps, of an
optimizer's variables or of a model's. So the graph of objects that stands in the checkpoint is
walked again, attributes first: "model/channel/reduce/kernel" and not
"optimizer/_trainable_variables/1". Where all paths lead through what Keras makes up, as they do
in a functional model, the name that the variable was created with takes the place of that part.
"""

from __future__ import annotations

import heapq
import itertools
import re
from collections.abc import Sequence
from typing import Any

MAX_DEPTH = 50


def names(nodes: Sequence[Any]) -> dict[str, str]:
    """Key in the checkpoint -> name, of the variables among the nodes of a TrackableObjectGraph."""
    parents = _shortest_paths(nodes)
    return {
        attribute.checkpoint_key: _name(_path(number, parents), attribute.full_name)
        for number, node in enumerate(nodes)
        for attribute in node.attributes
        if attribute.name == "VARIABLE_VALUE" and number in parents
    }


def _shortest_paths(nodes: Sequence[Any]) -> dict[int, tuple[int, str]]:
    """Number of a node -> the node before it, and the name of the edge between them."""
    parents: dict[int, tuple[int, str]] = {}
    found = [((0, 0, 0), 0, (-1, ""))] if nodes else []
    while found:
        (lists, made_up, length), number, parent = heapq.heappop(found)
        if number in parents or length > MAX_DEPTH:
            continue
        parents[number] = parent
        for child in nodes[number].children:
            name = child.local_name
            cost = (lists + name.endswith("variables"), made_up + _is_made_up(name), length + 1)
            heapq.heappush(found, (cost, child.node_id, (number, name)))
    return parents


def _path(number: int, parents: dict[int, tuple[int, str]]) -> list[str]:
    path: list[str] = []
    while number != 0:
        number, name = parents[number]
        path.insert(0, name)
    return path


def _name(path: Sequence[str], full_name: str) -> str:
    """
    >>> _name(["model", "channel", "reduce", "_kernel"], "kernel")
    'model/channel/reduce/kernel'
    >>> _name(["model", "_operations", "1", "channel", "reduce", "_kernel"], "cbam/reduce/kernel")
    'model/cbam/reduce/kernel'
    """
    *folders, leaf = path
    chosen = list(itertools.takewhile(lambda name: not _is_made_up(name), folders))
    if len(chosen) == len(folders):
        return "/".join([*folders, leaf.lstrip("_")])
    return "/".join([*chosen, full_name] if full_name else path)


def _is_made_up(name: str) -> bool:
    """Whether an edge is of Keras' making and no attribute that somebody chose."""
    return bool(
        re.match(r"_|layer(_with_weights)?-|keras_api$|(non_)?(trainable_)?variables$", name)
    )

"""What torch.compile shall take as it is while it traces."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

Function = TypeVar("Function", bound=Callable[..., object])


def constant(function: Function) -> Function:
    """Its result is a constant of the graph, and nothing within it is traced.

    torch.compiler.assume_constant_result leaves the same mark, and takes a second of every import
    to load the compiler first.
    """
    function.__dict__["_dynamo_marked_constant"] = True
    return function

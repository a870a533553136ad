"""What a weight file holds, before anything is known about its CBAMs."""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

# More than any network has, optimizer included; a file that claims more is hostile.
MAX_ARRAYS = 50_000
# Enough JSON for as many names.
MAX_HEADER = 16 << 20
# Of canonical files, in their metadata.
FORMAT = "1"


class CheckpointError(ValueError):
    """A file that holds no readable CBAM: the path, and why."""

    def __init__(self, path: os.PathLike[str] | str, reason: str) -> None:
        super().__init__(f"{os.fspath(path)}: {reason}")
        self.path, self.reason = Path(path), reason


@dataclass(frozen=True)
class Contents:
    """Named arrays and facts, in the order of the file.

    Attributes:
        arrays: name -> array. What is nested in the file has its path in front of the name, with
            slashes: "state_dict/module.conv1.weight", "params/ca/mlp/Conv_0/kernel".
        facts: name -> a number, text, bool or None beside the arrays ("epoch", "arch").
        metadata: what the container itself says about the file, as text.
    """

    arrays: Mapping[str, np.ndarray]
    facts: Mapping[str, Any] = field(default_factory=dict)
    metadata: Mapping[str, str] = field(default_factory=dict)


def size_of(path: Path) -> int:
    """Bytes of the file, or of all files in the folder, at `path`; of an index, with its shards."""
    if path.is_dir():
        files = path.rglob("*")
    elif path.suffix == ".index":
        files = path.parent.glob(f"{glob.escape(path.stem)}.*")
    else:
        return path.stat().st_size
    return sum(one.stat().st_size for one in files if one.is_file())


def most_bytes(path: Path) -> int:
    """What the arrays of `path` may come to: no trained weight compresses to a sixteenth, but
    small files may hold constants."""
    return (64 << 20) + 16 * size_of(path)


def check_size(path: Path, claimed: int) -> None:
    """Raise a CheckpointError if the file claims arrays of more bytes than it can have."""
    if claimed > most_bytes(path):
        raise CheckpointError(
            path, f"claims {claimed} bytes of arrays in a file of {size_of(path)} bytes"
        )


def by_number(name: str) -> list[list[str | int]]:
    """What names are sorted by where a container has no order: their parts, numbers as numbers.

    >>> sorted(["dense_10/kernel", "dense/kernel", "dense_2/kernel"], key=by_number)
    ['dense/kernel', 'dense_2/kernel', 'dense_10/kernel']
    """
    parts = [re.split(r"(\d+)", part) for part in name.split("/")]
    return [[int(text) if text.isdecimal() else text for text in part] for part in parts]


def check(path: Path, contents: Contents) -> None:
    """Raise a CheckpointError if `contents` are not what a reader may give."""
    count = len(contents.arrays)
    if not 0 < count <= MAX_ARRAYS:
        raise CheckpointError(path, f"holds {count} arrays, expected 1 to {MAX_ARRAYS}")
    check_size(path, sum(array.nbytes for array in contents.arrays.values()))
    facts = (str, int, float, type(None))
    if not all(isinstance(fact, facts) for fact in contents.facts.values()):
        raise CheckpointError(path, "has facts that are neither numbers nor texts")
    if not all(isinstance(text, str) for text in contents.metadata.values()):
        raise CheckpointError(path, "has metadata that are no texts")

"""orbax directories that lie: what is wrong with one -> what makes it so, and what must be said.

What makes it so changes a valid directory, one with a folder for each array.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.core.hostile import MANY

ARRAY = "params.ca.kernel"
Spoil = Callable[[Path], object]


def _array(**changed: Any) -> Spoil:
    """Of one array's own metadata."""

    def spoil(folder: Path) -> None:
        file = folder / ARRAY / ".zarray"
        file.write_text(json.dumps(json.loads(file.read_text()) | changed))

    return spoil


def _tree(change: Callable[[dict[str, Any]], object]) -> Spoil:
    """Of the tree's metadata, key -> what is said of it."""

    def spoil(folder: Path) -> None:
        file = folder / "_METADATA"
        metadata = json.loads(file.read_text())
        change(metadata["tree_metadata"])
        file.write_text(json.dumps(metadata))

    return spoil


def _key(name: str) -> Spoil:
    def change(entries: dict[str, Any]) -> None:
        for entry in entries.values():
            entry["key_metadata"][0]["key"] = name

    return _tree(change)


def _deep(entries: dict[str, Any]) -> None:
    for entry in entries.values():
        entry["key_metadata"] *= 3000


def _classes(entries: dict[str, Any]) -> None:
    for entry in entries.values():
        entry["value_metadata"]["value_type"] = "os.system"


def _many(entries: dict[str, Any]) -> None:
    entries.update({str(n): {"key_metadata": []} for n in range(MANY)})


def _metadata(data: bytes) -> Spoil:
    return lambda folder: (folder / "_METADATA").write_bytes(data)


def orbax_folders() -> dict[str, tuple[Spoil, str]]:
    unreadable = "not a readable orbax directory"
    return {
        "a shape without data": (
            _array(shape=[10**12, 3]), "claims 12000000000... bytes of arrays in a file of"
        ),
        "a shape that overflows": (_array(shape=[1 << 62, 4]), "bytes of arrays in a file of"),
        "a negative shape": (_array(shape=[-2, 3]), unreadable),
        "a shape of 40 dimensions": (_array(shape=[1] * 40, chunks=[1] * 40), unreadable),
        "pieces of 10^12": (_array(chunks=[10**6, 10**6]), unreadable),
        "Python objects": (_array(dtype="|O"), unreadable),
        "an unknown compression": (_array(compressor={"id": "evil"}), unreadable),
        "a filter": (_array(filters=[{"id": "pickle"}]), unreadable),
        "an array that is not there": (lambda f: shutil.rmtree(f / ARRAY), unreadable),
        "a piece that is not there": (lambda f: (f / ARRAY / "0.0").unlink(), "is missing"),
        "a piece of something else": (
            lambda f: (f / ARRAY / "0.0").write_bytes(b"hello"), unreadable
        ),
        "a path upwards": (_key("../../../etc"), "'../../../etc' is a path that leaves"),
        "a path from the root": (_key("/etc"), "'/etc' is a path that leaves"),
        "deep branches": (_tree(_deep), "nests deeper than any weights do"),
        "a class to import": (_tree(_classes), unreadable),
        "10^5 arrays": (_tree(_many), "holds 10.... arrays, and 50000 are the most"),
        "metadata that is no JSON": (_metadata(b"{" * 9000), "JSONDecodeError"),
        "metadata that nests": (_metadata(b"[" * MANY), "RecursionError"),
        "metadata that is a list": (_metadata(b"[]"), unreadable),
        "long metadata": (_metadata(b" " * (1 << 25)), "its _METADATA has 33554432 bytes"),
    }  # fmt: skip

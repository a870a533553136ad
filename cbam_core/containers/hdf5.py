"""HDF5 files, opened without trust.

A file may hold links into other files, links in a circle, and shapes that its bytes can't fill. So
no path that stands in a file is opened: what hard links reach is listed first, and names are
looked up in that list.
"""

from __future__ import annotations

import json
import math
import mmap
from collections.abc import Iterator
from pathlib import Path

import h5py
import numpy as np

from cbam_core.containers.nesting import RESERVED
from cbam_core.contents import MAX_ARRAYS, Contents
from cbam_core.weights import as_canonical

# What a heap of texts begins with: a signature, a version and three zeros.
_HEAP = b"GCOL\1\0\0\0"


def create(path: Path, contents: Contents) -> h5py.File:
    """A new file, open for writing, with the metadata and facts of `contents`.

    Raises:
        ValueError: a name is no path in such a file.
    """
    for name in contents.arrays:
        if {"", "."} & set(name.split("/")):
            raise ValueError(
                f"an HDF5 file can't hold {name!r}, of which a part is empty or a point"
            )
    # Attributes above 64 KiB, as the specs of many blocks are, need the format of HDF5 1.8.
    root = h5py.File(path, "w", libver=("v108", "v108"))
    ours = {"facts": dict(contents.facts), "metadata": dict(contents.metadata)}
    root.attrs[RESERVED] = json.dumps(ours)
    return root


def check_heaps(root: h5py.File, data: bytes | mmap.mmap) -> None:
    """Raise a ValueError for texts over which libhdf5 would not come to an end.

    It steps through a heap of them by the lengths that are written there, and may stand still, or
    go back, where one is 0 or overflows.
    """
    if root.id.get_create_plist().get_sizes() != (8, 8):
        raise ValueError("its lengths are not of 8 bytes")
    for count, (step, room) in enumerate(_heap_steps(data)):
        if not 0 < step <= room:
            raise ValueError("a heap of texts is damaged")
        if count > 4 * MAX_ARRAYS:
            raise ValueError("it holds more texts than any network")


def _heap_steps(data: bytes | mmap.mmap) -> Iterator[tuple[int, int]]:
    """Each step over a heap's head or one of its objects, and the bytes that are left for it."""
    start = data.find(_HEAP)
    while start >= 0:
        end = min(start + _integer(data, start + 8, 8), len(data))
        place, step = start, 16
        while place + 16 <= end:
            yield step, end - place
            place += step
            number, length = _integer(data, place, 2), _integer(data, place + 8, 8)
            step = 16 + (length + 7) // 8 * 8 if number else length
        start = data.find(_HEAP, start + 1)


def _integer(data: bytes | mmap.mmap, place: int, width: int) -> int:
    return int.from_bytes(data[place : place + width], "little")


def list_datasets(root: h5py.Group) -> dict[str, h5py.Dataset]:
    """Path -> dataset, of all datasets of numbers below `root`.

    Raises:
        ValueError: something has two names, or its data lies in another file, or there is more
            than any network has.
    """
    leaves = _leaves(root)
    if len(leaves) > MAX_ARRAYS:
        raise ValueError(f"it holds {len(leaves)} datasets, and {MAX_ARRAYS} are the most")
    items = {path: root[path] for path in leaves}
    datasets = {p: d for p, d in items.items() if isinstance(d, h5py.Dataset) and _is_numbers(d)}
    for path, dataset in datasets.items():
        if dataset.external or dataset.is_virtual:
            raise ValueError(f"{path[:200]!r} has its data in another file")
    return datasets


def _leaves(root: h5py.Group) -> list[str]:
    """The paths of what is no group, or an empty one."""
    paths: list[bytes] = []
    addresses: set[int] = set()

    def add(path: bytes, link: h5py.h5l.LinkInfo) -> str | None:
        """Why the walk ends here, if it does: an exception would not get through the library."""
        if link.type != h5py.h5l.TYPE_HARD:
            return f"{path[:200]!r} is a link by name, which may lead out of the file"
        if link.u in addresses:
            return f"{path[:200]!r} is another name of something that has one"
        # Keras has a group or two for each array, and half a dozen levels.
        if len(paths) > 4 * MAX_ARRAYS or path.count(b"/") > 50:
            return "it holds more groups, or deeper nested ones, than any network"
        paths.append(path)
        addresses.add(link.u)
        return None

    reason = root.id.links.visit(add, info=True)
    if reason:
        raise ValueError(reason)
    groups = {path.rpartition(b"/")[0] for path in paths}
    return [path.decode() for path in paths if path not in groups]


def _is_numbers(dataset: h5py.Dataset) -> bool:
    """Whether it is of numbers; texts and references are no weights."""
    return dataset.shape is not None and (dataset.dtype.kind in "fiub" or is_bfloat16(dataset))


def is_bfloat16(dataset: h5py.Dataset) -> bool:
    """Whether it is Keras' bfloat16, two bytes without a meaning and an attribute that has it."""
    return dataset.dtype == "V2" and dataset.attrs.get("dtype") == "bfloat16"


def size_of(dataset: h5py.Dataset) -> int:
    return math.prod(dataset.shape) * dataset.dtype.itemsize


def array_of(dataset: h5py.Dataset) -> np.ndarray:
    array = np.asarray(dataset[()])
    if is_bfloat16(dataset):
        return (array.view(np.uint16).astype(np.uint32) << 16).view(np.float32)
    return as_canonical(array)


def texts_of(root: h5py.File) -> dict[str, str]:
    values = {name: root.attrs[name] for name in root.attrs}
    return {name: value for name, value in values.items() if isinstance(value, str)}

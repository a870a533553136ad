"""safetensors files, which hold nothing but arrays and a dict of texts.

https://huggingface.co/docs/safetensors: eight bytes that give the header's length, the header as
JSON (name -> dtype, shape and place), the arrays one after the other. Read and written here and
not by the library of that name, which takes a duplicate name for a later version of the first,
forgets the order of the names, and needs every array in memory twice.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from cbam_core.contents import MAX_HEADER, Contents
from cbam_core.weights import as_canonical

_DTYPES = {
    "F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2", "I64": "<i8", "I32": "<i4",
    "I16": "<i2", "I8": "|i1", "U64": "<u8", "U32": "<u4", "U16": "<u2", "U8": "|u1", "BOOL": "|b1",
}  # fmt: skip
_NAMES = {dtype: name for name, dtype in _DTYPES.items() if name != "BF16"}

# Facts travel as JSON in the metadata, under this name.
_FACTS = "cbam_facts"


def read(path: Path) -> Contents:
    with path.open("rb") as file:
        header = _header(file, path)
        start, size = file.tell(), path.stat().st_size
        metadata = header.pop("__metadata__", {})
        _check_metadata(metadata)
        _check_places(header, size - start)
        arrays = {name: _array(file, start, entry) for name, entry in header.items()}
    facts = json.loads(metadata.pop(_FACTS, "{}"))
    return Contents(arrays, facts, metadata)


def write(path: Path, contents: Contents) -> None:
    """Write the names in their order, and the arrays by falling width, so that each is aligned.

    Raises:
        ValueError: an array has a dtype, or a name, that such a file can't hold.
    """
    metadata = dict(contents.metadata)
    if contents.facts:
        metadata[_FACTS] = json.dumps(contents.facts)
    arrays = {name: as_canonical(array) for name, array in contents.arrays.items()}
    by_width = sorted(arrays, key=lambda name: -arrays[name].itemsize)
    header = json.dumps(_entries(arrays, by_width, metadata), separators=(",", ":")).encode()
    header += b" " * (-len(header) % 8)
    with path.open("wb") as file:
        file.write(len(header).to_bytes(8, "little") + header)
        for name in by_width:
            file.write(np.ascontiguousarray(arrays[name]).data)


def _header(file: BinaryIO, path: Path) -> dict[str, Any]:
    length = int.from_bytes(file.read(8), "little")
    if length > min(MAX_HEADER, path.stat().st_size):
        raise ValueError(f"its header claims {length} bytes")
    header = json.loads(file.read(length), object_pairs_hook=_without_duplicates)
    if not isinstance(header, dict):
        raise ValueError("its header is no JSON object")
    return header


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    table = dict(pairs)
    if len(table) < len(pairs):
        counts = Counter(name for name, _ in pairs)
        twice = counts.most_common(1)[0][0]
        raise ValueError(f"its header has the name {twice[:100]!r} twice")
    return table


def _check_metadata(metadata: object) -> None:
    if not isinstance(metadata, dict) or not all(isinstance(t, str) for t in metadata.values()):
        raise ValueError("its metadata is no dict of texts")


def _check_places(entries: Mapping[str, Any], size: int) -> None:
    """Every array has a dtype, a shape and the bytes for it; together they are the file."""
    places = []
    for name, entry in entries.items():
        dtype, shape, place = entry["dtype"], entry["shape"], entry["data_offsets"]
        if dtype not in _DTYPES:
            raise ValueError(f"{name[:100]!r} has dtype {dtype}, which NumPy lacks")
        if not all(type(n) is int and n >= 0 for n in (*shape, *place)) or len(place) != 2:
            raise ValueError(f"{name[:100]!r} has shape {shape} and place {place}")
        if math.prod(shape) * np.dtype(_DTYPES[dtype]).itemsize != place[1] - place[0]:
            raise ValueError(f"{name[:100]!r}, {dtype} of shape {shape}, has the bytes {place}")
        places.append((*place, name))
    end = 0
    for begin, stop, name in sorted(places):
        if begin != end:
            raise ValueError(f"{name[:100]!r} begins at byte {begin}, expected {end}")
        end = stop
    if end != size:
        raise ValueError(f"its header claims {end} bytes of arrays, and there are {size}")


def _array(file: BinaryIO, start: int, entry: Mapping[str, Any]) -> np.ndarray:
    array = np.empty(entry["shape"], _DTYPES[entry["dtype"]])
    file.seek(start + entry["data_offsets"][0])
    file.readinto(array.data)  # type: ignore[attr-defined]
    if entry["dtype"] == "BF16":
        return (array.astype(np.uint32) << 16).view(np.float32)
    return array


def _entries(
    arrays: Mapping[str, np.ndarray], by_width: list[str], metadata: Mapping[str, str]
) -> dict[str, Any]:
    """The header: in the order of `arrays`, with the places that follow from `by_width`."""
    begins, end = {}, 0
    for name in by_width:
        begins[name] = end
        end += arrays[name].nbytes
    header: dict[str, Any] = {"__metadata__": dict(metadata)} if metadata else {}
    for name, array in arrays.items():
        if array.dtype.str not in _NAMES or name == "__metadata__":
            raise ValueError(f"a safetensors file can't hold {name!r} of dtype {array.dtype}")
        header[name] = {
            "dtype": _NAMES[array.dtype.str],
            "shape": list(array.shape),
            "data_offsets": [begins[name], begins[name] + array.nbytes],
        }
    return header

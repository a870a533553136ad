"""Flax's msgpack files: nested dicts, with arrays as an extension of the format.

https://flax.readthedocs.io/en/latest/api_reference/flax.serialization.html. What writes or reads
here is the msgpack library alone: extension 1 is an array, as msgpack of (shape, name of the
dtype, bytes), and 3 a scalar of the same form; an array of more than 2^30 bytes is a dict of
pieces.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

import msgpack
import numpy as np

from cbam_core.containers import nesting
from cbam_core.contents import MAX_ARRAYS, Contents
from cbam_core.weights import as_canonical

_ARRAY, _SCALAR = 1, 3
_PIECES = "__msgpack_chunked_array__"
_MAX_PIECE = 1 << 30
_DTYPES = {
    name: name
    for name in (
        "bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64",
        "float16", "float32", "float64",
    )
} | {"bfloat16": "uint16"}  # fmt: skip
# Before an array's bytes: its shape and the name of its dtype.
_MAX_HEAD = 1024
# Arrays, numbers, and the maps and lists that they lie in.
_MAX_VALUES = 20 * MAX_ARRAYS


def read(path: Path) -> Contents:
    size = path.stat().st_size
    nodes = _Nodes()
    with path.open("rb") as file:
        unpacker = msgpack.Unpacker(
            file,
            raw=False,
            strict_map_key=False,
            ext_hook=_extension,
            object_pairs_hook=nodes.table,
            list_hook=nodes.sequence,
            max_buffer_size=max(size, 1),
            max_array_len=MAX_ARRAYS,
            max_map_len=MAX_ARRAYS,
        )
        tree = unpacker.unpack()
        if unpacker.tell() != size:
            raise ValueError(f"{size - unpacker.tell()} bytes stand behind its end")
    contents = nesting.flatten(tree, lambda leaf: leaf)
    facts = dict(contents.facts)
    metadata = json.loads(facts.pop(nesting.RESERVED, "{}"))
    return Contents(contents.arrays, facts, metadata)


def write(path: Path, contents: Contents) -> None:
    tree = nesting.nest(contents, as_canonical)
    if contents.metadata:
        tree[nesting.RESERVED] = json.dumps(dict(contents.metadata))
    with path.open("wb") as file:
        _pack(tree, file)


class _Nodes:
    """What becomes of maps and lists, and a count of their values: an empty list is one byte in
    the file, and a hundred in memory."""

    def __init__(self) -> None:
        self.count = 0

    def sequence(self, values: list[Any]) -> list[Any]:
        self.count += 1 + len(values)
        if self.count > _MAX_VALUES:
            raise ValueError(f"it holds more than the {_MAX_VALUES} values that are read")
        return values

    def table(self, pairs: list[tuple[Any, Any]]) -> Any:
        self.sequence(pairs)
        table = dict(pairs)
        if len(table) < len(pairs):
            twice = Counter(key for key, _ in pairs).most_common(1)[0][0]
            raise ValueError(f"a map has the key {str(twice)[:100]!r} twice")
        if _PIECES in table:
            return _joined(table)
        # nnx keeps a variable's array under this key.
        if list(table) == ["value"] and isinstance(table["value"], np.ndarray):
            return table["value"]
        return table


def _extension(code: int, data: bytes) -> np.ndarray:
    if code not in (_ARRAY, _SCALAR):
        raise ValueError(f"it holds an extension {code}, which is no array (2 is a complex number)")
    head = msgpack.Unpacker(max_buffer_size=_MAX_HEAD)
    head.feed(data[:_MAX_HEAD])
    if head.read_array_header() != 3:
        raise ValueError("an array is not three things: its shape, dtype and bytes")
    shape, dtype = head.unpack(), head.unpack()
    if dtype not in _DTYPES:
        raise ValueError(f"it holds an array of dtype {str(dtype)[:100]!r}")
    # The bytes are the rest, whatever length stands before them, so that they are not copied.
    width = {0xC4: 1, 0xC5: 2, 0xC6: 4}[data[head.tell()]]
    array = np.frombuffer(data, _DTYPES[dtype], offset=head.tell() + 1 + width)
    if not all(type(n) is int and n >= 0 for n in shape) or math.prod(shape) != array.size:
        raise ValueError(f"an array claims the shape {str(shape)[:100]} of {array.size} numbers")
    # A copy, since what is read may be written to.
    array = array.reshape(shape).copy()
    return (array.astype(np.uint32) << 16).view(np.float32) if dtype == "bfloat16" else array


def _joined(table: Mapping[str, Any]) -> np.ndarray:
    shape, pieces = (
        [table[key][str(n)] for n in range(len(table[key]))] for key in ("shape", "chunks")
    )
    return np.concatenate(pieces).reshape(shape)


def _pack(value: Any, file: IO[bytes]) -> None:
    if isinstance(value, np.ndarray) and value.nbytes > _MAX_PIECE:
        flat, step = value.reshape(-1), _MAX_PIECE // value.itemsize
        pieces = [flat[start : start + step] for start in range(0, flat.size, step)]
        numbered = [{str(n): one for n, one in enumerate(row)} for row in (value.shape, pieces)]
        value = {_PIECES: True, "shape": numbered[0], "chunks": numbered[1]}
    if isinstance(value, np.ndarray):
        _pack_array(value, file)
    elif isinstance(value, dict):
        file.write(msgpack.Packer().pack_map_header(len(value)))
        for key, one in value.items():
            file.write(msgpack.packb(key))
            _pack(one, file)
    else:
        file.write(msgpack.packb(value))


def _pack_array(array: np.ndarray, file: IO[bytes]) -> None:
    """By hand, since the library would copy the array's bytes three times."""
    head = b"\x93" + msgpack.packb(array.shape) + msgpack.packb(array.dtype.name)
    head += b"\xc6" + array.nbytes.to_bytes(4, "big")
    file.write(b"\xc9" + (len(head) + array.nbytes).to_bytes(4, "big") + bytes([_ARRAY]) + head)
    file.write(np.ascontiguousarray(array).data)

"""TensorFlow checkpoints that lie: what is wrong with one -> its files, and what must be said.

An index is a table of LevelDB's: a block of sorted keys and values, a block that tells where it
is, and a footer; the values are protocol buffers (tensor_bundle.proto). It is written here with
its check sums right, so that what it says is believed.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable

from tests.core.hostile import MANY

INDEX, SHARD = "model.ckpt.index", "model.ckpt.data-00000-of-00001"
LATEST = b'model_checkpoint_path: "model.ckpt"\n'
FLOAT, STRING = 1, 7
Files = dict[str, bytes]


def varint(number: int) -> bytes:
    number %= 1 << 64
    groups = [number >> shift & 0x7F for shift in range(0, max(number.bit_length(), 1), 7)]
    return bytes([group | 0x80 for group in groups[:-1]] + groups[-1:])


def field(number: int, value: int | bytes) -> bytes:
    """A protocol buffer's field."""
    if isinstance(value, bytes):
        return varint(number << 3 | 2) + varint(len(value)) + value
    return varint(number << 3) + varint(value)


def crc32c(data: bytes) -> int:
    """As LevelDB masks it."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc = _CRC32C[(crc ^ byte) & 0xFF] ^ crc >> 8
    crc ^= 0xFFFFFFFF
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def _polynomial(byte: int) -> int:
    for _ in range(8):
        byte = byte >> 1 ^ (0x82F63B78 if byte & 1 else 0)
    return byte


_CRC32C = [_polynomial(byte) for byte in range(256)]


def block(pairs: Iterable[tuple[bytes, bytes]]) -> bytes:
    data = b"".join(
        varint(0) + varint(len(key)) + varint(len(value)) + key + value for key, value in pairs
    ) + struct.pack("<II", 0, 1)  # fmt: skip
    return data + b"\0" + struct.pack("<I", crc32c(data + b"\0"))


def table(pairs: Iterable[tuple[bytes, bytes]]) -> bytes:
    data, empty = block(pairs), block([])
    where = block([(b"\xff", varint(0) + varint(len(data) - 5))])
    handles = varint(len(data)) + varint(len(empty) - 5)
    handles += varint(len(data) + len(empty)) + varint(len(where) - 5)
    end = handles.ljust(40, b"\0") + struct.pack("<Q", 0xDB4775248B80FB57)
    return data + empty + where + end


def entry(
    shape: Iterable[int], size: int, dtype: int = FLOAT, offset: int = 0, shard: int = 0,
    summed: bytes = bytes(24),
) -> bytes:  # fmt: skip
    """What an index says of an array whose check sum is that of the bytes `summed`."""
    dimensions = b"".join(field(2, field(1, length)) for length in shape)
    crc = varint(6 << 3 | 5) + struct.pack("<I", crc32c(summed))
    return (
        field(1, dtype) + field(2, dimensions) + field(3, shard) + field(4, offset)
        + field(5, size) + crc
    )  # fmt: skip


def checkpoint(*entries: tuple[str, bytes], data: bytes = bytes(24), shards: int = 1) -> Files:
    header = field(1, shards) + field(3, field(1, 1))
    pairs = [(b"", header), *((name.encode(), value) for name, value in entries)]
    return {INDEX: table(pairs), SHARD: data, "checkpoint": LATEST}


def valid() -> Files:
    data = struct.pack("<6f", *range(6))
    return checkpoint(
        ("block1/ch_at/mlp_0/bias", entry([2], 8, summed=data[:8])),
        ("block1/ch_at/mlp_0/kernel", entry([2, 2], 16, offset=8, summed=data[8:])),
        data=data,
    )


def _graph(data: bytes) -> Files:
    """A checkpoint whose graph of objects is `data`, as TensorFlow lays texts out."""
    length = struct.pack("<I", len(data))
    summed = struct.pack("<I", crc32c(length))
    text = varint(len(data)) + summed + data
    graph = entry([], len(text), STRING, summed=length + summed + data)
    return checkpoint(("_CHECKPOINTABLE_OBJECT_GRAPH", graph), data=text)


def tensorflow_files() -> dict[str, tuple[Callable[[], Files], str]]:
    right = valid()
    unreadable = "not a readable TensorFlow checkpoint"
    return {
        "an index that is cut off": (lambda: right | {INDEX: right[INDEX][:-9]}, unreadable),
        "an index that is empty": (lambda: right | {INDEX: b""}, unreadable),
        "an index with another byte": (
            lambda: right | {INDEX: right[INDEX].replace(b"kernel", b"kerner")},
            unreadable,
        ),
        "a shard that is cut off": (lambda: right | {SHARD: right[SHARD][:20]}, unreadable),
        "a shard with another byte": (
            lambda: right | {SHARD: b"\1" + right[SHARD][1:]},
            unreadable,
        ),
        "no shard": (lambda: {n: d for n, d in right.items() if n != SHARD}, unreadable),
        "no index": (lambda: {"checkpoint": LATEST}, "there is no model.ckpt.index"),
        "a latest that leaves the folder": (
            lambda: right | {"checkpoint": LATEST.replace(b"model.ckpt", b"../../etc/passwd")},
            "names 'passwd', and there is no passwd.index",
        ),
        "a latest without a name": (lambda: right | {"checkpoint": b"\xff" * 99}, unreadable),
        "more numbers than bytes": (
            lambda: checkpoint(("a", entry([10**12], 24))),
            "claims 4000000000000 bytes of arrays",
        ),
        "a few more numbers than bytes": (lambda: checkpoint(("a", entry([7], 24))), unreadable),
        "fewer numbers than bytes": (lambda: checkpoint(("a", entry([5], 24))), unreadable),
        "a negative shape": (lambda: checkpoint(("a", entry([-2, -3], 24))), unreadable),
        "a shape that overflows": (lambda: checkpoint(("a", entry([1 << 62, 4], 24))), unreadable),
        "a shape of 300 dimensions": (lambda: checkpoint(("a", entry([1] * 300, 4))), unreadable),
        "a place outside": (lambda: checkpoint(("a", entry([6], 24, offset=1 << 40))), unreadable),
        "a negative place": (lambda: checkpoint(("a", entry([6], 24, offset=-8))), unreadable),
        "a shard that is not there": (
            lambda: checkpoint(("a", entry([6], 24, shard=7))),
            unreadable,
        ),
        "10^9 shards": (
            lambda: checkpoint(("a", entry([6], 24, shard=10**8)), shards=10**9),
            unreadable,
        ),
        "a dtype that is none": (lambda: checkpoint(("a", entry([6], 24, 99))), unreadable),
        "a graph that is none": (lambda: _graph(b"\xff" * 40), "DecodeError"),
        "a graph with an edge to nowhere": (
            lambda: _graph(field(1, field(1, field(1, 7) + field(2, b"a")))),
            unreadable,
        ),
        "10^5 arrays": (
            lambda: checkpoint(*((f"{n:06}", entry([], 4)) for n in range(MANY))),
            "100000 arrays, and 50000 are the most",
        ),
    }

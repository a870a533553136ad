"""Files that lie: for each container, what is wrong with one -> its bytes, and what must be said.

PyTorch's are in torch_files.py, which PyTorch itself writes.
"""

from __future__ import annotations

import io
import json
import pickle
import struct
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgpack
import numpy as np

MANY = 100_000


class Touch:
    """What makes the file `path` when a pickle of it is loaded."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        import os

        return os.system, (f"touch {self.path}",)


@dataclass(frozen=True)
class Member:
    """One of a zip archive, with what its directory claims, if that is not the truth."""

    name: str
    data: bytes
    deflated: bool = False
    claims: int | None = None
    flags: int = 0
    offset: int | None = None


def archive(*members: Member) -> bytes:
    """A zip archive that says of its members what it is told to."""
    body, directory = io.BytesIO(), io.BytesIO()
    for member in members:
        compress = zlib.compressobj(9, zlib.DEFLATED, -15)
        data = compress.compress(member.data) + compress.flush() if member.deflated else member.data
        size = len(member.data) if member.claims is None else member.claims
        stored = len(data) if member.deflated else size
        offset = body.tell() if member.offset is None else member.offset
        name, method = member.name.encode(), 8 if member.deflated else 0
        common = struct.pack(
            "<HHHHHIIIHH", 20, member.flags, method, 0, 33, zlib.crc32(member.data), stored, size,
            len(name), 0,
        )  # fmt: skip
        body.write(b"PK\3\4" + common + name + data)
        directory.write(b"PK\1\2" + struct.pack("<H", 20) + common)
        directory.write(struct.pack("<HHHII", 0, 0, 0, 0, offset) + name)
    start, length = body.tell(), directory.tell()
    end = struct.pack("<HHHHIIH", 0, 0, min(len(members), 65535), min(len(members), 65535),
                      length, start, 0)  # fmt: skip
    if len(members) <= 65535:
        return body.getvalue() + directory.getvalue() + b"PK\5\6" + end
    large = struct.pack("<QHHIIQQQQ", 44, 45, 45, 0, 0, len(members), len(members), length, start)
    locator = struct.pack("<IQI", 0, start + length, 1)
    zip64 = b"PK\6\6" + large + b"PK\6\7" + locator
    return body.getvalue() + directory.getvalue() + zip64 + b"PK\5\6" + end


def npy(header: Mapping[str, Any] | str, data: bytes = bytes(24)) -> bytes:
    """An array's file, with a header that says what it is told to."""
    text = f"{dict(header)!r}\n".encode() if isinstance(header, Mapping) else header.encode()
    return b"\x93NUMPY\1\0" + struct.pack("<H", len(text)) + text + data


def float64s(shape: Any, **more: Any) -> dict[str, Any]:
    return {"descr": "<f8", "fortran_order": False, "shape": shape} | more


def npz_files(touched: Path) -> dict[str, tuple[bytes, str]]:
    right = npy(float64s((3,)))
    zeros = npy(float64s((1 << 24,)), bytes(1 << 27))
    objects = io.BytesIO()
    np.save(objects, np.array([Touch(touched)], object), allow_pickle=True)

    def one(data: bytes, **lies: Any) -> bytes:
        return archive(Member("a.npy", data, **lies))

    return {
        "cut off in the directory": (one(right)[:-30], "File is not a zip file"),
        "cut off in the array": (one(right)[:60], "File is not a zip file"),
        "a negative shape": (one(npy(float64s((-3,)))), r"claims the shape \(-3,\)"),
        "a shape that overflows": (
            one(npy(float64s((1 << 62, 4)))),
            r"claims float64 of shape \(4611686018427387904, 4\) in 24 bytes",
        ),
        "a shape that overflows to the right size": (
            one(npy(float64s((1 << 61, 8, 0)))),
            "in 24 bytes",
        ),
        "a shape of truths": (one(npy(float64s((True, 3)))), "claims the shape"),
        "more numbers than bytes": (one(npy(float64s((10**9,)))), "in 24 bytes"),
        "fewer numbers than bytes": (one(npy(float64s((2,)))), "in 24 bytes"),
        "Python objects": (one(objects.getvalue()), "holds Python objects"),
        "records": (one(npy(float64s((3,), descr=[("x", "<f8")]))), "which no weight has"),
        "raw bytes": (one(npy(float64s((12,), descr="|V2"))), "which no weight has"),
        "many texts": (one(npy(float64s((3,), descr="<U2"))), "which no weight has"),
        "a header of another version": (one(right.replace(b"Y\1", b"Y\7")), "magic|version"),
        "a header of brackets": (one(npy("(" * 9000)), "not a readable NumPy archive"),
        "a long header": (one(npy(" " * 60_000)), "larger than 10000|not a readable"),
        "no header": (one(b"x" * 40), "magic string"),
        "metadata that is no text": (
            archive(
                Member("a.npy", right),
                Member(
                    "__cbam__.npy",
                    npy(
                        {"descr": "|u1", "fortran_order": False, "shape": (28,)},
                        b'{"metadata": {"spec": null}}',
                    ),
                ),
            ),
            "metadata that are no texts",
        ),
        "a name twice": (archive(Member("a.npy", right), Member("a.npy", right)), "one name"),
        "a path upwards": (archive(Member("../a.npy", right)), "leaves the archive"),
        "a path from the root": (archive(Member("/etc/a.npy", right)), "leaves the archive"),
        "a name with a zero": (archive(Member("a\0b.npy", right)), "leaves the archive"),
        "a bomb": (one(zeros, deflated=True), r"claims \d+ bytes of arrays in a file of \d+ bytes"),
        "a bomb that lies": (one(zeros, deflated=True, claims=len(right)), "in 24 bytes|CRC"),
        "a member larger than the file": (one(right, claims=1 << 30), "more bytes than the file"),
        "members in one another": (
            archive(*(Member(f"{n}.npy", right, offset=0) for n in range(2)))[len(right) + 35 :],
            "not a readable NumPy archive",
        ),
        "encryption": (one(right, flags=1), "is encrypted"),
        "a wrong sum": (one(right).replace(bytes(24), b"\1" + bytes(23)), "Bad CRC-32"),
        "10^5 arrays": (
            archive(*(Member(f"{n}.npy", npy(float64s(()), bytes(8))) for n in range(MANY))),
            "it has 100000 members, and 50100 are the most",
        ),
    }


def safetensors(header: Any, data: bytes = b"", length: int | None = None) -> bytes:
    text = header.encode() if isinstance(header, str) else json.dumps(header).encode()
    return (len(text) if length is None else length).to_bytes(8, "little") + text + data


def entry(shape: Any, begin: Any, end: Any, dtype: Any = "F32") -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


def safetensors_files(_: Path) -> dict[str, tuple[bytes, str]]:
    right = entry([2], 0, 8)
    twice = f'{{"a": {json.dumps(right)}, "a": {json.dumps(right)}}}'
    return {
        "cut off in the header": (safetensors({"a": right}, bytes(8))[:40], "header claims"),
        "cut off in the arrays": (safetensors({"a": right}, bytes(7)), "and there are 7"),
        "bytes too many": (safetensors({"a": right}, bytes(9)), "and there are 9"),
        "a header longer than the file": (
            safetensors({"a": right}, bytes(8), length=1 << 30), "header claims 1073741824 bytes"
        ),
        "a header that is no object": (safetensors("[{}]" + " " * 9), "not a readable|kind"),
        "a header that is no JSON": (safetensors("{" * 3000), "JSONDecodeError"),
        "a header that nests": (safetensors('{"a":' * 10**5), "RecursionError|JSONDecodeError"),
        "a name twice": (safetensors(twice, bytes(8)), "has the name 'a' twice"),
        "arrays in one another": (
            safetensors({"a": entry([2], 0, 8), "b": entry([2], 4, 12)}, bytes(12)),
            "'b' begins at byte 4, expected 8",
        ),
        "a hole": (
            safetensors({"a": entry([2], 0, 8), "b": entry([2], 12, 20)}, bytes(20)),
            "'b' begins at byte 12, expected 8",
        ),
        "a negative shape": (safetensors({"a": entry([-2, -1], 0, 8)}, bytes(8)), "has shape"),
        "a shape that overflows": (
            safetensors({"a": entry([1 << 62, 1 << 2], 0, 0)}), "has the bytes"
        ),
        "an empty shape that overflows": (
            safetensors({"a": entry([1 << 62, 1 << 62, 0], 0, 0)}), "not a readable"
        ),
        "a shape of truths": (safetensors({"a": entry([True], 0, 4)}, bytes(4)), "has shape"),
        "a shape that is a text": (
            safetensors({"a": entry("2", 0, 8)}, bytes(8)), "not a readable"
        ),
        "200 dimensions": (safetensors({"a": entry([1] * 200, 0, 4)}, bytes(4)), "not a readable"),
        "a place outside": (safetensors({"a": entry([2], 8, 16)}, bytes(8)), "expected 0"),
        "a dtype that NumPy lacks": (
            safetensors({"a": entry([2], 0, 2, "F8_E4M3")}, bytes(2)), "which NumPy lacks"
        ),
        "an entry without a dtype": (safetensors({"a": {"shape": [2]}}), "KeyError: 'dtype'"),
        "facts that are no facts": (
            safetensors({"a": right, "__metadata__": {"cbam_facts": '{"a": []}'}}, bytes(8)),
            "neither numbers nor texts",
        ),
        "facts that are no dict": (
            safetensors({"a": right, "__metadata__": {"cbam_facts": "[]"}}, bytes(8)),
            "not a readable",
        ),
        "metadata that is no text": (safetensors({"__metadata__": {"a": 1}}), "no dict of texts"),
        "10^5 arrays": (
            safetensors({str(n): entry([], n, n + 1, "U8") for n in range(MANY)}, bytes(MANY)),
            "holds 100000 arrays, expected 1 to 50000",
        ),
    }  # fmt: skip


def extension(value: Any, code: int = 1) -> msgpack.ExtType:
    return msgpack.ExtType(code, msgpack.packb(value))


def msgpack_files(_: Path) -> dict[str, tuple[bytes, str]]:
    right = extension([[3], "float32", bytes(12)])

    def one(value: Any) -> bytes:
        return msgpack.packb({"a": value})

    return {
        "cut off": (one(right)[:-1], "not a readable Flax msgpack file"),
        "bytes behind the end": (one(right) + b"x", "stand behind its end"),
        "an array larger than the file": (b"\x81\xa1a\xc9\xff\xff\xff\xff\1", "not a readable"),
        "a map larger than the file": (b"\xdf\xff\xff\xff\xff\xa1a", "not a readable"),
        "a list larger than the file": (b"\x81\xa1a\xdd\xff\xff\xff\xff", "not a readable"),
        "a text larger than the file": (b"\x81\xdb\xff\xff\xff\xff", "not a readable"),
        "a negative shape": (one(extension([[-3], "float32", bytes(12)])), r"shape \[-3\] of 3"),
        "a shape that overflows": (
            one(extension([[1 << 62, 4], "float32", b""])), "shape .* of 0 numbers"
        ),
        "half a number": (one(extension([[3], "float32", bytes(11)])), "not a readable"),
        "Python objects": (one(extension([[1], "object", bytes(8)])), "dtype 'object'"),
        "texts": (one(extension([[1], "<U2", bytes(8)])), "dtype '<U2'"),
        "an array of two things": (one(extension([[1], "float32"])), "not three things"),
        "no array": (one(msgpack.ExtType(1, b"\xc1")), "not a readable"),
        "an empty extension": (one(msgpack.ExtType(1, b"")), "not a readable"),
        "a complex number": (one(extension([1.0, 2.0], 2)), "extension 2"),
        "an unknown extension": (one(msgpack.ExtType(77, b"")), "extension 77"),
        "a name twice": (b"\x82\xa1a\1\xa1a\2", "the key 'a' twice"),
        "a name twice on two paths": (
            msgpack.packb({"a": {"b": right}, "a/b": right}), "'a/b' is there twice"
        ),
        "pieces that are not there": (
            one({"__msgpack_chunked_array__": True, "shape": {"0": 3}, "chunks": {"1": right}}),
            "KeyError: '0'",
        ),
        "deep maps": (b"\x81\xa1a" * MANY + b"\1", "not a readable"),
        "deep lists": (b"\x81\xa1a" + b"\x91" * 500 + b"\1", "nests more, or deeper"),
        "a key that is a number": (b"\x82\xa1a\1\xcb" + bytes(8) + b"\1", "is a float, not a text"),
        "10^5 arrays": (
            msgpack.packb({str(n): {str(m): right for m in range(100)} for n in range(1000)}),
            "holds 100000 arrays, expected 1 to 50000",
        ),
        "10^6 empty maps": (
            msgpack.packb({str(i): [{}] * 1000 for i in range(1000)}), "more than the 1000000"
        ),
        "10^7 empty lists": (
            b"\x81\xa1a" + b"\xdc\x03\xe8" + (b"\xdc\x27\x10" + b"\x90" * 10_000) * 1000,
            "more than the 1000000 values",
        ),
    }  # fmt: skip


def elsewhere() -> dict[str, tuple[bytes, str]]:
    """What is something else altogether, whatever the ending."""
    return {
        "nothing": (b"", "is empty; copy or download it again"),
        "zeros": (bytes(1000), "not a readable"),
        "noise": (np.random.default_rng(0).bytes(5000), "not a readable"),
        "text": (b"epoch 1: loss 0.3\n" * 50, "not a readable (?!.*(KeyError|ordinal))"),
        "an empty zip archive": (archive(), "not a readable|holds 0 arrays"),
        "a zip archive of texts": (archive(Member("a.txt", b"hello")), "not a readable"),
        "an image": (b"\x89PNG\r\n\x1a\n" + bytes(99), "not a readable"),
        "a tar archive": (bytes(257) + b"ustar\0" + bytes(300), "is a tar archive; unpack it"),
        "gzip": (b"\x1f\x8b\x08" + bytes(99), "is compressed with gzip"),
        "a pickle": (pickle.dumps({"a": 1}), "is a bare pickle"),
        "a web page": (b"<!DOCTYPE html><html></html>", "is a web page"),
        "a pointer": (b"version https://git-lfs.github.com/spec/v1\n", "git lfs pull"),
    }


FILES = {".npz": npz_files, ".safetensors": safetensors_files, ".msgpack": msgpack_files}

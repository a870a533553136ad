"""NumPy's .npz: a zip archive of arrays, each with a header of its own.

Read without NumPy's load, which believes what a header says and makes room for it.
"""

from __future__ import annotations

import json
import math
import zipfile
from pathlib import Path
from typing import IO, Any

import numpy as np

from cbam_core.containers import archive
from cbam_core.containers.nesting import RESERVED
from cbam_core.contents import MAX_HEADER, Contents
from cbam_core.weights import as_canonical

_PIECE = 1 << 20
_HEADERS = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}


def read(path: Path) -> Contents:
    arrays: dict[str, np.ndarray] = {}
    facts: dict[str, Any] = {}
    with archive.checked(path) as opened:
        for member in opened.infolist():
            name = member.filename.removesuffix(".npy")
            with opened.open(member) as file:
                array = _array(file, member)
            if array.dtype.kind == "U":
                facts[name] = str(array)
            else:
                arrays[name] = array
    ours = json.loads(arrays.pop(RESERVED, np.frombuffer(b"{}", np.uint8)).tobytes())
    return Contents(arrays, facts | ours.get("facts", {}), ours.get("metadata", {}))


def write(path: Path, contents: Contents) -> None:
    arrays = dict(contents.arrays)
    if contents.facts or contents.metadata:
        ours = {"facts": dict(contents.facts), "metadata": dict(contents.metadata)}
        arrays[RESERVED] = np.frombuffer(json.dumps(ours).encode(), np.uint8)
    with zipfile.ZipFile(path, "w") as opened:
        for name, array in arrays.items():
            archive.check_name(name)
            member = zipfile.ZipInfo(f"{name}.npy")
            with opened.open(member, "w", force_zip64=True) as file:
                np.lib.format.write_array(file, as_canonical(array), allow_pickle=False)


def _array(file: IO[bytes], member: zipfile.ZipInfo) -> np.ndarray:
    name = member.filename[:100]
    version = np.lib.format.read_magic(file)
    if version not in _HEADERS:
        raise ValueError(f"{name!r} has a header of version {version}")
    shape, is_fortran, dtype = _HEADERS[version](file, max_header_size=10_000)
    if dtype.hasobject:
        raise ValueError(f"{name!r} holds Python objects, which only a pickle's code can make")
    if dtype.kind not in "fiubU" or (dtype.kind == "U" and (shape or dtype.itemsize > MAX_HEADER)):
        raise ValueError(f"{name!r} has dtype {dtype}, which no weight has")
    if not all(type(n) is int and n >= 0 for n in shape):
        raise ValueError(f"{name!r} claims the shape {shape}")
    count = math.prod(shape)
    if count * dtype.itemsize != member.file_size - file.tell():
        raise ValueError(
            f"{name!r} claims {dtype} of shape {shape} in {member.file_size - file.tell()} bytes"
        )
    array = np.empty(count, dtype)
    _fill(array, file)
    return array.reshape(shape, order="F" if is_fortran else "C")


def _fill(array: np.ndarray, file: IO[bytes]) -> None:
    """Read in pieces, so that no second copy of the whole is made."""
    memory = array.view(np.uint8).data if array.size else memoryview(b"")
    for start in range(0, len(memory), _PIECE):
        piece = memory[start : start + _PIECE]
        if file.readinto(piece) < len(piece):  # type: ignore[attr-defined]
            raise EOFError("it ends before its last array does")
    # At the end the archive compares the check sum.
    file.read(1)

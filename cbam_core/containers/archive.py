"""Zip archives whose directory can be believed, as PyTorch, NumPy and Keras write them."""

from __future__ import annotations

import contextlib
import io
import zipfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from cbam_core.contents import MAX_ARRAYS, MAX_HEADER, check_size

# Beside the arrays: versions, byte order, a pickle.
_MAX_MEMBERS = MAX_ARRAYS + 100


@contextlib.contextmanager
def checked(path: Path) -> Iterator[zipfile.ZipFile]:
    """The archive at `path`, opened for reading.

    Raises:
        zipfile.BadZipFile, ValueError: it is damaged, or claims what it can't hold: a name twice,
            a path that leaves it, members that lie in one another or outside, or are bigger than
            any weights get by compression.
    """
    with _InPieces(path) as file, zipfile.ZipFile(file) as archive:
        members = archive.infolist()
        if len(members) > _MAX_MEMBERS:
            raise ValueError(f"it has {len(members)} members, and {_MAX_MEMBERS} are the most")
        for member in members:
            _check(member)
        if len({member.filename for member in members}) < len(members):
            raise ValueError("two of its members have one name")
        if sum(member.compress_size for member in members) > path.stat().st_size:
            raise ValueError("its members claim more bytes than the file has")
        check_size(path, sum(member.file_size for member in members))
        yield archive


class _InPieces(io.FileIO):
    """A file of which no more is read at once than a directory of many members is long."""

    def read(self, size: int | None = -1) -> bytes:
        if size is not None and size > MAX_HEADER:
            raise ValueError(f"its directory claims {size} bytes")
        return super().read(MAX_HEADER if size is None or size < 0 else size)


def check_name(name: str) -> None:
    """Raise a ValueError for a name under which nothing may lie in an archive."""
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or "\\" in name or "\0" in name:
        raise ValueError(f"{name[:100]!r} is a path that leaves the archive")


def _check(member: zipfile.ZipInfo) -> None:
    # orig_filename, since the other one ends before a zero byte.
    check_name(member.orig_filename)
    if member.flag_bits & 1:
        raise ValueError(f"{member.filename[:100]!r} is encrypted")
    if member.compress_type == zipfile.ZIP_STORED:
        if member.compress_size != member.file_size:
            raise ValueError(f"{member.filename[:100]!r} has two sizes")
    elif member.compress_type != zipfile.ZIP_DEFLATED:
        raise ValueError(f"{member.filename[:100]!r} is compressed in a way no such file is")

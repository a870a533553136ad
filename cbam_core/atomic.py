"""Writing that leaves the old file or the new one, whatever happens."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def whole_file(target: Path) -> Iterator[Path]:
    """A path beside `target` to write to; afterwards it is synced and renamed to `target`.

    Raises:
        FileExistsError: there is a folder at `target`.
    """
    if target.is_dir():
        raise FileExistsError(f"{target} is a folder; pass the path of a file")
    handle, name = tempfile.mkstemp(prefix=f".{target.name}.", dir=target.parent)
    os.close(handle)
    beside = Path(name)
    try:
        yield beside
        with beside.open("rb+") as file:
            os.fsync(file.fileno())
        beside.chmod(_permissions(target))
        os.replace(beside, target)
        _sync(target.parent)
    except BaseException:
        beside.unlink(missing_ok=True)
        raise


@contextlib.contextmanager
def whole_folder(target: Path) -> Iterator[Path]:
    """A folder beside `target` to fill; afterwards it is synced and renamed to `target`.

    Raises:
        FileExistsError: there is something at `target`, which no single step could replace.
    """
    if target.exists():
        raise FileExistsError(
            f"{target} exists, and a folder can't be replaced in one step; delete it first or "
            f"pass another name"
        )
    beside = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
    try:
        yield beside
        for folder, _, names in os.walk(beside):
            for name in names:
                with open(os.path.join(folder, name), "rb+") as file:
                    os.fsync(file.fileno())
            _sync(Path(folder))
        beside.chmod(0o777 & ~_umask())
        os.rename(beside, target)
        _sync(target.parent)
    except BaseException:
        shutil.rmtree(beside, ignore_errors=True)
        raise


def _permissions(target: Path) -> int:
    """Those of the file that is replaced, or what a new file gets."""
    return target.stat().st_mode & 0o777 if target.exists() else 0o666 & ~_umask()


def _umask() -> int:
    umask = os.umask(0)
    os.umask(umask)
    return umask


def _sync(folder: Path) -> None:
    """Make the names in a folder durable, where a folder can be opened."""
    if os.name == "posix":
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

"""What kind of weight file it is, by its first or last bytes, or by what is in the folder."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

from cbam_core.contents import CheckpointError

_ZIP = b"PK\3\4"
# What stands first in the format from before zip, in whatever protocol it is pickled.
_TORCH_MAGIC = (0x1950A86A20F9469CFC6C).to_bytes(10, "little")
# What ends an index of TensorFlow, and its checkpoints from before there were such.
_TENSORFLOW_END = (0xDB4775248B80FB57).to_bytes(8, "little")
_TORCH_MEMBER = re.compile(r"[^/]+/(data\.pkl|data/.*|version|byteorder|constants\.pkl|code/.*)")


def by_content(path: Path) -> str | None:
    """The name of the container that the file at `path` looks like, if it does.

    Raises:
        CheckpointError: it looks like something that people take for a weight file.
    """
    with path.open("rb") as file:
        head = file.read(512)
        file.seek(max(0, path.stat().st_size - len(_TENSORFLOW_END)))
        end = file.read()
    for name, looks_so in _SIGNS.items():
        if looks_so(head):
            return name
    if end == _TENSORFLOW_END:
        return "tensorflow"
    part = re.fullmatch(r"(.+)\.(data-\d+-of-\d+|meta)", path.name)
    if part and path.with_name(f"{part[1]}.index").is_file():
        raise CheckpointError(
            path, f"is a part of a TensorFlow checkpoint; pass {path.with_name(part[1])}"
        )
    for place, sign, reason in _FOREIGN:
        if head.startswith(sign, place):
            raise CheckpointError(path, reason)
    return None


def by_files(folder: Path) -> str | None:
    """The name of the container that the folder looks like, if it does."""
    for name, patterns in _FILES.items():
        if any(one.is_file() for pattern in patterns for one in folder.glob(pattern)):
            return name
    return None


def _is_torch(head: bytes) -> bool:
    return _TORCH_MAGIC in head[:32] or bool(_TORCH_MEMBER.fullmatch(_first_member(head)))


def _is_msgpack(head: bytes) -> bool:
    """A map whose first key is a text."""
    after = {b"\xde": 3, b"\xdf": 5}.get(head[:1], 1)
    is_map = b"\x81" <= head[:1] <= b"\x8f" or after > 1
    key = head[after : after + 1]
    return is_map and (b"\xa0" <= key <= b"\xbf" or b"\xd9" <= key <= b"\xdb")


def _first_member(head: bytes) -> str:
    """The name of the first member of a zip archive; "" if it is none.

    By the first one alone, so that the directory of a hostile archive is its reader's business.
    """
    length = int.from_bytes(head[26:28], "little")
    return head[30 : 30 + length].decode(errors="replace") if head.startswith(_ZIP) else ""


_SIGNS: dict[str, Callable[[bytes], bool]] = {
    "safetensors": lambda head: head[4:9] == b"\0\0\0\0{",
    "torch": _is_torch,
    "npz": lambda head: _first_member(head).endswith(".npy"),
    "keras": lambda head: _first_member(head) in ("metadata.json", "config.json"),
    # Which of Keras' two layouts one has, its reader finds out.
    "keras2": lambda head: head.startswith(b"\x89HDF\r\n\x1a\n"),
    "msgpack": _is_msgpack,
}
_FILES = {
    "savedmodel": ("saved_model.pb",),
    "tensorflow": ("checkpoint",),
    # A tree, the items or the steps beside one another, or steps of several items.
    "orbax": ("_METADATA", "*/_METADATA", "*/*/_METADATA"),
}
_FOREIGN = (
    (257, b"ustar", "is a tar archive; unpack it and read what is in it. (PyTorch wrote such files "
     "itself before its version 0.2; load it there and save it again.)"),
    (0, b"\x1f\x8b", "is compressed with gzip; unpack it and read what is in it"),
    (0, b"\x80", "is a bare pickle, which only running its code could read; its owner can save the "
     "weights alone with torch.save(model.state_dict(), path)"),
    (0, b"<", "is a web page; the address is not the file's own, or asks to log in"),
    (0, b"version https://git-lfs", "is a pointer to a file that was not downloaded; git lfs pull "
     "gets it"),
)  # fmt: skip

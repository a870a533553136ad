"""Damage to a file's bytes: each kind takes a place and a number, so that chance or hypothesis can
choose them."""

from __future__ import annotations

import io
import re
import zipfile
from collections.abc import Callable, Sequence

# Where lengths and shapes overflow.
_NUMBERS = [
    0, 1, -1, 2, 127, 128, 255, 256, 32767, 32768, 65535, 65536, 10**6, 2**31 - 1, 2**31, 2**32 - 1,
    2**32, 2**48, 2**62, 2**63 - 1, 2**63, 2**64 - 1,
]  # fmt: skip

Kind = Callable[[bytes, int, int], bytes]
# What damage is done: a kind, the place as a part of the file, a number.
Damage = tuple[str, float, int]


def _flip(data: bytes, place: int, number: int) -> bytes:
    return data[:place] + bytes([data[place] ^ 1 << number % 8]) + data[place + 1 :]


def _overwrite(data: bytes, place: int, number: int) -> bytes:
    """An integer of 1, 2, 4 or 8 bytes, in either order, by one that overflows."""
    width = 1 << number % 4
    value = _NUMBERS[number // 8 % len(_NUMBERS)] % (1 << 8 * width)
    return data[:place] + value.to_bytes(width, "big" if number & 4 else "little") + data[
        place + width :
    ]  # fmt: skip


def _rewrite(data: bytes, place: int, number: int) -> bytes:
    """The next number that is written as text by another one."""
    found = re.compile(rb"\d+").search(data, place)
    value = str(_NUMBERS[number % len(_NUMBERS)]).encode()
    return data[: found.start()] + value + data[found.end() :] if found else data + value


def _cut(data: bytes, place: int, number: int) -> bytes:
    return data[:place]


def _drop(data: bytes, place: int, number: int) -> bytes:
    return data[:place] + data[place + 1 + number % 64 :]


def _repeat(data: bytes, place: int, number: int) -> bytes:
    length = 1 + number % 64
    return data[: place + length] + data[place:][:length] * (1 + number // 64 % 16) + data[place:]


def _move(data: bytes, place: int, number: int) -> bytes:
    """A part of the file to another place."""
    start, length = number % len(data), 1 + number // len(data) % 64
    return data[:place] + data[start : start + length] + data[place + length :]


def _fill(data: bytes, place: int, number: int) -> bytes:
    length = 1 + number // 256 % 32
    return data[:place] + bytes([number % 256]) * length + data[place + length :]


KINDS: dict[str, Kind] = {
    kind.__name__.strip("_"): kind
    for kind in (_flip, _overwrite, _rewrite, _cut, _drop, _repeat, _move, _fill)
}


def damaged(data: bytes, damages: Sequence[Damage], member: int | None = None) -> bytes:
    """`data` with all damages done; in a member of a zip archive, if there is one and `member` says
    which, with the check sum of what it is then."""
    if member is not None and data.startswith(b"PK\3\4"):
        return _in_member(data, damages, member)
    for kind, part, number in damages:
        if data:
            data = KINDS[kind](data, int(part * len(data)), number)
    return data


def _in_member(data: bytes, damages: Sequence[Damage], number: int) -> bytes:
    written = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(written, "w") as new:
        chosen = old.infolist()[number % len(old.infolist())]
        for member in old.infolist():
            bad = damages if member is chosen else ()
            new.writestr(member, damaged(old.read(member), bad), member.compress_type)
    return written.getvalue()

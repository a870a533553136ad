"""Options that several commands have: their checks, and the error for a wrong one."""

from __future__ import annotations

import ast
import dataclasses
import os
import shlex
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import typer

from cbam_core import CBAMSpec


def wrong(option: str, message: str) -> typer.BadParameter:
    """What to raise where the call is wrong: the exit code is 2."""
    return typer.BadParameter(message, param_hint=option)


def choice(option: str, name: str, known: Collection[str]) -> str:
    """The one name."""
    if name not in known:
        raise wrong(option, f"{name!r} is unknown; choose from {', '.join(known)}")
    return name


def choices(option: str, text: str, known: Collection[str]) -> list[str]:
    """The comma-separated names in `text`, each once."""
    names = [choice(option, name.strip(), known) for name in text.split(",")]
    return list(dict.fromkeys(names))


def attentions(text: str) -> list[str | None]:
    """The comma-separated attentions in `text`; "none" is None.

    >>> attentions("se,none")
    ['se', None]
    """
    names = choices("--attention", text, ("cbam", "se", "none"))
    return [None if name == "none" else name for name in names]


def writable(option: str, path: Path | None) -> None:
    """Refuse a target that can't be written to, before the work is done."""
    if path is None:
        return
    if path.is_dir():
        raise wrong(option, f"{path} is a folder; pass the path of a file")
    folder = path.absolute().parent
    if not folder.is_dir():
        raise wrong(option, f"{path} is in a folder that does not exist; create it first")
    if not os.access(folder, os.W_OK):
        raise wrong(option, f"{path} is in a folder that can't be written to; pass another")


def writable_folder(option: str, folder: Path) -> None:
    """Refuse a folder that can't be made or written into, before the work is done."""
    there = folder.absolute()
    while not os.path.lexists(there):
        there = there.parent
    if not there.is_dir():
        raise wrong(option, f"{there} is a file; pass the path of a folder")
    if not os.access(there, os.W_OK | os.X_OK):
        raise wrong(option, f"{there} is a folder that can't be written to; pass another")


def repeated(context: typer.Context) -> str:
    """The command line that `context` was called by, without what it leaves at its default.

    What CBAM_KERNELS says changes what runs, and stands before it.
    """
    kernels = os.environ.get("CBAM_KERNELS")
    words = [f"CBAM_KERNELS={kernels}"] if kernels else []
    words += ["cbam", *(context.info_name or "").split()]
    for option in context.command.params:
        value = context.params.get(option.name or "")
        if value is not None and value != option.default:
            words += [option.opts[0], *([] if value is True else [str(value)])]
    return shlex.join(words)


def spec_fields(texts: Sequence[str]) -> dict[str, Any]:
    """The fields of a spec in `--set FIELD=VALUE` options; a value with commas is a tuple.

    >>> spec_fields(["gate=hard_sigmoid", "channel_pools=avg,max,lp", "norm_eps=1e-3"])
    {'gate': 'hard_sigmoid', 'channel_pools': ('avg', 'max', 'lp'), 'norm_eps': 0.001}
    """
    fields = {}
    known = [field.name for field in dataclasses.fields(CBAMSpec)]
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals or name not in known:
            raise wrong("--set", f"{text!r} is no FIELD=VALUE with a field of {', '.join(known)}")
        fields[name] = _value(value)
    return fields


def _value(text: str) -> Any:
    if "," in text:
        return tuple(_value(part) for part in text.split(",") if part)
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text

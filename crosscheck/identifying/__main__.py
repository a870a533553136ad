"""One module in its own process: `python -m crosscheck.identifying FILE NAME [CHANNELS]`.

FILE decides which framework is loaded, and its code is run. One line of JSON on standard output
has what was found, or under "wrong" why the call can't be answered.
"""

from __future__ import annotations

import importlib.util
import json
import os
import sys
import traceback
from pathlib import Path
from typing import Any

from crosscheck.identifying.identify import identify
from crosscheck.identifying.probes import probe_of


class WrongError(Exception):
    """A file, a name in it or a module that can't be used."""


def answer(file: Path, name: str, channels: int | None) -> dict[str, Any]:
    """What `Identified.to_dict` has of the module that `name` in `file` makes, and its text.

    Raises:
        WrongError: it makes none, or it can't be called.
    """
    module = _made(file, name)
    try:
        found = identify(module, channels=channels)
    except (TypeError, ValueError) as error:
        raise WrongError(f"{file}:{name}: {error}") from error
    return {"text": str(found), "found": found.to_dict()}


def _made(file: Path, name: str) -> Any:
    """The module itself, or what the function or class of this name returns."""
    value = getattr(_loaded(file), name, None)
    if value is None:
        raise WrongError(f"{file} has no {name}; pass the name of a function, class or module")
    if _is_module(value):
        return value
    try:
        return value()
    except Exception as error:  # Code of somebody else may raise anything.
        raise WrongError(f"{file}:{name} raised {_described(error, file)}") from error


def _is_module(value: Any) -> bool:
    try:
        probe_of(value)
    except TypeError:
        return False
    return True


def _loaded(file: Path) -> Any:
    # A name of its own: a file may be called as a library is.
    name = f"_identified_{file.stem}"
    spec = importlib.util.spec_from_file_location(name, file)
    if spec is None or spec.loader is None:
        raise WrongError(f"{file} is no Python file; pass one whose name ends with .py")
    sys.path.insert(0, str(file.parent))
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except Exception as error:  # Code of somebody else may raise anything.
        raise WrongError(f"{file} raised {_described(error, file)}") from error
    return module


def _described(error: Exception, file: Path) -> str:
    """The error, and the last line of the file that had a part in it."""
    lines = [f.lineno for f in traceback.extract_tb(error.__traceback__) if f.filename == str(file)]
    where = f" in line {lines[-1]}" if lines else ""
    return f"{type(error).__name__}{where}: {str(error).strip()[:300]}"


def main(file: str, name: str, channels: str = "") -> None:
    # What a library prints goes to standard error; the answer has standard output for itself.
    protocol = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    try:
        found = answer(Path(file), name, int(channels) if channels else None)
    except WrongError as error:
        found = {"wrong": str(error)}
    print(json.dumps(found), file=protocol, flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])

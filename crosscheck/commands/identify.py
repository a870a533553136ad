"""`cbam identify`: which CBAM a live module is."""

from __future__ import annotations

import json as jsons
import os
import subprocess
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape

from crosscheck.commands import options

EXAMPLES = """[bold]Examples[/bold]

cbam identify my_model.py:make_attention        a function without arguments, or a class

cbam identify blocks.py:SpatialGate --channels 64

cbam identify blocks.py:CBAM --json found.json

[bold]Exit codes[/bold]

0 it is a CBAM, 1 it is none, 2 the call was wrong: no such file or factory, a factory that raises,
a framework that is unknown
"""


def command(
    factory: Annotated[
        str,
        typer.Argument(
            metavar="FILE.py:FACTORY", help="What makes the module; the file's code is run."
        ),
    ],
    channels: Annotated[
        int | None,
        typer.Option(min=2, help="Of the feature map, where no weight of the module shows them."),
    ] = None,
    json: Annotated[Path | None, typer.Option(help="Write the same facts to this file.")] = None,
) -> None:
    """Find the spec of a module by probing it, whatever its framework and however it is written.

    FILE.py is run, in a process of its own and on the CPU: only pass files that you trust. FACTORY
    is the name in it of a function or class that makes a PyTorch, TensorFlow, Keras or Flax module
    without arguments, or of such a module; for linen it returns the pair (module, variables).
    """
    options.writable("--json", json)
    with Console(stderr=True).status(f"probing {escape(factory)}"):
        found = _found(*_split(factory), channels)
    if json is not None:
        json.write_text(jsons.dumps(found["found"], indent=1) + "\n")
    Console().print(escape(found["text"]), highlight=False, soft_wrap=True)
    raise typer.Exit(0 if found["found"]["is_cbam"] else 1)


def _split(factory: str) -> tuple[Path, str]:
    file, colon, name = factory.rpartition(":")
    if not colon or not name.isidentifier():
        raise _wrong(f"{factory!r} names no factory; pass FILE.py:FACTORY")
    if not Path(file).is_file():
        raise _wrong(f"{file}: no such file")
    return Path(file), name


def _found(file: Path, name: str, channels: int | None) -> dict[str, Any]:
    arguments = [str(file.absolute()), name, *([str(channels)] if channels else [])]
    # The maps are small, so that one thread is best, and a GPU would only be waited for.
    environment = os.environ | {
        "OMP_NUM_THREADS": "1",
        "TF_CPP_MIN_LOG_LEVEL": "3",
        "CUDA_VISIBLE_DEVICES": "-1",
        "JAX_PLATFORMS": "cpu",
    }
    done = subprocess.run(
        [sys.executable, "-m", "crosscheck.identifying", *arguments],
        env=environment,
        capture_output=True,
        text=True,
    )
    if done.returncode or not done.stdout:
        tail = "\n".join(done.stderr.splitlines()[-15:])
        raise _wrong(f"{file}:{name}: its process ended early\n{tail}")
    found = jsons.loads(done.stdout)
    if "wrong" in found:
        raise _wrong(found["wrong"])
    return found


def _wrong(message: str) -> typer.BadParameter:
    return options.wrong("FILE.py:FACTORY", message)

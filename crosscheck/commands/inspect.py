"""`cbam inspect`: which CBAMs a weight file holds, in which dialect, and what else."""

from __future__ import annotations

import json as jsons
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

import cbam_core
from cbam_core import Block, Checkpoint, CheckpointError
from cbam_core.training_files import Run
from crosscheck.commands import options

EXAMPLES = """[bold]Examples[/bold]

cbam inspect RESNET50_CBAM.pth.tar

cbam inspect weights.h5 --from kobiso_keras       where several dialects write such names

cbam inspect block.pth --set channel_pools=avg,max,lp,lse --json facts.json

[bold]Exit codes[/bold]

0 it holds a CBAM, 1 it holds none, is damaged, or several dialects write such names, 2 the call was
wrong
"""

# Names of the rest that are shown without --all.
SHOWN = 5


def command(
    file: Annotated[
        Path, typer.Argument(metavar="FILE", help="A weight file or folder of any framework.")
    ],
    dialect: Annotated[
        str | None,
        typer.Option("--from", help=f"Who wrote it, one of: {', '.join(cbam_core.DIALECTS)}."),
    ] = None,
    fields: Annotated[
        list[str] | None,
        typer.Option("--set", help="FIELD=VALUE of the spec that no array shows; repeatable."),
    ] = None,
    everything: Annotated[
        bool, typer.Option("--all", help="List every name outside the blocks.")
    ] = False,
    json: Annotated[Path | None, typer.Option(help="Write the same facts to this file.")] = None,
) -> None:
    """Say which CBAMs and squeeze-and-excitation blocks a weight file holds, or which network."""
    options.writable("--json", json)
    found = read(file, dialect, fields)
    if json is not None:
        json.write_text(jsons.dumps(facts(found), indent=1) + "\n")
    console = Console()
    show(found, console, None if everything else SHOWN)


def read(file: Path, dialect: str | None, fields: list[str] | None) -> Checkpoint:
    """The file's blocks, or an exit with the reason."""
    given = options.spec_fields(fields or [])
    try:
        with Console(stderr=True).status(f"reading {escape(str(file))}"):
            return cbam_core.read(file, dialect, **given)
    except CheckpointError as error:
        raise failed(error) from None
    except FileNotFoundError as error:
        raise options.wrong("FILE", str(error)) from None
    except (ImportError, TypeError, ValueError) as error:
        raise options.wrong("FILE, --from or --set", str(error)) from None


def failed(error: Exception) -> typer.Exit:
    """Say on standard error what failed; the exit code is 1."""
    Console(stderr=True).print(f"[red]✗[/red] {escape(str(error))}", highlight=False)
    return typer.Exit(1)


def show(found: Checkpoint, console: Console, most: int | None) -> None:
    table = Table(box=None, pad_edge=False, header_style="dim")
    for column in ("block", "dialect", "spec", "weights"):
        table.add_column(column, overflow="fold")
    for path, block in found.blocks.items():
        size = sum(array.size for array in block.weights.values())
        table.add_row(path or "(the file)", block.dialect, repr(block.spec), f"{size:,}")
    if found.blocks:
        console.print(table)
    if not isinstance(found.network, str):
        text = f"a whole network, {found.network.dialect}: {found.architecture}"
        console.print(f"\n{escape(text)}", highlight=False)
    elif len(found.blocks) > 1:
        console.print(f"\nno whole network: {escape(found.network)}", highlight=False)
    for dialect in dict.fromkeys(block.dialect for block in found.blocks.values()):
        console.print(f"\n{dialect}: {_unseen(found, dialect)}", highlight=False)
    for path, other in found.lookalikes.items():
        text = f"{path or 'the file'} is {other.about}: {other.lookalike}"
        console.print(f"\n[yellow]no CBAM:[/yellow] {escape(text)}", highlight=False)
    if found.run is not None:
        console.print(f"\n{escape(_run(found.run))}", highlight=False)
    _list("outside the blocks", [f"{n} {a.shape}" for n, a in found.rest.items()], console, most)
    _list("besides", [f"{n} = {v!r}" for n, v in found.facts.items()], console, most)


def _unseen(found: Checkpoint, dialect: str) -> str:
    """What of the specs is no array's, and so the dialect's word or the caller's."""
    block = next(b for b in found.blocks.values() if b.dialect == dialect)
    about = cbam_core.DIALECTS[dialect].about
    if not block.unseen:
        return about
    fields = ", ".join(f"{field}={getattr(block.spec, field)!r}" for field in block.unseen)
    return f"{about}; no array shows {fields}"


def _run(run: Run | str) -> str:
    if isinstance(run, str):
        return f"a training run that can't move: {run}"
    told = run.told
    optimizer = told.get("optimizer", "an optimizer that it does not name")
    steps = (
        f"{told.get('step', 'an untold number of')} of {told.get('steps', 'an untold number of')}"
    )
    kinds = f" ({', '.join(run.kinds)})" if run.kinds else ""
    return f"a training run, {run.form}: {optimizer}, {steps} steps, {len(run.slots)} slots{kinds}"


def _list(title: str, lines: list[str], console: Console, most: int | None) -> None:
    if not lines:
        return
    console.print(f"\n{len(lines)} {title}:", highlight=False)
    for line in lines[:most]:
        console.print(f"  {escape(line)}", highlight=False)
    if most is not None and len(lines) > most:
        console.print(f"  ... and {len(lines) - most} more; --all lists them", highlight=False)


def facts(found: Checkpoint) -> dict[str, Any]:
    """What `--json` writes."""
    return {
        "schema": 1,
        "path": str(found.path),
        "blocks": {path: _facts(block) for path, block in found.blocks.items()},
        "architecture": None if isinstance(found.network, str) else found.architecture.to_dict(),
        "lookalikes": {path: dialect.name for path, dialect in found.lookalikes.items()},
        "rest": {name: list(array.shape) for name, array in found.rest.items()},
        "facts": dict(found.facts),
        "run": _run_facts(found.run),
    }


def _run_facts(run: Run | str | None) -> dict[str, Any] | str | None:
    if not isinstance(run, Run):
        return run
    told = {name: value for name, value in run.told.items() if name != "architecture"}
    return {"form": run.form, "kinds": list(run.kinds), "slots": len(run.slots), "told": told}


def _facts(block: Block) -> dict[str, Any]:
    return {
        "dialect": block.dialect,
        "spec": block.spec.to_dict(),
        "unseen": list(block.unseen),
        "names": block.names,
    }

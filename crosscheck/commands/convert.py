"""`cbam convert`: a weight file in another dialect, another container, or both."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape

import cbam_core
from cbam_core import CheckpointError, Conversion
from cbam_core.containers import CONTAINERS
from cbam_core.networks.dialects import NETWORK_DIALECTS
from crosscheck.commands import options
from crosscheck.commands.inspect import failed

EXAMPLES = """[bold]Examples[/bold]

cbam convert official.pth.tar block.safetensors

cbam convert official.pth.tar block.weights.h5 --to cbam_keras

cbam convert official.pth block.pth --to elbuco1 --fold    the norm goes into the convolution

cbam convert RESNET50_CBAM.pth.tar net.safetensors       for cbam_keras.resnet50(weights=...)

cbam convert weights.h5 block.pth --from kobiso_keras --to luuuyi

[bold]Exit codes[/bold]

0 converted, 1 the source can't be read or the target's dialect can't express it, 2 the call was
wrong; in both cases the target is as it was
"""


def command(
    source: Annotated[
        Path, typer.Argument(metavar="SRC", help="A weight file or folder of any framework.")
    ],
    target: Annotated[
        Path, typer.Argument(metavar="DST", help="What to write; its ending names the container.")
    ],
    dialect: Annotated[
        str | None,
        typer.Option("--from", help=f"Who wrote it, one of: {', '.join(cbam_core.DIALECTS)}."),
    ] = None,
    to: Annotated[
        str | None, typer.Option("--to", help="The dialect to write; the container's if absent.")
    ] = None,
    container: Annotated[
        str | None,
        typer.Option("--format", help=f"The container to write, one of: {', '.join(CONTAINERS)}."),
    ] = None,
    fields: Annotated[
        list[str] | None,
        typer.Option("--set", help="FIELD=VALUE of the spec that no array shows; repeatable."),
    ] = None,
    fold: Annotated[
        bool, typer.Option("--fold", help="Fold a norm that the target has not (evaluation only).")
    ] = False,
    fill: Annotated[
        bool, typer.Option("--fill", help="Write zeros for biases that the target always has.")
    ] = False,
    keep_rest: Annotated[
        bool, typer.Option("--keep-rest", help="Carry along what belongs to no block.")
    ] = False,
) -> None:
    """Write the blocks of SRC, or its whole network, to DST, whole or not at all."""
    given = options.spec_fields(fields or [])
    errors = Console(stderr=True)
    try:
        with errors.status("") as status:
            done = cbam_core.convert(
                source,
                target,
                dialect=dialect,
                to=to,
                container=container,
                fold=fold,
                fill=fill,
                keep_rest=keep_rest,
                on_step=lambda step: status.update(escape(step)),
                **given,
            )
    except CheckpointError as error:
        raise failed(error) from None
    except (OSError, ImportError, TypeError, ValueError) as error:
        raise options.wrong("SRC, DST or an option", str(error)) from None
    show(done, target, Console())


def show(done: Conversion, target: Path, console: Console) -> None:
    blocks = done.blocks if done.network is None else {}
    for path, (dialect, spec) in blocks.items():
        line = f"{path or 'the block'}: {dialect} -> {done.dialect}, {spec!r}"
        console.print(escape(line), highlight=False)
    if done.network is not None:
        line = f"the whole network: {done.source_dialect} -> {done.dialect}, {done.network}"
        console.print(escape(line), highlight=False)
    if done.carried:
        console.print(f"carried along: {_names(done.carried)}", highlight=False)
    if done.dropped:
        text = f"left out, --keep-rest carries it: {_names(done.dropped)}"
        console.print(f"[yellow]{text}[/yellow]", highlight=False)
    if done.is_part_of_a_network:
        names = ", ".join(NETWORK_DIALECTS)
        text = f"the blocks alone; the whole network goes to a .safetensors file, or --to {names}"
        console.print(f"[yellow]{text}[/yellow]", highlight=False)
    about = CONTAINERS[done.container].about
    console.print(f"[green]✓[/green] {escape(str(target))} ({about})", highlight=False)


def _names(names: list[str]) -> str:
    shown = ", ".join(names[:4])
    return escape(f"{len(names)} ({shown}{', ...' if len(names) > 4 else ''})")

"""`cbam convert`: a weight file in another dialect, another container, or both."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape

import cbam_core
from cbam_core import CheckpointError, Conversion, containers
from cbam_core.containers import CONTAINERS
from cbam_core.networks.dialects import NETWORK_DIALECTS
from cbam_core.training_files.stated import stated
from crosscheck.commands import options
from crosscheck.commands.inspect import failed

EXAMPLES = """[bold]Examples[/bold]

cbam convert official.pth.tar block.safetensors

cbam convert official.pth.tar block.weights.h5 --to cbam_keras

cbam convert official.pth block.pth --to elbuco1 --fold    the norm goes into the convolution

cbam convert RESNET50_CBAM.pth.tar net.safetensors       for cbam_keras.resnet50(weights=...)

cbam convert weights.h5 block.pth --from kobiso_keras --to luuuyi

cbam convert run.pth run.msgpack --with-optimizer       a training run goes on in Flax

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
    with_optimizer: Annotated[
        bool,
        typer.Option(
            "--with-optimizer",
            help="SRC is a training checkpoint: move the run, its slots, step and schedule.",
        ),
    ] = False,
    recipe: Annotated[
        Path | None,
        typer.Option(
            help="What SRC does not tell of its run: a JSON file of the fields of a Recipe, step "
            "and architecture, or a canonical file of the same run."
        ),
    ] = None,
) -> None:
    """Write the blocks of SRC, or its whole network, to DST, whole or not at all."""
    if with_optimizer:
        others = {"--from": dialect, "--to": to, "--set": fields, "--fold": fold, "--fill": fill}
        _refuse({**others, "--keep-rest": keep_rest})
        _move(source, target, container, recipe)
        return
    if recipe is not None:
        raise options.wrong("--recipe", "it is that of a run; pass --with-optimizer too")
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


def _refuse(others: dict[str, Any]) -> None:
    """Options that a run has no use for are wrong."""
    for name, value in others.items():
        if value:
            text = "a run has the names of its framework, which the ending of DST chooses"
            raise options.wrong(name, f"{text}; leave it out")


def _move(source: Path, target: Path, container: str | None, recipe: Path | None) -> None:
    """Write the training run of `source` to `target`, whole or not at all."""
    try:
        given = _given(recipe) if recipe else {}
        with Console(stderr=True).status(f"moving {escape(str(source))}"):
            state = cbam_core.read_state(source, given)
            cbam_core.write_state(target, state, container)
    except CheckpointError as error:
        raise failed(error) from None
    except (OSError, ImportError, TypeError, ValueError) as error:
        raise options.wrong("SRC, DST or an option", str(error)) from None
    run, console = state.recipe, Console()
    kinds = ", ".join(run.slots) or "no slots"
    line = f"a training run: {run.optimizer} after {state.step} of {run.steps} steps, {kinds}"
    console.print(escape(f"{line}, {state.architecture}"), highlight=False)
    console.print(f"[green]✓[/green] {escape(str(target))}", highlight=False)


def _given(recipe: Path) -> dict[str, Any]:
    """What a file says of a run; of a run's own file all but how far it was."""
    if recipe.suffix != ".json":
        said = stated(containers.read(recipe))
        return {name: value for name, value in said.items() if name != "step"}
    said = json.loads(recipe.read_text())
    if not isinstance(said, dict):
        raise ValueError(f"{recipe} is no JSON object; write the fields of a recipe by their names")
    return said


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

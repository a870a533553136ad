"""`cbam check`: the same passes through every framework, judged by the reference."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from crosscheck import cases, table
from crosscheck.check import Plan, check, plan, plan_faults, select
from crosscheck.commands import options
from crosscheck.faults import FAULTS
from crosscheck.frameworks import FRAMEWORKS, Framework
from crosscheck.process import CrashedError, RefusedError
from crosscheck.report import write_json

EXAMPLES = """[bold]Examples[/bold]

cbam check                                     all installed frameworks, float64

cbam check --frameworks torch,flax --dtype float32,bfloat16

cbam check --image cat.png --json out.json     your own photograph; facts for programs

cbam check --faults                            plant faults; each has to be caught

cbam check --full --dtype float64,float32      the whole grid

[bold]Exit codes[/bold]

0 all equal (with --faults: all caught), 1 a check failed, 2 the call was wrong
"""


def command(
    frameworks: Annotated[
        str | None,
        typer.Option(
            help=f"Comma-separated, of: {', '.join(FRAMEWORKS)}. All that are installed if absent."
        ),
    ] = None,
    dtype: Annotated[
        str | None,
        typer.Option(help=f"Comma-separated, of: {', '.join(cases.DTYPES)}. float64 if absent."),
    ] = None,
    mode: Annotated[
        str | None,
        typer.Option(help=f"Comma-separated, of: {', '.join(cases.MODES)}. Both if absent."),
    ] = None,
    device: Annotated[str, typer.Option(help="cpu, or gpu with TF32 off.")] = "cpu",
    image: Annotated[
        Path | None, typer.Option(help="A picture to use; scikit-image's astronaut if absent.")
    ] = None,
    full: Annotated[
        bool,
        typer.Option(
            "--full", help="The whole grid: every preset and variation, also in torch-compile."
        ),
    ] = False,
    faults: Annotated[
        bool, typer.Option("--faults", help=f"Plant {len(FAULTS)} faults; each has to be caught.")
    ] = False,
    processes: Annotated[
        int | None, typer.Option(min=1, help="Frameworks that run at a time; one a core if absent.")
    ] = None,
    json: Annotated[Path | None, typer.Option(help="Write all rows to this file.")] = None,
) -> None:
    """Run the same weights through every framework and judge outputs, gradients and statistics.

    Each framework runs in a process of its own. The judge is a float64 NumPy reference that is
    derived from the equations alone.
    """
    if faults and (dtype or mode or full):
        raise options.wrong(
            "--faults", "each fault has its own case, dtype and mode; leave those out"
        )
    dtypes = options.choices("--dtype", dtype or "float64", cases.DTYPES)
    modes = options.choices("--mode", mode or ",".join(cases.MODES), cases.MODES)
    options.choices("--device", device, ("cpu", "gpu"))
    options.writable("--json", json)
    chosen = _frameworks(frameworks)
    try:
        made = cases.full_cases(image) if full else cases.default_cases(image)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--image") from None
    plans = plan_faults(made) if faults else plan(made, dtypes, modes)
    plans_of = {f.name: plans if full or faults else select(plans, f) for f in chosen}
    try:
        with _progress(plans_of) as on_result:
            found = check(chosen, plans_of, device=device, processes=processes, on_result=on_result)
    except RefusedError as error:
        raise options.wrong("--device", str(error)) from None
    except CrashedError as error:
        Console(stderr=True).print(f"[red]✗[/red] {escape(str(error))}", highlight=False)
        raise typer.Exit(1) from None
    if json is not None:
        write_json(found, json)
    table.show(found, Console())
    raise typer.Exit(0 if found.ok else 1)


def _frameworks(names: str | None) -> list[Framework]:
    """Those asked for, which have to be installed; all that are installed if none is named."""
    if names is None:
        installed = [framework for framework in FRAMEWORKS.values() if not framework.missing]
        for framework in FRAMEWORKS.values():
            if framework.missing:
                missing = ", ".join(framework.missing)
                typer.echo(f"{framework.name} left out: {missing} is not installed", err=True)
        if not installed:
            raise options.wrong("--frameworks", 'none is installed; pip install "cbam[all]"')
        return installed
    chosen = [
        FRAMEWORKS[name] for name in options.choices("--frameworks", names, tuple(FRAMEWORKS))
    ]
    for framework in chosen:
        if framework.missing:
            raise options.wrong(
                "--frameworks",
                f"{framework.name} was asked for, and {', '.join(framework.missing)} is not "
                f'installed; pip install "cbam[{framework.extra}]"',
            )
    return chosen


@contextlib.contextmanager
def _progress(plans_of: Mapping[str, Sequence[Plan]]) -> Iterator[Callable[[str], None]]:
    """A bar for each framework on a terminal, nothing in a pipe."""
    console = Console(stderr=True)
    columns = (
        TextColumn("{task.description:16}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    with Progress(
        *columns, console=console, transient=True, disable=not console.is_terminal
    ) as bar:
        tasks = {name: bar.add_task(name, total=len(plans)) for name, plans in plans_of.items()}
        yield lambda name: bar.advance(tasks[name])

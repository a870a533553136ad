"""`cbam check`: the same passes through every framework, judged by the references."""

from __future__ import annotations

import contextlib
import itertools
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from cbam_core import ARCHITECTURES, Architecture
from crosscheck import cases, page, photograph, table
from crosscheck.cases import Case
from crosscheck.check import (
    LIMITS,
    NETWORK_LIMITS,
    Plan,
    check,
    plan,
    plan_faults,
    plan_gates,
    select,
    select_networks,
)
from crosscheck.commands import options
from crosscheck.exporting.check import plan_exports
from crosscheck.exporting.formats import RUNTIMES
from crosscheck.faults import FAULTS
from crosscheck.frameworks import FRAMEWORKS, Framework
from crosscheck.networks import network_case
from crosscheck.process import CrashedError, RefusedError
from crosscheck.report import Report, Row, write_json
from crosscheck.training.cases import (
    SAMPLE,
    STEPS,
    TRAINING_DTYPES,
    TrainingCase,
    plan_training,
    select_training,
    training_cases,
)
from crosscheck.training.faults import TRAINING_FAULTS, plan_training_faults
from crosscheck.training.relay import relay as relay_run

EXAMPLES = """[bold]Examples[/bold]

cbam check                                     all installed frameworks, float64

cbam check --frameworks torch,flax --dtype float32,bfloat16

cbam check --image cat.png --json out.json     your own photograph; facts for programs

cbam check --report report.html                a page of every row, and of attention maps

cbam check --faults                            plant faults; each has to be caught

cbam check --full --dtype float64,float32      the whole grid

CBAM_KERNELS=off cbam check                    the plain composition in place of the kernels

cbam check --model resnet50                    a whole network on the photograph at 224 x 224

cbam check --model resnet18,mobilenet --attention cbam,se,none --size 96

cbam check --train                             training runs, step by step, on real digits

cbam check --train --faults                    faults that only training shows

cbam check --train --relay 25                  a run that moves through the frameworks

cbam check --exports                           files of `cbam export`, by their own runtimes

[bold]Exit codes[/bold]

0 all equal (with --faults: all caught), 1 a check failed, 2 the call was wrong
"""


def command(
    context: typer.Context,
    frameworks: Annotated[
        str | None,
        typer.Option(
            help=f"Comma-separated, of: {', '.join(FRAMEWORKS)}; with --exports of: "
            f"{', '.join(RUNTIMES)}. All that are installed if absent."
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
    model: Annotated[
        str | None,
        typer.Option(
            help=f"Networks instead of blocks; comma-separated, of: {', '.join(ARCHITECTURES)}."
        ),
    ] = None,
    attention: Annotated[
        str | None,
        typer.Option(help="Of --model; comma-separated, of: cbam, se, none. cbam if absent."),
    ] = None,
    size: Annotated[
        int | None, typer.Option(min=64, help="Of --model's pictures. 224 if absent.")
    ] = None,
    full: Annotated[
        bool,
        typer.Option(
            "--full",
            help="The whole grid: every preset and variation, also in torch-compile; of --exports "
            "every preset, and every value of a field.",
        ),
    ] = False,
    faults: Annotated[
        bool,
        typer.Option(
            "--faults",
            help=f"Plant {len(FAULTS)} faults, with --train {len(TRAINING_FAULTS)} others; each "
            "has to be caught.",
        ),
    ] = False,
    train: Annotated[
        bool,
        typer.Option("--train", help="Whole training runs, each with the framework's optimizer."),
    ] = False,
    steps: Annotated[
        int | None, typer.Option(min=1, help=f"Of --train, of each run. {STEPS} if absent.")
    ] = None,
    relay: Annotated[
        int | None,
        typer.Option(
            min=1, help="Of --train: one run that changes framework after so many steps each."
        ),
    ] = None,
    exports: Annotated[
        bool,
        typer.Option(
            "--exports",
            help="Files in every format of `cbam export`, each written and run by its runtime.",
        ),
    ] = False,
    processes: Annotated[
        int | None, typer.Option(min=1, help="Frameworks that run at a time; one a core if absent.")
    ] = None,
    json: Annotated[Path | None, typer.Option(help="Write all rows to this file.")] = None,
    report: Annotated[
        Path | None,
        typer.Option(help="Write a page of HTML to this file: all rows, and attention maps."),
    ] = None,
) -> None:
    """Run the same weights through every framework and judge outputs, gradients and statistics.

    Each framework runs in a process of its own. The judge is a float64 NumPy reference that is
    derived from the equations alone.
    """
    if exports and (train or faults or dtype or mode or model or image or device != "cpu"):
        raise options.wrong(
            "--exports",
            "files run in evaluation, in float32 and on a CPU, on inputs of their own; leave "
            "--train, --faults, --dtype, --mode, --model, --image and --device out",
        )
    if train and (mode or model or image):
        raise options.wrong(
            "--train",
            "its runs are in training mode, on their own data; leave --mode, --model "
            "and --image out",
        )
    if steps and (not train or faults):
        raise options.wrong("--steps", "only runs of --train, without --faults, have them")
    if relay and (not train or faults or dtype):
        raise options.wrong(
            "--relay",
            "it is a run of --train, without faults and in float64; leave --faults and --dtype out",
        )
    if faults and (dtype or mode or full or model):
        raise options.wrong(
            "--faults", "each fault has its own case, dtype and mode; leave those out"
        )
    if not model and (attention or size):
        raise options.wrong("--attention, --size", "only networks have these; pass --model too")
    known = TRAINING_DTYPES if train else NETWORK_LIMITS if model else LIMITS
    dtypes = options.choices("--dtype", dtype or "float64", known)
    modes = options.choices("--mode", mode or ",".join(cases.MODES), cases.MODES)
    options.choice("--device", device, ("cpu", "gpu"))
    options.writable("--json", json)
    options.writable("--report", report)
    _check_image(image)
    chosen = _frameworks(frameworks, RUNTIMES if exports else FRAMEWORKS)
    rounds: Iterator[list[Any]]
    sample: Callable[..., Sequence[Any]]
    gates: list[Plan] = []
    if train:
        runs = training_cases()
        planned = (
            plan_training_faults(runs) if faults else plan_training(runs, dtypes, steps or STEPS)
        )
        rounds, sample = iter([planned]), select_training
    elif exports:
        rounds, sample = iter([plan_exports(full=full)]), lambda plans, framework: plans
    elif model:
        made = _networks(model, attention or "cbam", size or photograph.SIDE, image)
        rounds, sample = (plan([case], dtypes, modes) for case in made), select_networks
    else:
        blocks = cases.full_cases(image) if full else cases.default_cases(image)
        rounds = iter([plan_faults(blocks) if faults else plan(blocks, dtypes, modes)])
        sample = select
        if report and not faults and "eval" in modes:
            gates = plan_gates(blocks, dtypes)
    found = Report(device, command=options.repeated(context))
    try:
        if relay:
            runs = [run for run in runs if full or run.name in SAMPLE]
            rounds = iter([])
            _relay(found, runs, chosen, relay, steps or STEPS)
        for plans in rounds:
            plans_of = {
                f.name: [*(plans if full or faults else sample(plans, f)), *gates] for f in chosen
            }
            with _progress(plans_of) as on_result:
                part = check(
                    chosen, plans_of, device=device, processes=processes, on_result=on_result
                )
            found.rows += part.rows
            found.maps += part.maps
            found.seconds += part.seconds
    except RefusedError as error:
        raise options.wrong("--device", str(error)) from None
    except CrashedError as error:
        Console(stderr=True).print(f"[red]✗[/red] {escape(str(error))}", highlight=False)
        raise typer.Exit(1) from None
    if json is not None:
        write_json(found.to_dict(), json)
    if report is not None:
        picture = photograph.load(image) if found.maps else None
        page.write(found, report, by_case=bool(model), picture=picture)
    table.show(found, Console(), by_case=bool(model))
    raise typer.Exit(0 if found.ok else 1)


def _relay(
    found: Report,
    runs: Sequence[TrainingCase],
    frameworks: Sequence[Framework],
    every: int,
    steps: int,
) -> None:
    """Add the rows of each run through the frameworks in turn, shown leg by leg on a terminal."""
    started = time.monotonic()
    route = " > ".join(framework.name for framework in frameworks)
    Console().print(f"Framework changed every {every} steps: {route}", highlight=False)
    for run in runs:
        with Console(stderr=True).status(run.name) as status:

            def show(framework: Framework, steps: int, run: TrainingCase = run) -> None:
                status.update(f"{run.name}: {steps} steps, the last in {framework.name}")

            judged = relay_run(
                run, frameworks, every=every, steps=steps, device=found.device, on_leg=show
            )
        found.rows += [Row("relay", run.name, "float64", "train", one) for one in judged]
    found.seconds = time.monotonic() - started


def _networks(models: str, attentions: str, size: int, image: Path | None) -> Iterator[Case]:
    """The case of each network, made when its turn comes: each holds many millions of numbers."""
    names = options.choices("--model", models, tuple(ARCHITECTURES))
    for name, attention in itertools.product(names, options.attentions(attentions)):
        architecture = Architecture.named(name, attention=attention)
        case = f"{name}-{attention}" if attention else name
        with Console(stderr=True).status(f"weights for {case}"):
            made = network_case(case, architecture, size=size, image=image)
        yield made


def _check_image(path: Path | None) -> None:
    try:
        photograph.load(path)
    except ValueError as error:
        raise options.wrong("--image", str(error)) from None


def _frameworks(names: str | None, known: Mapping[str, Framework]) -> list[Framework]:
    """Those asked for, which have to be installed; all that are installed if none is named."""
    if names is None:
        installed = [framework for framework in known.values() if not framework.missing]
        for framework in known.values():
            if framework.missing:
                missing = ", ".join(framework.missing)
                typer.echo(f"{framework.name} left out: {missing} is not installed", err=True)
        if not installed:
            raise options.wrong("--frameworks", 'none is installed; pip install "cbam[all]"')
        return installed
    chosen = [known[name] for name in options.choices("--frameworks", names, tuple(known))]
    for framework in chosen:
        if framework.missing:
            raise options.wrong(
                "--frameworks",
                f"{framework.name} was asked for, and {', '.join(framework.missing)} is not "
                f'installed; pip install "cbam[{framework.extra}]"',
            )
    return chosen


@contextlib.contextmanager
def _progress(plans_of: Mapping[str, Sequence[Any]]) -> Iterator[Callable[[str], None]]:
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

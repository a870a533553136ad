"""`cbam bench`: speed and memory beside the public structures, what installs, and the floor."""

from __future__ import annotations

import contextlib
import importlib.util
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from cbam_core import ARCHITECTURES
from crosscheck.benchmark import table
from crosscheck.benchmark.plan import (
    BATCH,
    CANDIDATES,
    FEWEST_CHANNELS,
    ITEM_SIZES,
    MODES,
    NETWORK_CANDIDATES,
    NETWORK_ROUNDS,
    PASSES,
    ROUNDS,
    SHAPES,
    SIZE,
    TORCH_ONLY,
    Plan,
    label,
)
from crosscheck.benchmark.process import measure
from crosscheck.commands import options
from crosscheck.frameworks import FRAMEWORKS
from crosscheck.process import CrashedError, RefusedError
from crosscheck.report import write_json

EXAMPLES = """[bold]Examples[/bold]

cbam bench                                     PyTorch, eager and compiled, on eight maps

cbam bench --shape 32,256,56,56 --shape 1,64,8,8 --modes eager --plot speed.png

cbam bench --framework flax --json flax.json   ours with kernels and without, and the floor

cbam bench --network resnet50                  what attention adds to a whole network

cbam bench --candidates ours,official,copy --passes forward --threads 1 --rounds 51

[bold]Exit codes[/bold]

0 measured, 1 a framework failed on the way, 2 the call was wrong
"""


def command(
    framework: Annotated[str, typer.Option(help=f"One of: {', '.join(MODES)}.")] = "torch",
    shape: Annotated[
        list[str] | None,
        typer.Option(metavar="N,C,H,W", help="Of a map; may be repeated. Eight maps if absent."),
    ] = None,
    network: Annotated[
        str | None,
        typer.Option(help="A whole network instead of blocks, such as resnet50 or mobilenet."),
    ] = None,
    batch: Annotated[
        int | None, typer.Option(min=1, help=f"Of --network's pictures. {BATCH} if absent.")
    ] = None,
    size: Annotated[
        int | None, typer.Option(min=64, help=f"Of --network's pictures. {SIZE} if absent.")
    ] = None,
    candidates: Annotated[
        str | None,
        typer.Option(
            help=f"Comma-separated, of: {', '.join(CANDIDATES)}; with --network of: "
            f"{', '.join(NETWORK_CANDIDATES)}. All if absent."
        ),
    ] = None,
    modes: Annotated[
        str | None,
        typer.Option(help="Comma-separated, such as eager,compiled in PyTorch. All if absent."),
    ] = None,
    passes: Annotated[
        str | None, typer.Option(help=f"Comma-separated, of: {', '.join(PASSES)}. Both if absent.")
    ] = None,
    dtype: Annotated[str, typer.Option(help=f"One of: {', '.join(ITEM_SIZES)}.")] = "float32",
    device: Annotated[str, typer.Option(help="cpu or gpu.")] = "cpu",
    threads: Annotated[
        int | None, typer.Option(min=1, help="Of the framework. One a core if absent.")
    ] = None,
    rounds: Annotated[
        int | None,
        typer.Option(
            min=1,
            help=f"Timings of each candidate. {ROUNDS} if absent, {NETWORK_ROUNDS} of a network.",
        ),
    ] = None,
    json: Annotated[Path | None, typer.Option(help="Write all rows to this file.")] = None,
    plot: Annotated[
        Path | None, typer.Option(help="Draw bars to this file, whose name ends with .png.")
    ] = None,
) -> None:
    """Measure speed and memory, all candidates in one run and in turn.

    ours is this project's CBAM, plain the same with kernels off; official, luuuyi and timm have the
    structure of the public modules; pytorchcv is measured where it is installed; copy and scale are
    the floor. A pass is forward, or training: forward and backward.
    """
    options.choice("--framework", framework, tuple(MODES))
    options.choice("--dtype", dtype, tuple(ITEM_SIZES))
    options.choice("--device", device, ("cpu", "gpu"))
    options.writable("--json", json)
    _check_plot(plot)
    if network and shape:
        raise options.wrong("--shape", "a network has pictures; pass --batch and --size instead")
    if not network and (batch or size):
        raise options.wrong("--batch, --size", "only networks have these; pass --network too")
    if network:
        options.choice("--network", network, tuple(ARCHITECTURES))
    _check_installed(framework)
    chosen, left_out = _candidates(framework, candidates, bool(network))
    ways, unbuilt = _modes(framework, modes)
    plan = Plan(
        framework=framework,
        shapes=_pictures(batch, size) if network else tuple(map(_shape, shape or ())) or SHAPES,
        network=network,
        candidates=chosen,
        modes=ways,
        passes=tuple(options.choices("--passes", passes or ",".join(PASSES), PASSES)),
        dtype=dtype,
        device=device,
        threads=threads or os.cpu_count() or 1,
        rounds=rounds or (NETWORK_ROUNDS if network else ROUNDS),
    )
    try:
        with _progress(plan) as on_progress:
            found = measure(plan, on_progress)
    except RefusedError as error:
        raise options.wrong("--device", str(error)) from None
    except CrashedError as error:
        Console(stderr=True).print(f"[red]✗[/red] {escape(str(error))}", highlight=False)
        raise typer.Exit(1) from None
    found.left_out = left_out + unbuilt
    if json is not None:
        write_json(found.to_dict(), json)
    table.show(found, Console())
    if plot is not None:
        from crosscheck.benchmark import plot as plots

        plots.plot(found, plot)


def _shape(text: str) -> tuple[int, ...]:
    try:
        shape = tuple(int(part) for part in text.split(","))
    except ValueError:
        shape = ()
    if len(shape) != 4 or min(shape) < 1:
        raise options.wrong(
            "--shape", f"{text!r} is no shape; pass N,C,H,W like {label(SHAPES[0])}"
        )
    if shape[1] < FEWEST_CHANNELS:
        raise options.wrong(
            "--shape",
            f"{text!r} has {shape[1]} channels, of which a hidden layer would have a sixteenth; "
            f"pass at least {FEWEST_CHANNELS}",
        )
    return shape


def _pictures(batch: int | None, size: int | None) -> tuple[tuple[int, ...]]:
    side = size or SIZE
    return ((batch or BATCH, 3, side, side),)


def _candidates(
    framework: str, names: str | None, network: bool
) -> tuple[tuple[str, ...], list[str]]:
    """Those asked for, and a line for each that would belong to them and is not installed."""
    every = NETWORK_CANDIDATES if network else CANDIDATES
    known = [name for name in every if framework == "torch" or name not in TORCH_ONLY]
    chosen = options.choices("--candidates", names or ",".join(known), known)
    if "pytorchcv" not in chosen or importlib.util.find_spec("pytorchcv"):
        return tuple(chosen), []
    # It says that it needs torchvision, which it does not, and which may bring another torch.
    missing = "pytorchcv is not installed; pip install --no-deps pytorchcv"
    if names:
        raise options.wrong("--candidates", missing)
    return tuple(name for name in chosen if name != "pytorchcv"), [f"left out: {missing}"]


def _modes(framework: str, names: str | None) -> tuple[tuple[str, ...], list[str]]:
    """Those asked for, and a line for the compiled one where nothing compiles."""
    known = MODES[framework]
    chosen = options.choices("--modes", names or ",".join(known), known)
    missing = FRAMEWORKS["torch-compile"].missing if "compiled" in chosen else []
    if not missing:
        return tuple(chosen), []
    text = f"compiled needs {', '.join(missing)}, which is not installed"
    if names:
        raise options.wrong("--modes", text)
    return tuple(mode for mode in chosen if mode != "compiled"), [f"left out: {text}"]


def _check_installed(framework: str) -> None:
    one = FRAMEWORKS[framework]
    if one.missing:
        raise options.wrong(
            "--framework",
            f"{framework} was asked for, and {', '.join(one.missing)} is not installed; "
            f'pip install "cbam[{one.extra}]"',
        )


def _check_plot(path: Path | None) -> None:
    options.writable("--plot", path)
    if path is not None and path.suffix != ".png":
        raise options.wrong("--plot", f"{path} does not end with .png; pass a path that does")
    if path is not None and importlib.util.find_spec("matplotlib") is None:
        message = 'it needs matplotlib, which is not installed; pip install "cbam[examples]"'
        raise options.wrong("--plot", message)


@contextlib.contextmanager
def _progress(plan: Plan) -> Iterator[Callable[[str, int], None]]:
    """Rounds done on a terminal, and what is measured or compiled now; nothing in a pipe."""
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Progress(
        *columns, TimeElapsedColumn(), console=console, transient=True,
        disable=not console.is_terminal,
    ) as bar:  # fmt: skip
        task = bar.add_task(f"starting {plan.framework}", total=len(plan.shapes) * plan.rounds)
        yield lambda at, done: bar.update(task, description=at, completed=done)

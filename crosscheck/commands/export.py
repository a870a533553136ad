"""`cbam export`: a network, or a block, as a file that runs without this project."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from rich.console import Console
from rich.markup import escape

import cbam_core
from cbam_core import ARCHITECTURES, Architecture, CBAMSpec, Checkpoint, CheckpointError
from cbam_core.planning import plan
from crosscheck.commands import options
from crosscheck.commands.inspect import failed
from crosscheck.exporting.export import ExportError, export
from crosscheck.exporting.formats import FORMATS, Format, axes_of, channels_of
from crosscheck.process import CrashedError

Weights = dict[str, np.ndarray]

EXAMPLES = """[bold]Examples[/bold]

cbam export --weights net.safetensors --to onnx             net.onnx, and how it is run

cbam export resnet50 --weights RESNET50_CBAM.pth.tar --to tflite --out app/net.tflite

cbam export --weights net.safetensors --to onnx,torch-export,savedmodel,tflite,stablehlo

cbam check --exports                                        what the files compute, judged

[bold]Exit codes[/bold]

0 written, 1 the weights can't be read or the framework can't write them, 2 the call was wrong; the
target that could not be written is as it was, and of several formats those before it are written
"""


def command(
    weights: Annotated[
        Path, typer.Option(help="A file of a whole network, or of one block, in any dialect.")
    ],
    to: Annotated[str, typer.Option(help=f"Comma-separated, of: {', '.join(FORMATS)}.")],
    model: Annotated[
        str | None,
        typer.Argument(
            metavar="[MODEL]",
            help=f"What the file has to hold, one of: {', '.join(ARCHITECTURES)}.",
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            help="What to write; beside the weights, with the format's ending, if absent."
        ),
    ] = None,
) -> None:
    """Write weights as files that other runtimes run, each whole or not at all.

    A file holds the network in evaluation, in float32, for pictures of any number and size.
    """
    formats = [FORMATS[name] for name in options.choices("--to", to, tuple(FORMATS))]
    if out is not None and len(formats) > 1:
        raise options.wrong("--out", f"{len(formats)} files are written; leave it out")
    targets = [out or _beside(weights, form) for form in formats]
    for form, target in zip(formats, targets, strict=True):
        _check_installed(form)
        _check_target(form, target, weights)
    if model is not None:
        options.choice("MODEL", model, tuple(ARCHITECTURES))
    described, values = _read(weights, model)
    for form, target in zip(formats, targets, strict=True):
        try:
            with Console(stderr=True).status(
                f"{form.runtime.package} writes {escape(str(target))}"
            ):
                export(described, values, form.name, target)
        except (ExportError, CrashedError) as error:
            raise failed(error) from None
        show(form, target, described, Console())


def show(form: Format, target: Path, described: CBAMSpec | Architecture, console: Console) -> None:
    """Say what was written, what goes in and out, and how it is run."""
    size = _size(target) / 1e6
    about = f"({form.about}, {size:.2f} MB)"
    console.print(f"[green]✓[/green] {escape(str(target))} {about}", highlight=False)
    batch, *space = axes_of(described)
    into = form.arranged((batch, *space, channels_of(described)))
    back = (batch, described.num_classes) if isinstance(described, Architecture) else into
    for name, shape in (("x", into), ("y", back)):
        console.print(f"  {name}  ({', '.join(map(str, shape))}) float32", highlight=False)
    console.print(f"  {', '.join([batch, *space])}: of any size\n", highlight=False)
    code = form.code_for(str(target), described)
    console.print(escape(code), highlight=False, soft_wrap=True)


def _beside(weights: Path, form: Format) -> Path:
    """net.safetensors -> net.onnx, and net.pth.tar as well."""
    name = Path(weights.name.removesuffix(".tar")).stem
    return weights.with_name(f"{name}{form.suffix}")


def _check_installed(form: Format) -> None:
    if form.runtime.missing:
        missing = ", ".join(form.runtime.missing)
        raise options.wrong(
            "--to",
            f"{form.name} needs {missing}, which is not installed; "
            f'pip install "cbam[{form.runtime.extra}]"',
        )


def _check_target(form: Format, target: Path, weights: Path) -> None:
    if target.exists() and weights.exists() and target.samefile(weights):
        raise options.wrong("--out", f"{target} is --weights, which is kept; pass another")
    if form.suffix:
        options.writable("--out", target)
        return
    if target.exists():
        raise options.wrong("--out", f"{target} exists; delete it first or pass another")
    options.writable("--out", target)


def _read(path: Path, model: str | None) -> tuple[CBAMSpec | Architecture, Weights]:
    """What the file holds, a network or one block, and its canonical weights."""
    try:
        with Console(stderr=True).status(f"reading {escape(str(path))}"):
            found = cbam_core.read(path)
        if model is not None:
            _check_model(found, model)
        return found.described, found.weights
    except CheckpointError as error:
        raise failed(error) from None
    except (OSError, ImportError, ValueError) as error:
        raise options.wrong("MODEL, --weights", str(error)) from None


def _check_model(found: Checkpoint, model: str) -> None:
    """Raise a ValueError if the file holds another network than the factory `model` builds."""
    plan(model, weights=found, spec=None, features_only=False, init=None, seed=0)


def _size(path: Path) -> int:
    """Bytes of a file, or of all files in a folder."""
    files = path.rglob("*") if path.is_dir() else [path]
    return sum(file.stat().st_size for file in files)

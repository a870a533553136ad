"""`cbam explain`: what a network looks at in a picture, as pictures."""

from __future__ import annotations

import dataclasses
import importlib
import importlib.util
import os
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

import cbam_core
from cbam_core import ARCHITECTURES, Architecture, CheckpointError, initial_network
from cbam_core.planning import plan
from crosscheck import photograph
from crosscheck.commands import options
from crosscheck.commands.inspect import failed
from crosscheck.explaining import Explanation
from crosscheck.frameworks import FRAMEWORKS, Framework
from crosscheck.report import write_json

EXAMPLES = """[bold]Examples[/bold]

cbam explain cat.jpg --weights RESNET50_CBAM.pth.tar

cbam explain cat.jpg --weights net.safetensors --layer stage3 --target 281

cbam explain cat.jpg --model resnet50            drawn weights, to try it

cbam explain cat.jpg --weights net.safetensors --framework flax --out cat

[bold]Exit codes[/bold]

0 written, 1 the weights can't be read or are no whole network, 2 the call was wrong
"""

# What published weights of ImageNet expect of a picture in [0, 1].
MEAN, DEVIATION = "0.485,0.456,0.406", "0.229,0.224,0.225"
# The scale of the norms between drawn weights.
SHRINK = 0.8
# Ways to run a network that compile it are the same network.
NAMES = [name for name, framework in FRAMEWORKS.items() if not framework.compiled]


def command(
    image: Annotated[Path, typer.Argument(metavar="IMAGE", help="A picture; its centre is taken.")],
    weights: Annotated[
        Path | None, typer.Option(help="A file of a whole network, in any dialect.")
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(
            help=f"One of: {', '.join(ARCHITECTURES)}. The file of --weights tells it; without "
            f"one, weights are drawn."
        ),
    ] = None,
    attention: Annotated[
        str, typer.Option(help="Of a --model with drawn weights: cbam or se.")
    ] = "cbam",
    layer: Annotated[
        str | None, typer.Option(help="Whose map Grad-CAM explains; the last stage if absent.")
    ] = None,
    target: Annotated[
        int | None, typer.Option(help="The class to explain; the predicted one if absent.")
    ] = None,
    framework: Annotated[str, typer.Option(help=f"One of: {', '.join(NAMES)}.")] = "torch",
    size: Annotated[int, typer.Option(min=8, help="Of the picture as the network sees it.")] = 224,
    mean: Annotated[str, typer.Option(help="Of each channel, which is taken off.")] = MEAN,
    deviation: Annotated[str, typer.Option(help="By which each is then divided.")] = DEVIATION,
    out: Annotated[Path, typer.Option(help="The folder for the pictures; made if absent.")] = Path(
        "explained"
    ),
    json: Annotated[Path | None, typer.Option(help="Write the same facts to this file.")] = None,
) -> None:
    """Draw what a network looks at in a picture: its gates, and Grad-CAM with and without them.

    It writes spatial.png, channels.png (the gates of the last block of each stage), grad_cam.png,
    and all of them in explain.png.
    """
    options.writable("--json", json)
    if importlib.util.find_spec("matplotlib") is None:
        message = 'it needs matplotlib, which is not installed; pip install "cbam[examples]"'
        raise options.wrong("--out", message)
    options.writable_folder("--out", out)
    chosen = _framework(framework)
    architecture, values, origin = _network(weights, model, attention)
    picture = _picture(image, size)
    x = (picture - _numbers("--mean", mean)) / _numbers("--deviation", deviation)
    try:
        with Console(stderr=True).status(f"{chosen.name} looks at {escape(image.name)}"):
            found = explanation(chosen, architecture, values, picture, x[None], target, layer)
    except ValueError as error:
        option = "--layer" if str(error).startswith("at=") else "--target"
        raise options.wrong(option, str(error).replace("at=", "--layer ", 1)) from None
    if not found.is_finite:
        raise failed(ValueError(f"{origin} gives numbers that are not finite"))
    from crosscheck.explaining import draw

    title = f"{image.name} in {origin}, {chosen.name}"
    files = draw.write(found, title, out)
    if json is not None:
        facts = {"schema": 1, "image": str(image), "network": origin, "framework": chosen.name}
        facts |= found.facts() | {"files": [str(file) for file in files]}
        write_json(facts, json)
    show(found, title, files, Console())


def explanation(
    framework: Framework,
    architecture: Architecture,
    weights: dict[str, np.ndarray],
    picture: np.ndarray,
    x: np.ndarray,
    target: int | None,
    layer: str | None,
) -> Explanation:
    """What the network makes of one picture x (1, H, W, 3), with its gates and without them."""
    os.environ.update(framework.environment)
    run = importlib.import_module(f"{framework.package}.evaluate").explain_network
    logits, maps, cam = run(architecture, weights, x, target, layer)
    target = int(logits[0].argmax()) if target is None else target
    plain = dataclasses.replace(architecture, attention=None, spec=())
    others = {name: weights[name] for name in cbam_core.network_shapes(plain)}
    last = f"stage{len(architecture.stages)}"
    layer = layer or last
    # An attention, or what is inside one, is not there any more.
    paths = [path for path, _ in architecture.attentions()]
    gone = any(layer == path or layer.startswith(f"{path}.") for path in paths)
    plain_layer = last if gone else layer
    plain_logits, _, plain_cam = run(plain, others, x, target, plain_layer)
    return Explanation(
        architecture,
        picture,
        layer,
        target,
        logits[0],
        {name: gate[0] for name, gate in maps.items()},
        cam[0],
        plain_layer,
        plain_logits[0],
        plain_cam[0],
    )


def show(found: Explanation, title: str, files: list[Path], console: Console) -> None:
    """Print what was seen, and where the pictures are."""
    console.print(escape(title), highlight=False)
    console.print(escape(found.verdict), highlight=False)
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    for column in ("attention", "Ms", "channels with the largest Mc"):
        table.add_column(column, no_wrap=True)
    for path in found.shown:
        table.add_row(path, *found.row(path))
    console.print(table)
    for file in files:
        console.print(f"[green]✓[/green] {escape(str(file))}", highlight=False, soft_wrap=True)


def _framework(name: str) -> Framework:
    framework = FRAMEWORKS[options.choice("--framework", name, NAMES)]
    if framework.missing:
        raise options.wrong(
            "--framework",
            f"{name} was asked for, and {', '.join(framework.missing)} is not installed; "
            f'pip install "cbam[{framework.extra}]"',
        )
    return framework


def _network(
    weights: Path | None, model: str | None, attention: str
) -> tuple[Architecture, dict[str, np.ndarray], str]:
    """Architecture and weights of what is asked for, and what they are called."""
    if model is not None:
        options.choice("--model", model, tuple(ARCHITECTURES))
    if weights is not None:
        return *_read(weights, model), weights.name
    if model is None:
        raise options.wrong("--weights", "pass the weights of a network, or --model for drawn ones")
    kind = options.choice("--attention", attention, ("cbam", "se"))
    architecture = Architecture.named(model, attention=kind)
    return architecture, _drawn(architecture), f"{model} with drawn weights, not trained ones"


def _read(weights: Path, model: str | None) -> tuple[Architecture, dict[str, np.ndarray]]:
    """The network of a file, which has to be a `model` if one is named."""
    try:
        found = cbam_core.read(weights)
        architecture, values = found.architecture, found.weights
        if model is not None:
            plan(model, weights=found, spec=None, features_only=False, init=None, seed=0)
    except CheckpointError as error:
        raise failed(error) from None
    except (OSError, ImportError, ValueError) as error:
        raise options.wrong("--weights or --model", str(error)) from None
    if architecture.attention is None:
        raise options.wrong("--weights", f"{weights} holds a network without attention")
    if cbam_core.network_shapes(architecture).keys() - values.keys():
        raise failed(CheckpointError(weights, "holds a network without a head"))
    return architecture, values


def _drawn(architecture: Architecture) -> dict[str, np.ndarray]:
    """Weights whose gates differ from place to place, as the authors' first ones do not.

    The norms shrink their maps, which would grow from block to block until all gates are 0 or 1.
    """
    drawn = initial_network(architecture, "he_normal")
    attentions = tuple(f"{path}." for path, _ in architecture.attentions())
    shrunk = {n for n in drawn if n.endswith(".scale") and not n.startswith(attentions)}
    return {name: SHRINK * array if name in shrunk else array for name, array in drawn.items()}


def _picture(image: Path, size: int) -> np.ndarray:
    try:
        return photograph.load(image, size)
    except (FileNotFoundError, ValueError) as error:
        raise options.wrong("IMAGE", str(error).replace("--image ", "")) from None


def _numbers(option: str, text: str) -> np.ndarray:
    try:
        numbers = np.array([float(part) for part in text.split(",")])
    except ValueError:
        numbers = np.empty(0)
    is_zero = option == "--deviation" and not numbers.all()
    if numbers.size not in (1, 3) or not np.isfinite(numbers).all() or is_zero:
        raise options.wrong(option, f"{text!r} is no number, nor three; pass one such as {MEAN}")
    return numbers

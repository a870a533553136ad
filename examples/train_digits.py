"""A small ResNet with CBAM learns to read digits: the same recipe in every framework.

Of scikit-learn's 1,797 scanned digits 360 are held out, which training never sees. Weights, the
order of the batches and the shifts of the pictures are drawn in NumPy, and each framework's own
optimizer does the rest; so the same network comes out of each, as a canonical file for all.
"""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from cbam_core import Recipe, TrainingState, initial_network, write
from crosscheck.commands import options
from crosscheck.report import versions
from crosscheck.training.cases import DIGITS, OPTIMIZERS
from crosscheck.training.data import Data, digits

PACKAGES = {"torch": "cbam_torch", "tf": "cbam_tf", "keras": "cbam_keras", "flax": "cbam_flax"}
HELD_OUT = 360
# Ten times all digits that are not held out, in batches of 32.
STEPS = 440
EPOCH = 44
# From Okabe and Ito's palette, which the colour-blind can tell apart; the last is drawn on top.
COLORS = ("#56B4E9", "#E69F00", "#D55E00", "#000000")

EXAMPLES = """[bold]Examples[/bold]

python examples/train_digits.py --framework torch

KERAS_BACKEND=jax python examples/train_digits.py --framework keras --out keras.safetensors

python examples/train_digits.py --framework all --plot curves.png

[bold]Then[/bold]

cbam inspect digits.safetensors                cbam_core.read gives its architecture and weights
"""

app = typer.Typer(add_completion=False, rich_markup_mode="rich", pretty_exceptions_enable=False)


@app.command(epilog=EXAMPLES)
def main(
    framework: Annotated[
        str, typer.Option(help=f"One of: {', '.join(PACKAGES)}, all. all draws the curves too.")
    ],
    out: Annotated[
        Path,
        typer.Option(help="The network, of all the first; its figures go beside it, as .json."),
    ] = Path("digits.safetensors"),
    plot: Annotated[
        Path | None, typer.Option(help="The picture of --framework all; beside --out if absent.")
    ] = None,
    steps: Annotated[
        int, typer.Option(min=1, help="At whose end the learning rate has come down to 0.")
    ] = STEPS,
    dtype: Annotated[
        str, typer.Option(help="float64, in which all frameworks walk one path, or float32.")
    ] = "float64",
) -> None:
    """Train a small ResNet with CBAM on scanned digits, in one framework or in all of them."""
    (framework,) = options.choices("--framework", framework, (*PACKAGES, "all"))
    (dtype,) = options.choices("--dtype", dtype, ("float64", "float32"))
    options.writable("--out", out)
    options.writable("--plot", plot)
    if framework != "all" and plot is not None:
        raise options.wrong("--plot", "one curve is no comparison; pass --framework all")
    figures = out.with_suffix(".json")
    made = [out, figures]
    if framework == "all":
        runs = train_all(out, steps, dtype)
        made.append(plot or out.with_suffix(".png"))
        draw(runs, made[-1])
    else:
        runs = [train(framework, out, steps, dtype)]
        say(summary(runs[0]))
    # A line for each run.
    figures.write_text("[\n" + ",\n".join(map(json.dumps, runs)) + "\n]\n")
    say("→ " + ", ".join(map(str, made)))


def say(line: str) -> None:
    Console().print(line, highlight=False, markup=False, soft_wrap=True)


def train(framework: str, out: Path, steps: int, dtype: str) -> dict[str, Any]:
    """Train in this process; write the network in float32, and say how well the file reads."""
    package = PACKAGES[framework]
    try:
        importlib.import_module(f"{package}.evaluate").prepare("cpu")
    except ImportError as error:
        message = f'{error}; pip install "cbam[{framework}]"'
        raise options.wrong("--framework", message) from None
    everything = digits()
    trained_on, held_out = everything.split(HELD_OUT)
    recipe = Recipe("sgd", steps=steps, schedule="cosine", **OPTIMIZERS["nesterov"])
    start = TrainingState(DIGITS, recipe, initial_network(DIGITS, seed=1))
    # torch.compile would take longer than the training.
    trainer = importlib.import_module(f"{package}.train").Trainer(
        start, dtype=dtype, compiled=framework != "torch"
    )
    begun = time.monotonic()
    losses = learn(framework, trainer, trained_on, steps)
    seconds = time.monotonic() - begun
    weights = {n: array.astype(np.float32) for n, array in trainer.state().weights.items()}
    write(out, weights, DIGITS)
    trainer.load(TrainingState(DIGITS, recipe, weights))
    return {
        "framework": label(framework),
        "versions": versions(),
        "recipe": recipe.to_dict(),
        "dtype": dtype,
        "trained_on": score(trainer, trained_on),
        "held_out": score(trainer, held_out),
        "all": score(trainer, everything),
        "seconds": round(seconds, 1),
        "losses": losses,
    }


def learn(framework: str, trainer: Any, data: Data, steps: int) -> list[float]:
    """The loss of every step."""
    console = Console(stderr=True)
    columns = (
        TextColumn("{task.description:6}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("loss {task.fields[loss]:.4f}"),
    )
    losses = []
    with Progress(
        *columns, console=console, transient=True, disable=not console.is_terminal
    ) as bar:
        task = bar.add_task(framework, total=steps, loss=np.nan)
        for pictures, labels in data.batches(steps):
            losses.append(trainer.step(pictures, labels))
            bar.update(task, advance=1, loss=losses[-1])
    return losses


def score(trainer: Any, data: Data) -> dict[str, int]:
    """How many digits there are, and how many of them are read right."""
    right = trainer.logits(data.pictures).argmax(1) == data.targets
    return {"digits": len(right), "right": int(right.sum())}


def label(framework: str) -> str:
    if framework != "keras":
        return framework
    import keras

    return f"keras-{keras.config.backend()}"


def summary(figures: dict[str, Any]) -> str:
    """One run in one line."""

    def share(part: str) -> str:
        right, count = figures[part]["right"], figures[part]["digits"]
        return f"{right:,} of {count:,} ({right / count:.2%})"

    return (
        f"{figures['framework']}: {share('held_out')} held-out digits read right, "
        f"{share('trained_on')} of those trained on, {share('all')} in all, "
        f"{figures['seconds']} s"
    )


def train_all(out: Path, steps: int, dtype: str) -> list[dict[str, Any]]:
    """Train in each framework, each in a process of its own; the first one's network is kept."""
    runs: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory(prefix="train-digits-") as folder:
        for framework in PACKAGES:
            own = Path(folder) / f"{framework}.safetensors" if runs else out
            command = [sys.executable, __file__, "--framework", framework, "--out", str(own)]
            command += ["--steps", str(steps), "--dtype", dtype]
            if code := subprocess.run(command, stdout=subprocess.DEVNULL).returncode:
                raise typer.Exit(code)
            runs += json.loads(own.with_suffix(".json").read_text())
            say(summary(runs[-1]))
    return runs


def draw(runs: Sequence[dict[str, Any]], path: Path) -> None:
    """The loss curves one upon the other, and below how far they are from the first."""
    from matplotlib import pyplot

    first = np.array(runs[0]["losses"])
    steps = np.arange(1, len(first) + 1)
    figure, (above, below) = pyplot.subplots(
        2, 1, figsize=(7.2, 5.6), sharex=True, height_ratios=(3, 2), layout="constrained"
    )
    for place, run in enumerate(runs):
        look, losses = {"color": COLORS[place], "label": run["framework"]}, np.array(run["losses"])
        # A curve hides none of those below it: each is thinner than the one before.
        above.plot(steps, averaged(losses), lw=1.2 + 2.4 * (len(runs) - 1 - place), **look)
        if place:
            apart = np.maximum.accumulate(np.abs(losses - first))
            below.semilogy(steps, apart, lw=1.6, **look)
    above.set_ylim(0)
    below.set_xlabel("step")
    titles = {
        above: f"Loss, mean of the last {EPOCH} steps",
        below: f"Largest difference so far from the loss in {runs[0]['framework']}",
    }
    for axes, title in titles.items():
        axes.set_title(title, loc="left", fontsize="medium")
        axes.legend(frameon=False)
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
        axes.margins(x=0.01)
    figure.savefig(path, dpi=110)
    pyplot.close(figure)


def averaged(losses: np.ndarray) -> np.ndarray:
    """The mean of each loss and those of the epoch before it, or of as many as there are."""
    sums = np.concatenate([[0.0], np.cumsum(losses)])
    ends = np.arange(1, len(sums))
    begins = np.maximum(ends - EPOCH, 0)
    return (sums[ends] - sums[begins]) / (ends - begins)


if __name__ == "__main__":
    # TensorFlow tells of its build otherwise.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    app()

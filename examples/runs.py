"""What the recipes share that is no framework's business: their arguments, and a run's folder.

    OUT/arguments.json           what the run was started with
    OUT/step-00000150.safetensors    checkpoints, the last two: weights, statistics, momentum, step
    OUT/log.csv                  a row for each piece of training
    OUT/tensorboard/             the same for TensorBoard
    OUT/network.safetensors      the trained network, as `cbam_core.write` has it

A piece is an epoch, or --save-every steps of one, and ends with its row and a checkpoint. All files
but TensorBoard's are written beside their place and renamed, so that each is whole at any moment.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from pictures import DATA, SIDE, Pictures, load

from cbam_core import (
    ARCHITECTURES,
    Architecture,
    CheckpointError,
    Recipe,
    TrainingState,
    initial_network,
    read,
    read_state,
    write,
    write_state,
)
from cbam_core.atomic import whole_file

# ImageNet's are the authors', https://github.com/Jongchan/attention-module; they have none for
# CIFAR, where rate, decay, batch and drops at 1/2 and 3/4 are those of He et al.,
# https://arxiv.org/abs/1512.03385.
IMAGENET = {"model": "resnet50", "epochs": 90, "drops": [30, 60], "batch_size": 256, "size": 224}
CIFAR = {"model": "resnet18", "epochs": 200, "drops": [100, 150], "batch_size": 128, "size": SIDE}
# What may be another where a run goes on.
FREE = ("out", "root", "epochs", "resume", "workers", "evaluate")

DROP = 0.1

COLUMNS = ("epoch", "step", "rate", "loss", "top1", "top5", "test_loss", "test_top1", "test_top5")
CHECKPOINTS = 2

EXAMPLES = """examples:
  {command} --data cifar10 --root cifar-10-batches-bin --out runs/cifar10
  {command} --data folder --root imagenet --out runs/imagenet --amp --workers 8
  {command} --data folder --root imagenet --out runs/imagenet --amp --workers 8 --resume
  {command} --data folder --root imagenet --evaluate runs/imagenet/network.safetensors

then:
  tensorboard --logdir runs
  cbam inspect runs/cifar10/network.safetensors
"""


def arguments(about: str | None, command: str, devices: int = 1) -> argparse.Namespace:
    """The arguments of a recipe, those of its data filled in, which go to all `devices`."""
    parser = argparse.ArgumentParser(
        description=about,
        epilog=EXAMPLES.format(command=command),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--data", choices=DATA, required=True, help="folder: ROOT/train/CLASS/*, ROOT/val/CLASS/*")
    add("--root", type=Path, required=True, help="where the data are; nothing is downloaded")
    add("--out", type=Path, default=Path("runs/cbam"), help="the run's folder (%(default)s)")
    add("--resume", action="store_true", help="go on from the newest checkpoint, if there is one")
    add("--evaluate", type=Path, metavar="FILE", help="test a network's file, and train nothing")
    add("--model", choices=ARCHITECTURES, help="resnet50; for CIFAR resnet18")
    add("--attention", choices=("cbam", "se", "none"), default="cbam")
    add("--widen", type=float, help="factor of the widths behind the stem (the model's)")
    add("--epochs", type=int, help="90; for CIFAR 200")
    add("--batch-size", type=int, help="over all devices (256; for CIFAR 128)")
    add("--lr", type=float, default=0.1, help="the learning rate at the beginning (%(default)s)")
    add("--drops", type=int, nargs="*", help="epochs that begin with a tenth of the rate (30 60)")
    add("--momentum", type=float, default=0.9, help="of SGD (%(default)s)")
    add("--weight-decay", type=float, default=1e-4, help="of all parameters (%(default)s)")
    add("--size", type=int, help="side of the pictures from a folder (224)")
    add("--amp", action="store_true", help="compute in bfloat16; parameters stay float32")
    add("--seed", type=int, default=0, help="of weights, order and crops (%(default)s)")
    add("--workers", type=int, default=0, help="that read pictures meanwhile (%(default)s)")
    add("--save-every", type=int, metavar="STEPS", help="a checkpoint within an epoch too")
    args = parser.parse_args()
    for name, default in (IMAGENET if args.data == "folder" else CIFAR).items():
        if getattr(args, name) is None:
            setattr(args, name, default)
    for name in ("epochs", "batch_size", "size"):
        if getattr(args, name) < 1:
            parser.error(f"--{name.replace('_', '-')}={getattr(args, name)} is below 1")
    if args.save_every is not None and args.save_every < 1:
        parser.error(f"--save-every={args.save_every} is below 1")
    if args.batch_size % devices:
        parser.error(f"--batch-size={args.batch_size} is no multiple of the {devices} devices")
    if args.data != "folder" and args.size != SIDE:
        parser.error(f"--size={args.size}: pictures of {args.data} have {SIDE}; leave it out")
    return args


def architecture(args: argparse.Namespace, num_classes: int) -> Architecture:
    """The network of the arguments; CIFAR's small pictures go without the stem's strides."""
    changes = {} if args.widen is None else {"widen": args.widen}
    return Architecture.named(
        args.model,
        attention=None if args.attention == "none" else args.attention,
        stem="imagenet" if args.data == "folder" else "cifar",
        num_classes=num_classes,
        **changes,
    )


@contextlib.contextmanager
def told() -> Iterator[None]:
    """What is wrong with a call is told in a line, without a traceback, and the exit code is 2."""
    try:
        yield
    except (OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)


@told()
def data(args: argparse.Namespace) -> tuple[Pictures, Pictures]:
    """What is trained on, and what it is tested on."""
    return load(args.data, args.root, args.size, args.seed)


@told()
def network(path: Path, num_classes: int) -> tuple[Architecture, dict[str, np.ndarray]]:
    """The network in a file of any dialect, and its canonical weights."""
    found = read(path)
    if found.architecture.num_classes != num_classes:
        raise ValueError(
            f"--evaluate={path} tells {found.architecture.num_classes} classes apart, and the data "
            f"have {num_classes}; pass the data that it was trained on"
        )
    return found.architecture, found.weights


def show(figures: Mapping[str, float], writes: bool = True) -> None:
    """Figures in a line."""
    if writes:
        print(" ".join(f"{name}={value:.6g}" for name, value in figures.items()), flush=True)


@dataclass(frozen=True)
class Piece:
    """What is trained between two checkpoints.

    Attributes:
        epoch: from 0.
        indices: (steps, batch_size) of the pictures in each batch.
        ends_epoch: whether the epoch ends with it.
    """

    epoch: int
    indices: np.ndarray
    ends_epoch: bool


class Run:
    """A run and its folder.

    Args:
        args: the arguments.
        train: what is trained on.
        writes: whether this process is the one that writes.

    Attributes:
        architecture: of the network.
        epoch_steps: steps in an epoch.
        drops: steps from which on the rate is a tenth of what it was before.
    """

    @told()
    def __init__(self, args: argparse.Namespace, train: Pictures, *, writes: bool = True) -> None:
        self.args, self.train, self.writes = args, train, writes
        self.architecture = architecture(args, len(train.classes))
        self.epoch_steps = len(train) // args.batch_size
        if not self.epoch_steps:
            raise ValueError(
                f"--batch-size={args.batch_size} is more than the {len(train)} pictures to train "
                f"on; pass a smaller one"
            )
        self.drops = [epoch * self.epoch_steps for epoch in args.drops]
        self.rows: list[str] = []
        self.begun = time.monotonic()

    def rate(self, step: int) -> float:
        """The learning rate of a step, counted from 0."""
        rate = self.args.lr
        for drop in self.drops:
            rate *= DROP if step >= drop else 1
        return rate

    def recipe(self, step: int) -> Recipe:
        """Optimizer and rate as they stand at a step; a file tells nothing of the rate's drops."""
        rate = self.rate(step)
        return Recipe(
            "sgd",
            rate,
            steps=self.args.epochs * self.epoch_steps,
            momentum=self.args.momentum,
            weight_decay=self.args.weight_decay,
            decayed="all",
        )

    @told()
    def start(self) -> TrainingState:
        """Where the newest whole checkpoint stands, or the beginning."""
        found = newest(self.args.out)
        if found is not None and not self.args.resume:
            raise FileExistsError(
                f"--out={self.args.out} holds a run; pass --resume to go on with it, or another "
                f"folder"
            )
        if found is None:
            weights = initial_network(self.architecture, seed=self.args.seed)
            found = TrainingState(self.architecture, self.recipe(0), weights)
        if self.writes:
            self.args.out.mkdir(parents=True, exist_ok=True)
            self._agree()
            self._open_logs(found.step)
        return found

    def pieces(self, step: int) -> Iterator[Piece]:
        """What is left to train after `step` steps, in order."""
        size, end = self.args.save_every or self.epoch_steps, self.epoch_steps
        while step < self.args.epochs * end:
            epoch, first = divmod(step, end)
            last = min(first - first % size + size, end)
            order = self.train.order(epoch, self.args.batch_size)
            yield Piece(epoch, order[first:last], last == end)
            step += last - first

    def end(
        self,
        piece: Piece,
        state: TrainingState,
        trained: Mapping[str, float],
        tested: Mapping[str, float],
    ) -> None:
        """Log a piece's loss, top1 and top5, in training and testing, and write a checkpoint."""
        if not self.writes:
            return
        rate = self.rate(state.step - 1)
        row = {"epoch": piece.epoch + 1, "step": state.step, "rate": rate, **trained}
        row |= {f"test_{name}": value for name, value in tested.items()}
        self.rows.append(",".join(repr(row[name]) if name in row else "" for name in COLUMNS))
        with whole_file(self.args.out / "log.csv") as beside:
            beside.write_text("\n".join([",".join(COLUMNS), *self.rows, ""]))
        speed = piece.indices.size / self._lap()
        self.events.scalars(state.step, {**row, "pictures_per_second": speed})
        show(row)
        write_state(self.args.out / f"step-{state.step:08}.safetensors", state)
        for old in checkpoints(self.args.out)[CHECKPOINTS:]:
            old.unlink()

    def finish(self, weights: Mapping[str, np.ndarray]) -> None:
        """Write the trained network."""
        if self.writes:
            path = self.args.out / "network.safetensors"
            write(path, weights, self.architecture)
            print(f"→ {path}", flush=True)

    def progress(self, step: int) -> None:
        """A line that is overwritten, on a terminal."""
        if self.writes and sys.stderr.isatty():
            epoch, place = divmod(step - 1, self.epoch_steps)
            line = f"epoch {epoch + 1}/{self.args.epochs} step {place + 1}/{self.epoch_steps}"
            print(f"\r{line}\x1b[K", end="\r", file=sys.stderr, flush=True)

    def _lap(self) -> float:
        now = time.monotonic()
        seconds, self.begun = now - self.begun, now
        return seconds

    def _agree(self) -> None:
        """Go on only with the arguments of the run."""
        path = self.args.out / "arguments.json"
        own = {name: value for name, value in vars(self.args).items() if name not in FREE}
        before = json.loads(path.read_text()) if path.exists() else own
        apart = [name for name in own if before.get(name) != own[name]]
        if apart:
            told = ", ".join(f"{name}={before.get(name)!r}" for name in apart)
            raise ValueError(f"the run in {self.args.out} has {told}; pass the same to go on")
        with whole_file(path) as beside:
            beside.write_text(json.dumps(own, indent=1) + "\n")

    def _open_logs(self, step: int) -> None:
        """Go on behind `step`: what was logged behind it will be logged again."""
        path = self.args.out / "log.csv"
        lines = path.read_text().splitlines()[1:] if path.exists() else []
        self.rows = [line for line in lines if int(line.split(",")[1]) <= step]
        for remains in self.args.out.glob(".step-*"):
            remains.unlink()
        self.events = Events(self.args.out / "tensorboard", step)


class Events:
    """Scalars for TensorBoard, written without any framework; behind `step` if there are others."""

    def __init__(self, folder: Path, step: int) -> None:
        from tensorboard.compat.proto import event_pb2, summary_pb2
        from tensorboard.summary.writer.record_writer import RecordWriter

        self.make, self.summary = event_pb2.Event, summary_pb2.Summary
        folder.mkdir(parents=True, exist_ok=True)
        now = time.time_ns()
        self.file = (folder / f"events.out.tfevents.{now // 10**9}.{now}").open("wb")
        self.records = RecordWriter(self.file)
        begin = event_pb2.SessionLog(status=event_pb2.SessionLog.START)
        self._write(0, file_version="brain.Event:2")
        self._write(step + 1, session_log=begin)

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        named = [self.summary.Value(tag=tag, simple_value=v) for tag, v in values.items()]
        self._write(step, summary=self.summary(value=named))

    def _write(self, step: int, **fields: object) -> None:
        event = self.make(wall_time=time.time(), step=step, **fields)
        self.records.write(event.SerializeToString())
        self.file.flush()


def checkpoints(folder: Path) -> list[Path]:
    """The newest first."""
    return sorted(folder.glob("step-*.safetensors"), reverse=True)


def newest(folder: Path) -> TrainingState | None:
    """What stands in the newest checkpoint that is whole; None if there is no checkpoint.

    Raises:
        ValueError: there are some, and none can be read.
    """
    broken = []
    for path in checkpoints(folder):
        try:
            found = read_state(path)
        except CheckpointError as error:
            broken.append(str(error))
            continue
        for reason in broken:
            print(f"{reason}; the one before it is taken", file=sys.stderr)
        return found
    if broken:
        raise ValueError(
            f"--out={folder} holds no checkpoint that can be read: {'; '.join(broken)}; pass "
            f"another folder, or delete its checkpoints to begin anew"
        )
    return None

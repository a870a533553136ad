"""The recipes of examples/ on data made here, killed and resumed: train_torch, _keras, _flax."""

from __future__ import annotations

import csv
import importlib
import os
import shutil
import signal
import struct
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cbam_core import (
    Architecture,
    CBAMSpec,
    Recipe,
    TrainingState,
    initial_network,
    initial_weights,
    read,
    read_state,
    write,
    write_state,
)  # fmt: skip
from crosscheck import cli
from tests.compiling import QUICKLY

ROOT = Path(__file__).parent.parent
TRAIN, TEST, BATCH = 40, 10, 8
CLASSES = ("airplane", "bird", "cat")
# Recipe -> the backend of Keras that it runs on.
RECIPES = {"torch": "", "keras": "jax", "flax": ""}
# Recipe -> a format that another framework writes.
EXPORTS = {"torch": "tflite", "keras": "stablehlo", "flax": "onnx"}
SMALL = ("--model", "resnet18", "--widen", "0.0625", "--batch-size", BATCH, "--save-every", 2)


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    """CIFAR-10 and CIFAR-100 in their binary layout, and a folder of pictures."""
    root = tmp_path_factory.mktemp("data")
    rng = np.random.default_rng(0)
    for name, files, label_bytes in (
        ("cifar-10-batches-bin", [f"data_batch_{n}.bin" for n in range(1, 6)], 1),
        ("cifar-100-binary", ["train.bin"], 2),
    ):
        (root / name).mkdir()
        for file in (*files, f"test{'_batch' * (label_bytes == 1)}.bin"):
            count = TEST if file.startswith("test") else TRAIN // len(files)
            records = rng.integers(0, 256, (count, label_bytes + 3072), dtype=np.uint8)
            records[:, :label_bytes] = rng.integers(0, len(CLASSES), (count, label_bytes))
            records.tofile(root / name / file)
    (root / "cifar-10-batches-bin" / "batches.meta.txt").write_text("\n".join(CLASSES) + "\n\n")
    (root / "cifar-100-binary" / "fine_label_names.txt").write_text("\n".join(CLASSES) + "\n")
    for part, count in (("train", TRAIN // 2), ("val", TEST)):
        for number in range(count):
            folder = root / part / CLASSES[number % 2]
            folder.mkdir(parents=True, exist_ok=True)
            pixels = rng.integers(0, 256, (*rng.integers(40, 60, 2), 3), dtype=np.uint8)
            ending = (".JPEG", ".png")[number % 3 == 0]
            Image.fromarray(pixels).save(folder / f"{number}{ending}")
    return root


@pytest.fixture(scope="module")
def environment(tmp_path_factory) -> dict[str, str]:
    """Of processes that share what JAX has compiled."""
    cache = {
        "JAX_COMPILATION_CACHE_DIR": str(tmp_path_factory.mktemp("compiled")),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
    }
    quiet = {"OMP_NUM_THREADS": "1", "TF_CPP_MIN_LOG_LEVEL": "3", "PYTHONPATH": str(ROOT)}
    return {**os.environ, **QUICKLY, **cache, **quiet}


@pytest.fixture(scope="module")
def start(root, environment):
    """Start a recipe in a process of its own."""

    def start(framework: str, *arguments: object, backend: str = "") -> subprocess.Popen[str]:
        command = [sys.executable, f"examples/train_{framework}.py", "--root", root, *arguments]
        return subprocess.Popen(
            list(map(str, command)),
            cwd=ROOT,
            env=environment | {"KERAS_BACKEND": backend or RECIPES[framework] or "jax"},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    return start


def ended(process: subprocess.Popen[str]) -> str:
    """What a process that went well has said."""
    out, err = process.communicate()
    assert process.returncode == 0, err[-4000:]
    assert "step 1/" not in err  # no progress in a pipe
    return out


def first_checkpoint(out: Path, process: subprocess.Popen[str]) -> None:
    """Wait for it."""
    while process.poll() is None and not list(out.glob("step-*")):
        time.sleep(0.01)


def rows(out: Path) -> list[dict[str, str]]:
    with (out / "log.csv").open() as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize("framework", RECIPES)
def test_a_run_that_is_killed_ends_as_one_that_is_not(framework, start, tmp_path):
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    options = ("--data", "cifar10", "--epochs", 3, "--drops", 1, *SMALL)
    said = ended(start(framework, *options, "--out", whole))
    process = start(framework, *options, "--out", killed)
    first_checkpoint(killed, process)
    process.kill()
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    assert not (killed / "network.safetensors").exists()
    ended(start(framework, *options, "--out", killed, "--resume"))

    last = f"step-{15:08}.safetensors"
    for name in ("log.csv", "network.safetensors", last):
        assert (killed / name).read_bytes() == (whole / name).read_bytes(), name
    assert [row["step"] for row in rows(whole)] == [
        str(n) for e in (0, 5, 10) for n in (e + 2, e + 4, e + 5)
    ]
    assert {path.name for path in whole.glob("step-*")} == {last, f"step-{14:08}.safetensors"}
    found = read(whole / "network.safetensors")
    assert found.architecture.attention == "cbam"
    assert read_state(whole / last).step == 15
    tested = {k: float(v) for k, v in rows(whole)[-1].items() if k.startswith("test_")}
    figures = " ".join(f"{name}={value:.6g}" for name, value in tested.items())
    assert figures in said

    network = ("--evaluate", whole / "network.safetensors")
    said = ended(start(framework, "--data", "cifar10", "--batch-size", BATCH, *network))
    assert said.split() == figures.replace("test_", "").split()
    exported = tmp_path / f"exported.{EXPORTS[framework]}"
    command = ["export", "--weights", whole / "network.safetensors", "--out", exported]
    cli.app(list(map(str, [*command, "--to", EXPORTS[framework]])), standalone_mode=False)
    assert exported.stat().st_size


def test_a_run_moves_to_the_other_frameworks(start, tmp_path):
    """From torch's first checkpoint on, on a folder of pictures, in bfloat16."""
    whole = tmp_path / "torch"
    options = ("--data", "folder", "--size", 32, "--epochs", 2, "--lr", 0.001, "--amp", *SMALL)
    ended(start("torch", *options, "--out", whole))
    for framework, backend in (("flax", ""), ("keras", "tensorflow"), ("keras", "torch")):
        out = tmp_path / f"{framework}{backend}"
        out.mkdir()
        for name in ("arguments.json", "log.csv", f"step-{2:08}.safetensors"):
            shutil.copy(whole / name, out)
        ended(start(framework, *options, "--out", out, "--resume", backend=backend))
        assert rows(out)[0] == rows(whole)[0]
        for row, expected in zip(rows(out), rows(whole), strict=True):
            assert [bool(value) for value in row.values()] == [bool(v) for v in expected.values()]
            for name in ("step", "rate", "loss", "test_loss"):
                numbers = [float(figures[name] or 0) for figures in (row, expected)]
                np.testing.assert_allclose(*numbers, rtol=0.02, err_msg=f"{framework} {backend}")


def test_two_processes_end_as_two_of_which_one_was_killed(root, environment, tmp_path):
    """Under torchrun, with workers that read the pictures, and in bfloat16."""
    whole, killed = tmp_path / "whole", tmp_path / "killed"

    def torchrun(out: Path, *options: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
        command += ["--nproc-per-node", 2, "examples/train_torch.py", "--data", "cifar100"]
        command += ["--root", root, "--epochs", 2, *SMALL, "--workers", 1, "--amp", "--out", out]
        return subprocess.Popen(
            [*map(str, command), *options],
            cwd=ROOT,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    ended(torchrun(whole))
    process = torchrun(killed)
    first_checkpoint(killed, process)
    os.kill(children(process.pid)[1], signal.SIGKILL)
    _, errors = process.communicate()
    assert process.returncode == 1
    assert "exitcode: -9" in errors
    ended(torchrun(killed, "--resume"))
    for name in ("log.csv", "network.safetensors"):
        assert (killed / name).read_bytes() == (whole / name).read_bytes(), name


def children(parent: int) -> list[int]:
    """The processes that a process has started, in order."""
    listed = subprocess.run(["ps", "-A", "-o", "pid=,ppid="], capture_output=True, text=True)
    pairs = (map(int, line.split()) for line in listed.stdout.splitlines())
    return sorted(pid for pid, above in pairs if above == parent)


@pytest.fixture
def modules(monkeypatch):
    """pictures.py and runs.py, as the recipes import them."""
    monkeypatch.syspath_prepend(ROOT / "examples")
    return importlib.import_module("pictures"), importlib.import_module("runs")


def test_pictures_are_those_of_the_files(modules, root):
    pictures, _ = modules
    records = np.fromfile(root / "cifar-100-binary" / "test.bin", np.uint8).reshape(TEST, 3074)
    _, found = pictures.load("cifar100", root, 32, seed=0)
    np.testing.assert_array_equal(found.labels, records[:, 1])
    red = records[3, 2 : 2 + 1024].reshape(32, 32)
    mean, deviation = (numbers[0] for numbers in pictures.NORMALS["cifar100"])
    np.testing.assert_allclose(
        found.picture(3)[..., 0], (red / 255 - mean) / deviation, rtol=1e-5, atol=1e-6
    )
    _, found = pictures.load("folder", root, 32, seed=0)
    assert found.classes == ("airplane", "bird")
    x, labels = found.batch(np.arange(TEST))
    assert (x.shape, x.dtype, labels.tolist()) == ((TEST, 32, 32, 3), np.float32, [0] * 5 + [1] * 5)


def test_what_is_drawn_depends_on_seed_epoch_and_picture_alone(modules, root):
    pictures, _ = modules
    for data in ("cifar10", "folder"):
        first, again, other = (pictures.load(data, root, 32, seed=s)[0] for s in (0, 0, 1))
        order = first.order(2, BATCH)
        assert len(np.unique(order)) == order.size == len(first) // BATCH * BATCH
        np.testing.assert_array_equal(again.order(2, BATCH), order)
        assert (other.order(2, BATCH) != order).any()
        assert (first.order(3, BATCH) != order).any()
        np.testing.assert_array_equal(again.picture(5, 2), first.batch(np.array([4, 5]), 2)[0][1])
        assert (first.picture(5, 3) != first.picture(5, 2)).any()
        assert (other.picture(5, 2) != first.picture(5, 2)).any()


def test_every_part_of_a_crop_is_in_the_picture(modules):
    pictures, _ = modules
    rng = np.random.default_rng(0)
    for extent in ((500, 375), (10, 300), (1, 1)):
        for _ in range(200):
            left, top, right, bottom = pictures.random_box(extent, rng)
            assert 0 <= left < right <= extent[0]
            assert 0 <= top < bottom <= extent[1]
    assert pictures.middle((500, 256)) == (138, 16, 362, 240)


def python_version(folder: Path) -> None:
    (folder / "data_batch_1.bin").rename(folder / "data_batch_1")


def cut(folder: Path) -> None:
    os.truncate(folder / "data_batch_2.bin", 5000)


def another_class(folder: Path) -> None:
    (folder / "batches.meta.txt").write_text("airplane\n")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (python_version, "has no data_batch_1.bin; get the binary version of cifar10 from https"),
        (cut, "data_batch_2.bin has 5,000 bytes, which are no whole records of 3,073; unpack"),
        (another_class, "has a label 2, and batches.meta.txt names 1 classes; unpack the archive"),
    ],
)
def test_files_that_are_not_as_they_should_be_are_refused(modules, root, tmp_path, damage, message):
    pictures, _ = modules
    shutil.copytree(root / "cifar-10-batches-bin", tmp_path / "damaged")
    damage(tmp_path / "damaged")
    with pytest.raises((FileNotFoundError, ValueError), match=message.replace(".", r"\.")):
        pictures.load("cifar10", tmp_path / "damaged", 32, seed=0)


def test_folders_that_are_not_as_they_should_be_are_refused(modules, root, tmp_path):
    pictures, _ = modules
    with pytest.raises(FileNotFoundError, match="train holds no pictures in folders of their clas"):
        pictures.load("folder", tmp_path, 32, seed=0)
    shutil.copytree(root / "train", tmp_path / "train")
    shutil.copytree(root / "val" / "bird", tmp_path / "val" / "cat")
    with pytest.raises(ValueError, match="have not the same classes: airplane, bird, cat in one"):
        pictures.load("folder", tmp_path, 32, seed=0)


def test_wrong_calls_end_with_a_line(modules, root, tmp_path, monkeypatch, capsys):
    _, runs = modules

    def message(*options: object) -> str:
        command = ("recipe", "--data", "cifar10", "--root", root, "--out", tmp_path, *options)
        monkeypatch.setattr(sys, "argv", list(map(str, command)))

        def call() -> None:
            args = runs.arguments("", "", 2)
            runs.Run(args, runs.data(args)[0]).start()
            runs.network(args.evaluate, 3)

        with pytest.raises(SystemExit) as ended:
            call()
        assert ended.value.code == 2
        return capsys.readouterr().err

    assert "--batch-size=128 is more than the 40 pictures to train on" in message()
    assert "--batch-size=7 is no multiple of the 2 devices" in message("--batch-size", 7)
    assert "--epochs=0 is below 1" in message("--epochs", 0)
    assert "--size=64: pictures of cifar10 have 32" in message("--size", 64)
    assert "has no data_batch_1.bin" in message("--root", tmp_path)
    digits = ROOT / "crosscheck/data/digits.safetensors"
    options = ("--batch-size", BATCH, "--lr", 0.01)
    assert "tells 10 classes apart, and the data have 3" in message(*options, "--evaluate", digits)
    block = tmp_path / "block.safetensors"
    write(block, initial_weights(CBAMSpec(8), seed=0), CBAMSpec(8))
    options = ("--batch-size", BATCH, "--lr", 0.01, "--evaluate", block)
    assert "holds no whole network" in message(*options)
    options = ("--batch-size", BATCH, "--resume")
    assert "has lr=0.01; pass the same to go on" in message(*options)


def test_the_newest_whole_checkpoint_is_taken(modules, tmp_path, capsys):
    _, runs = modules
    assert runs.newest(tmp_path) is None
    small = Architecture("basic", (1,), (4,), num_classes=2)
    weights, recipe = initial_network(small), Recipe("sgd", 0.1, steps=20)
    for step in (9, 10):
        path = tmp_path / f"step-{step:08}.safetensors"
        write_state(path, TrainingState(small, recipe, weights, step=step))
    assert runs.newest(tmp_path).step == 10
    os.truncate(path, 1000)
    assert runs.newest(tmp_path).step == 9
    assert "the one before it is taken" in capsys.readouterr().err
    os.truncate(tmp_path / f"step-{9:08}.safetensors", 1000)
    with pytest.raises(ValueError, match=r"holds no checkpoint that can be read: .*10.*09"):
        runs.newest(tmp_path)
    assert not capsys.readouterr().err


def test_events_are_what_tensorboard_reads(modules, tmp_path):
    _, runs = modules
    events = runs.Events(tmp_path, 7)
    events.scalars(8, {"loss": 0.5})
    (file,) = tmp_path.iterdir()
    version, begin, scalars = records(file)
    assert version.file_version == "brain.Event:2"
    assert (begin.step, begin.session_log.status) == (8, begin.session_log.START)
    (value,) = scalars.summary.value
    assert (scalars.step, value.tag, value.simple_value) == (8, "loss", 0.5)


def records(file: Path) -> list:
    """The events in a file: length, checksum, event, checksum."""
    from tensorboard.compat.proto.event_pb2 import Event

    content, found = file.read_bytes(), []
    while content:
        (length,) = struct.unpack("<Q", content[:8])
        found.append(Event.FromString(content[12 : 12 + length]))
        content = content[16 + length :]
    return found


# The optimizers of tf.keras are those of Keras's backend.
@pytest.mark.parametrize(
    ("framework", "backend"), [("torch", ""), ("tf", "tensorflow"), ("keras", "jax"), ("flax", "")]
)
def test_the_walk_through_runs(framework, backend, environment, tmp_path):
    """In a folder that has nothing, and from which it leaves nothing."""
    done = subprocess.run(
        [sys.executable, ROOT / f"examples/walkthrough_{framework}.py"],
        cwd=tmp_path,
        env=environment | {"KERAS_BACKEND": backend},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    assert "1786 of 1797 digits read right" in done.stdout
    assert "stage1.block0.attention.spatial" in done.stdout
    assert not list(tmp_path.iterdir())

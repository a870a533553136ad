"""`cbam bench`, as its users call it: small maps and few rounds. No time is asserted."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner, Result

from crosscheck.benchmark import clock, work
from crosscheck.benchmark.plan import CANDIDATES, MODES, SHAPES, TORCH_ONLY, label
from crosscheck.cli import app
from tests.crosscheck.test_cli import cbam
from tests.crosscheck.test_summary_command import words

SHAPE = (2, 256, 16, 16)
SIZE = 4 * math.prod(SHAPE)
TINY = ["--shape", label(SHAPE), "--rounds", "2", "--threads", "1"]


def bench(*arguments: object) -> Result:
    environment = {"COLUMNS": "160", "NO_COLOR": "1"}
    return CliRunner().invoke(app, ["bench", *map(str, arguments)], env=environment)


def measured(path: Path, *arguments: object) -> tuple[dict, str]:
    """The JSON of a good run, and what it printed."""
    done = bench(*arguments, "--json", path)
    assert done.exit_code == 0, done.output
    return json.loads(path.read_text()), done.stdout


@pytest.fixture(scope="module")
def torch_run(tmp_path_factory) -> tuple[dict, str]:
    path = tmp_path_factory.mktemp("bench") / "torch.json"
    return measured(path, *TINY, "--modes", "eager", "--plot", path.with_suffix(".png"))


def rows(found: dict, kind: str) -> dict[str, dict]:
    return {row["candidate"]: row for row in found["rows"] if row["pass"] == kind}


def test_the_json_has_every_candidate_and_pass(torch_run):
    found, _ = torch_run
    assert found["schema"] == 1
    assert {k: found[k] for k in ("framework", "dtype", "device", "threads", "rounds")} == {
        "framework": "torch", "dtype": "float32", "device": "cpu", "threads": 1, "rounds": 2,
    }  # fmt: skip
    assert {"python", "torch"} <= set(found["versions"])
    assert found["machine"]["cores"] >= 1
    assert tuple(rows(found, "forward")) == CANDIDATES
    assert tuple(rows(found, "training")) == tuple(
        name for name in CANDIDATES if name not in ("copy", "scale")
    )
    for row in found["rows"]:
        assert row["shape"] == list(SHAPE)
        assert len(row["samples_ms"]) == 2
        assert row["ms"]["lower"] <= row["ms"]["median"] <= row["ms"]["upper"]
        assert row["ms"]["median"] == pytest.approx(np.median(row["samples_ms"]))


def test_what_is_compared_follows_from_the_samples(torch_run):
    """The figures of the table are those of the samples, round by round."""
    found, _ = torch_run
    copy = rows(found, "forward")["copy"]["ms"]["median"]
    for kind in ("forward", "training"):
        official = np.array(rows(found, kind)["official"]["samples_ms"])
        moved = work.total(kind, SHAPE, 4)
        for name, row in rows(found, kind).items():
            if name in ("copy", "scale"):
                assert (row["faster"], row["of_floor"], row["moved_bytes"]) == (None, None, None)
                continue
            faster = np.median(official / np.array(row["samples_ms"]))
            assert row["faster"]["median"] == pytest.approx(faster)
            assert row["moved_bytes"] == moved
            floor = copy * moved / (2 * SIZE)
            assert row["of_floor"] == pytest.approx(row["ms"]["median"] / floor)


def test_the_table_names_the_paths_and_says_what_its_columns_mean(torch_run):
    found, shown = torch_run
    text = words(shown)
    assert "2 x 256 x 16 x 16 (N, C, H, W), 524.3 kB" in text
    assert f"ours ({rows(found, 'forward')['ours']['path']}) eager" in text
    assert "plain (composition) eager" in text
    assert "faster: than official eager, the median over the rounds" in text
    assert "kept: bytes kept for the backward pass beyond x, y and weights, likewise" in text
    assert "with 1 thread, float32, 2 rounds in turn" in text


# What a forward pass allocates and what it keeps for the backward one, in sizes of x: at most so
# much. The composition has Mc * x for the spatial gate and again for y; kernels write y and keep x.
# The rest is what lies between, which has little weight on maps larger than these.
BOUNDS = {"composition": (3.2, 2.1), "kernels": (1.2, 0.08)}


# XLA's frameworks keep the comparisons of maxima as well.
KEPT_ELSEWHERE = {"composition": 4.2, "kernels": 0.08}


def test_allocations_that_the_profiler_counts(torch_run):
    """Counts, unlike times, are the same on a busy machine."""
    found, _ = torch_run
    for name in ("ours", "plain"):
        forward, training = rows(found, "forward")[name], rows(found, "training")[name]
        kind = "composition" if forward["path"] == "composition" else "kernels"
        allocated, kept = BOUNDS[kind]
        assert SIZE <= forward["allocated_bytes"] <= allocated * SIZE
        assert training["kept_bytes"] <= kept * SIZE
    # The public structure stores x' and y, and the maps between them.
    assert rows(found, "forward")["official"]["allocated_bytes"] >= 2 * SIZE
    assert rows(found, "training")["official"]["kept_bytes"] >= SIZE


def test_the_bars_are_drawn(torch_run, tmp_path):
    path = tmp_path / "bars.png"
    arguments = ["--modes", "eager", "--candidates", "ours,official", "--passes", "forward"]
    done = bench(*TINY, *arguments, "--plot", path)
    assert done.exit_code == 0, done.output
    assert path.read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("framework", [name for name in MODES if name != "torch"])
def test_every_framework(framework, tmp_path):
    mode = MODES[framework][-1]
    found, shown = measured(tmp_path / "f.json", "--framework", framework, *TINY, "--modes", mode)
    assert tuple(rows(found, "forward")) == tuple(n for n in CANDIDATES if n not in TORCH_ONLY)
    assert "faster: than plain in the same mode" in words(shown)
    for row in rows(found, "training").values():
        assert row["mode"] == mode
        kind = "composition" if row["path"] == "composition" else "kernels"
        assert 0 < row["kept_bytes"] <= KEPT_ELSEWHERE[kind] * SIZE


@pytest.mark.compiler
def test_compiled_beside_eager(tmp_path):
    found, _ = measured(tmp_path / "c.json", *TINY, "--candidates", "ours,official")
    passes = [(row["candidate"], row["mode"], row["pass"]) for row in found["rows"]]
    assert passes == [
        (name, mode, kind)
        for name in ("ours", "official")
        for mode in ("eager", "compiled")
        for kind in ("forward", "training")
    ]


@pytest.mark.parametrize(
    ("framework", "candidates"),
    [("torch", ["none", "ours", "plain", "official"]), ("keras-torch", ["none", "ours", "plain"])],
)
def test_a_network_with_attention_and_without(framework, candidates, tmp_path):
    options = f"--framework {framework} --modes eager --network resnet18 --batch 2 --size 64"
    arguments = [*options.split(), "--rounds", "2", "--threads", "1"]
    found, shown = measured(tmp_path / "n.json", *arguments, "--plot", tmp_path / "n.png")
    assert found["network"] == "resnet18"
    for kind in ("forward", "training"):
        own = rows(found, kind)
        assert list(own) == candidates
        none = np.array(own["none"]["samples_ms"])
        for row in own.values():
            added = np.median(np.array(row["samples_ms"]) / none - 1)
            assert row["adds"]["median"] == pytest.approx(added)
    assert "resnet18 on pictures 2 x 3 x 64 x 64" in words(shown)
    assert "adds: to the time of the network without attention" in words(shown)


@pytest.mark.parametrize("framework", ["tf", "keras-tensorflow", "keras-jax", "flax", "linen"])
def test_a_network_in_every_framework(framework, tmp_path):
    mode = MODES[framework][0]
    options = "--network resnet18 --batch 2 --size 64 --passes forward --candidates none,ours"
    arguments = ["--framework", framework, "--modes", mode, *options.split(), "--rounds", "1"]
    found, _ = measured(tmp_path / "n.json", *arguments)
    assert list(rows(found, "forward")) == ["none", "ours"]


@pytest.mark.parametrize("item_size", [2, 4, 8])
@pytest.mark.parametrize("shape", SHAPES[:5], ids=label)
def test_the_primitives_move_the_map_as_often_as_the_floor_says(shape, item_size):
    """3 reads and 1 write; backward 3 reads of x and of the gradient and 1 write, or a bit more."""
    x = item_size * math.prod(shape)
    forward, backward = work.forward(shape, item_size), work.backward(shape, item_size)
    assert list(forward) == ["pool_space", "pool_channels", "scale"]
    assert list(backward) == list(reversed(forward))
    reads, writes = (
        sum(getattr(moved, kind) // x for moved in forward.values()) for kind in ("reads", "writes")
    )
    assert (reads, writes) == (3, 1)
    reads, writes = (
        sum(getattr(moved, kind) // x for moved in backward.values())
        for kind in ("reads", "writes")
    )
    assert (reads, writes) == (6, 1)
    assert work.total("forward", shape, item_size) <= 4.4 * x
    assert work.total("training", shape, item_size) <= 12.1 * x


def test_candidates_are_timed_in_turn_and_each_round_in_another_order():
    calls: list[str] = []
    runs = {name: (lambda name=name: calls.append(name), 2) for name in "abcd"}
    rounds: list[int] = []
    taken = clock.samples(runs, 6, lambda result: None, lambda: rounds.append(len(calls)))
    assert rounds == [8, 16, 24, 32, 40, 48]
    assert {name: len(samples) for name, samples in taken.items()} == dict.fromkeys("abcd", 6)
    orders = ["".join(calls[start : start + 8 : 2]) for start in range(0, 48, 8)]
    assert {"".join(sorted(order)) for order in orders} == {"abcd"}
    assert len(set(orders)) > 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--framework", "torch,flax"], "'torch,flax' is unknown; choose from torch, tf"),
        (["--framework", "theano"], "'theano' is unknown; choose from torch, tf, keras-tensorflow"),
        (["--shape", "32,256,56"], "'32,256,56' is no shape; pass N,C,H,W like 32,256,56,56"),
        (["--shape", "1,64,0,8"], "'1,64,0,8' is no shape; pass N,C,H,W like 32,256,56,56"),
        (["--shape", "1,8,8,8"], "has 8 channels, of which a hidden layer would have a sixteenth"),
        (["--network", "resnet20"], "'resnet20' is unknown; choose from resnet18, resnet34"),
        (["--network", "resnet18", "--shape", "1,64,8,8"], "pass --batch and --size instead"),
        (["--batch", "2"], "only networks have these; pass --network too"),
        (["--candidates", "none"], "'none' is unknown; choose from ours, plain, official"),
        (["--network", "resnet18", "--candidates", "timm"], "choose from none, ours, plain"),
        (["--framework", "flax", "--candidates", "timm"], "choose from ours, plain, copy, scale"),
        (["--framework", "flax", "--modes", "eager"], "'eager' is unknown; choose from jit"),
        (["--passes", "backward"], "'backward' is unknown; choose from forward, training"),
        (["--dtype", "float8"], "'float8' is unknown; choose from float32, float64"),
        (["--device", "tpu"], "'tpu' is unknown; choose from cpu, gpu"),
        (["--threads", "0"], "Input should be greater than or equal to 1"),
        (["--rounds", "0"], "Input should be greater than or equal to 1"),
        (["--json", "no/such.json"], "is in a folder that does not exist"),
        (["--plot", "bars.svg"], "bars.svg does not end with .png; pass a path that does"),
    ],
    ids=str,
)
def test_a_wrong_call_exits_with_2_and_says_why(arguments, message):
    done = bench(*arguments)
    assert (done.exit_code, done.stdout) == (2, "")
    assert message in words(done.stderr)


@pytest.mark.parametrize("framework", ["torch", "tf", "flax"])
def test_without_a_gpu_it_says_so(framework):
    done = cbam("bench", "--framework", framework, "--device", "gpu", CUDA_VISIBLE_DEVICES="-1")
    assert done.returncode == 2
    assert f"Invalid value for --device: {framework}:" in words(done.stderr)
    assert "sees no GPU here; run with --device cpu" in words(done.stderr)


def _without(module: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """The command in an interpreter that is told that it has no such module."""
    code = (
        "import importlib.util as u, sys; find = u.find_spec;"
        f"u.find_spec = lambda name, *a: None if name == {module!r} else find(name, *a);"
        "from crosscheck.__main__ import main;"
        f"sys.argv = {['cbam', 'bench', *arguments]!r}; main()"
    )
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)


def test_a_peer_that_is_not_installed_is_left_out_and_named():
    done = _without("pytorchcv", *TINY, "--modes", "eager", "--passes", "forward")
    assert done.returncode == 0, done.stderr
    assert "left out: pytorchcv is not installed; pip install --no-deps pytorchcv" in words(
        done.stdout
    )
    assert "pytorchcv eager" not in words(done.stdout)


@pytest.mark.parametrize(
    ("module", "arguments", "message"),
    [
        ("pytorchcv", ["--candidates", "pytorchcv"], "pytorchcv is not installed; pip install"),
        ("flax", ["--framework", "flax"], 'flax is not installed; pip install "cbam[flax]"'),
        ("matplotlib", ["--plot", "a.png"], 'not installed; pip install "cbam[examples]"'),
    ],
)
def test_what_is_asked_for_and_absent_is_an_error(module, arguments, message):
    done = _without(module, *arguments)
    assert done.returncode == 2
    assert message in words(done.stderr)


def test_a_framework_that_fails_exits_with_1_and_shows_its_last_words(monkeypatch):
    # With this Python itself does not start.
    monkeypatch.setenv("PYTHONHASHSEED", "not a number")
    done = bench(*TINY)
    assert done.exit_code == 1
    assert "torch: its process ended early" in words(done.stderr)
    assert "PYTHONHASHSEED" in words(done.stderr)


def test_progress_is_shown_on_a_terminal_alone():
    arguments = [*TINY, "--modes", "eager", "--candidates", "ours", "--passes", "forward"]
    done = cbam("bench", *arguments, FORCE_COLOR="1")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "starting torch" in done.stderr
    assert cbam("bench", *arguments).stderr == ""


def test_help_has_examples_and_exit_codes():
    shown = words(cbam("bench", "--help").stdout)
    assert "cbam bench --network resnet50" in shown
    assert "0 measured, 1 a framework failed on the way, 2 the call was wrong" in shown

"""The command, as its users call it: a process, its output and its exit code."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from typer.testing import CliRunner

from cbam_core import CBAMSpec, initial_weights, reference_network, write
from crosscheck.cli import app


def cbam(*arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
    import os

    command = [sys.executable, "-m", "crosscheck", *map(str, arguments)]
    env = {**os.environ, "COLUMNS": "160", "NO_COLOR": "1", **environment}
    return subprocess.run(command, env=env, capture_output=True, text=True, timeout=600)


def test_a_check_writes_the_table_and_the_json(tmp_path):
    path = tmp_path / "out.json"
    done = cbam("check", "--frameworks", "torch", "--dtype", "float64,float16", "--json", path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "quantities equal, on cpu with TF32 off" in done.stdout
    assert done.stderr == ""  # no progress in a pipe
    report = json.loads(path.read_text())
    assert {k: report[k] for k in ("schema", "reference", "device", "ok")} == {
        "schema": 1,
        "reference": "numpy-float64",
        "device": "cpu",
        "ok": True,
    }
    assert {"python", "numpy", "torch"} <= set(report["versions"])
    rows = report["rows"]
    assert {row["dtype"] for row in rows} == {"float64", "float16"}
    assert {row["mode"] for row in rows} == {"eval", "train"}
    kinds = {row["quantity"].partition(":")[0] for row in rows}
    assert kinds == {"output", "grad", "state"}
    assert {"grad:input", "grad:channel.reduce.kernel", "state:spatial.norm.var"} <= {
        row["quantity"] for row in rows
    }
    assert set(rows[0]) == {
        "framework", "case", "dtype", "mode", "quantity", "max_abs", "max_rel", "limit", "ok",
    }  # fmt: skip


def test_a_check_of_networks_has_a_table_for_each(tmp_path):
    path = tmp_path / "out.json"
    options = "--model resnet18 --attention cbam,none --size 64 --frameworks torch --mode train"
    done = cbam("check", *options.split(), "--dtype", "float64,float32", "--json", path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stderr == ""
    shown = [line.split()[0] for line in done.stdout.splitlines() if line.strip()]
    assert shown.count("torch") == 4
    assert [name for name in shown if name.startswith("resnet18")] == ["resnet18-cbam", "resnet18"]
    rows = json.loads(path.read_text())["rows"]
    quantities = {(row["case"], row["dtype"], row["quantity"]) for row in rows}
    assert ("resnet18-cbam", "float64", "grad:stage4.block1.attention.spatial.norm.scale") in (
        quantities
    )
    assert ("resnet18", "float32", "state:stage1.block0.norm1.var") in quantities
    # In float32 rounding decides relus and maxima, so that gradients are judged in float64.
    assert not [q for _, dtype, q in quantities if dtype == "float32" and q.startswith("grad")]


def test_a_network_that_differs_exits_with_1_and_is_named(monkeypatch, tmp_path):
    """The package has another eps than the judge, which runs in this process."""
    monkeypatch.setattr(reference_network, "NORM_EPS", 1e-3)
    path = tmp_path / "out.json"
    options = "--model resnet18 --attention none --size 64 --frameworks torch --mode eval"
    done = CliRunner().invoke(app, ["check", *options.split(), "--json", str(path)])
    assert done.exit_code == 1
    assert "torch resnet18 float64 eval: output: differs by" in " ".join(done.output.split())
    report = json.loads(path.read_text())
    assert not report["ok"]
    assert not next(row for row in report["rows"] if row["quantity"] == "output")["ok"]


def test_long_work_shows_its_progress_on_a_terminal(tmp_path):
    """What rich takes for a terminal: where FORCE_COLOR is set."""
    options = "--model resnet18 --attention none --size 64 --frameworks torch --mode eval"
    done = cbam("check", *options.split(), FORCE_COLOR="1")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "weights for resnet18" in done.stderr
    assert "torch" in done.stderr
    assert "1/1" in done.stderr
    assert "1/1" not in done.stdout
    write(tmp_path / "block.safetensors", initial_weights(CBAMSpec(8)), CBAMSpec(8))
    done = cbam("inspect", tmp_path / "block.safetensors", FORCE_COLOR="1")
    assert "reading" in done.stderr
    done = cbam("convert", tmp_path / "block.safetensors", tmp_path / "block.npz", FORCE_COLOR="1")
    assert "writing" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--frameworks", "torch,theano"], "'theano' is unknown; choose from torch, torch-compile"),
        (["--dtype", "float8"], "'float8' is unknown; choose from float64, float32"),
        (["--mode", "test"], "'test' is unknown; choose from eval, train"),
        (["--device", "tpu"], "'tpu' is unknown; choose from cpu, gpu"),
        (["--device", "cpu,gpu"], "'cpu,gpu' is unknown; choose from cpu, gpu"),
        (["--image", "none.png"], "--image none.png is not a readable picture"),
        (["--json", "no/such/folder.json"], "is in a folder that does not exist; create it first"),
        (["--report", "no/such/page.html"], "is in a folder that does not exist; create it first"),
        (["--json", "."], ". is a folder; pass the path of a file"),
        (["--faults", "--dtype", "float32"], "each fault has its own case, dtype and mode"),
        (["--faults", "--model", "resnet18"], "each fault has its own case, dtype and mode"),
        (["--model", "resnet20"], "'resnet20' is unknown; choose from resnet18, resnet34"),
        (
            ["--model", "resnet18", "--attention", "eca"],
            "'eca' is unknown; choose from cbam, se, n",
        ),
        (["--model", "resnet18", "--dtype", "float16"], "choose from float64, float32"),
        (["--model", "resnet18", "--size", "32"], "Input should be greater than or equal to 64"),
        (["--attention", "se"], "only networks have these; pass --model too"),
        (["--size", "96"], "only networks have these; pass --model too"),
        (["--processes", "0"], "Input should be greater than or equal to 1"),
    ],
)
def test_a_wrong_call_exits_with_2_and_says_why(arguments, message):
    done = cbam("check", *arguments)
    assert done.returncode == 2
    assert message in " ".join(done.stderr.replace("│", " ").split())


def test_a_framework_that_is_asked_for_and_absent_is_an_error(tmp_path):
    # A package that can't be found is simulated by an interpreter that is told so.
    code = (
        "import importlib.util as u, sys; find = u.find_spec;"
        "u.find_spec = lambda name, *a: None if name == 'flax' else find(name, *a);"
        "from crosscheck.__main__ import main;"
        "sys.argv = ['cbam', 'check', '--frameworks', 'flax']; main()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 2
    words = " ".join(done.stderr.replace("│", " ").split())
    assert 'flax was asked for, and flax is not installed; pip install "cbam[flax]"' in words


def test_without_a_gpu_it_says_so():
    done = cbam("check", "--frameworks", "torch", "--device", "gpu", CUDA_VISIBLE_DEVICES="-1")
    assert done.returncode == 2
    words = " ".join(done.stderr.replace("│", " ").split())
    assert "Invalid value for --device: torch: torch sees no GPU here; run with" in words


def test_without_typer_it_says_what_to_install():
    code = "import sys; sys.modules['typer'] = None;from crosscheck.__main__ import main; main()"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 2
    assert 'the command cbam needs typer, which is not installed; pip install "cbam[' in done.stderr


def test_help_has_examples_and_exit_codes():
    done = cbam("check", "--help")
    assert done.returncode == 0
    assert "cbam check --faults" in done.stdout
    assert "cbam check --model resnet50" in done.stdout
    assert "cbam check --model resnet18,mobilenet --attention cbam,se,none" in done.stdout
    assert (
        "0 all equal (with --faults: all caught), 1 a check failed, 2 the call was" in done.stdout
    )

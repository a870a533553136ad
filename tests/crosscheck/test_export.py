"""`cbam export` and `cbam check --exports`: files that runtimes run without this project."""

from __future__ import annotations

import ast
import functools
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import onnx
import pytest
from typer.testing import CliRunner

import cbam_core
from cbam_core import Architecture, CBAMSpec
from crosscheck import trained
from crosscheck.cli import app
from crosscheck.exporting import check as checks
from crosscheck.exporting.export import ExportError, export
from crosscheck.exporting.formats import FORMATS, RUNTIMES
from tests.crosscheck.test_cli import cbam

PAGE = Path(__file__).parent.parent.parent / "docs" / "export.md"
# What has a window of a fixed size; of a network only the stem has one.
WINDOWS = {"AveragePool", "MaxPool", "LpPool"}
# What loads the files, and nothing else of what writes them.
LOADS = {
    "onnx": {"onnxruntime"},
    "torch-export": {"torch"},
    "savedmodel": {"tensorflow"},
    "tflite": {"ai_edge_litert"},
    "stablehlo": {"jax"},
}
NETWORK = Architecture("basic", (1,), (8,), attention="cbam", num_classes=10)
FRAMEWORKS = {"torch", "tensorflow", "jax", "flax", "cbam_core", "cbam_torch", "cbam_tf"}


@functools.cache
def planned():
    return checks.plan_exports()


def call(*arguments):
    """The command in this process, which has imported it already."""
    done = CliRunner().invoke(app, [*map(str, arguments)], env={"COLUMNS": "160"})
    done.words = " ".join(done.output.replace("│", " ").split())
    return done


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    """The whole check of all formats, once."""
    path = tmp_path_factory.mktemp("check") / "out.json"
    done = cbam("check", "--exports", "--json", path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stderr == ""
    report = json.loads(path.read_text())
    assert report["ok"]
    assert {"onnx", "onnxruntime", "litert"} <= set(report["versions"])
    return report["rows"]


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_a_runtime_computes_what_the_reference_does(rows, runtime):
    own = [row for row in rows if row["framework"] == runtime]
    cases = {plan.case.name: plan for plan in planned()}
    assert {(row["case"], row["quantity"]) for row in own} == {
        (name, f"output:{shape}") for name, plan in cases.items() for shape in plan.inputs
    }
    assert all(row["ok"] and row["max_rel"] <= row["limit"] == 1e-5 for row in own)
    assert {(row["dtype"], row["mode"]) for row in own} == {("float32", "eval")}


def test_what_is_checked_has_every_choice_in_it():
    specs = checks.BLOCKS.values()
    choices = {
        "gate": {"sigmoid", "hard_sigmoid", "hard_sigmoid_keras2", "double_sigmoid"},
        "order": {"channel_spatial", "spatial_channel", "parallel", "channel", "spatial"},
        "pooling": {"separate", "light"},
        "spatial_descriptor": {"pool", "conv"},
        "residual": {False, True},
        "rank": {1, 2, 3},
    }
    for field, known in choices.items():
        assert {getattr(spec, field) for spec in specs} == known, field
    assert {pool for spec in specs for pool in spec.channel_pools} == {"avg", "max", "lp", "lse"}
    full = {plan.case.described for plan in checks.plan_exports(full=True)}
    assert f"{len(checks.plan_exports(full=True))} cases" in PAGE.read_text()
    widths = {"channels": 16, "hidden": 4, "kernel_size": 3}
    alike = {one.replace(**widths) for one in full if isinstance(one, CBAMSpec) and one.rank == 2}
    assert {CBAMSpec.preset(name, **widths) for name in cbam_core.PRESETS} <= alike


def test_inputs_have_two_batch_sizes_and_further_sizes_on_every_axis_but_the_channels():
    for plan in planned():
        batch, *space, channels = zip(*(x.shape for x in plan.inputs.values()), strict=True)
        assert (len(set(batch)), len(set(channels))) == (2, 1), plan.case.name
        assert all(1 in axis and len(set(axis)) >= 2 for axis in space), plan.case.name


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """The files of one network in all formats, and what the command printed."""
    folder = tmp_path_factory.mktemp("written") / 'by "him" or none'
    folder.mkdir()
    drawn = cbam_core.initial_network(NETWORK, "he_normal", seed=0)
    cbam_core.write(folder / "net.v1.safetensors", drawn, NETWORK)
    done = cbam("export", "--weights", folder / "net.v1.safetensors", "--to", ",".join(FORMATS))
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stderr == ""
    assert {path.name for path in folder.iterdir()} == {
        "net.v1.safetensors",
        *(f"net.v1{form.suffix}" for form in FORMATS.values()),
    }
    return folder, done.stdout


@pytest.mark.parametrize("name", FORMATS)
def test_the_code_that_is_printed_runs_the_file_without_what_wrote_it(written, name):
    folder, printed = written
    form = FORMATS[name]
    code = form.code.format(
        path=str(folder / f"net.v1{form.suffix}"),
        shape="2, 3, 224, 224" if form.channel_axis == 1 else "2, 224, 224, 3",
    )
    assert code in printed
    # Of the shape that is printed it takes a part, which is as good an example and quicker.
    code = code.replace("224, 224", "64, 48")
    loaded = f"import sys; print(*sorted({FRAMEWORKS} & set(sys.modules)))"
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"}
    done = subprocess.run(
        [sys.executable, "-c", f"{code}\n{loaded}"],
        cwd=folder, env=environment, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    shape, modules = done.stdout.splitlines()
    assert ast.literal_eval(shape) == (2, 10)
    # TensorFlow loads JAX itself.
    assert set(modules.split()) - {"jax"} <= LOADS[name] - {"jax"}


def test_an_onnx_graph_reduces_and_has_no_window_but_the_stem_s(written):
    folder, _ = written
    graph = onnx.load(folder / "net.v1.onnx").graph
    types = [node.op_type for node in graph.node]
    assert [kind for kind in types if kind in WINDOWS] == ["MaxPool"]
    # Each attention has two of both, and the head an average.
    pools = 2 * len(list(NETWORK.attentions()))
    assert (types.count("ReduceMean"), types.count("ReduceMax")) == (pools + 1, pools)
    assert {node.domain for node in graph.node} <= {"", "ai.onnx"}
    dimensions = graph.input[0].type.tensor_type.shape.dim
    assert [d.dim_param or d.dim_value for d in dimensions] == ["batch", 3, "height", "width"]


def test_a_name_that_the_weights_have_is_accepted_and_another_is_not(tmp_path):
    path = tmp_path / "net.safetensors"
    network = Architecture.named("resnet18", widths=(4, 4, 4, 4), num_classes=2)
    cbam_core.write(path, cbam_core.initial_network(network, "he_normal"), network)
    done = call("export", "resnet50", "--weights", path, "--to", "onnx")
    assert done.exit_code == 2
    assert "holds a network of basic blocks, 2, 2, 2, 2 in its stages, which is no" in done.words
    assert {one.name for one in tmp_path.iterdir()} == {"net.safetensors"}


def test_what_can_not_be_written_leaves_the_target_as_it_was(tmp_path):
    target = tmp_path / "net.stablehlo"
    target.write_bytes(b"old")
    with pytest.raises(ExportError, match=r"net\.stablehlo was not written: ValueError"):
        export(CBAMSpec(8), {}, "stablehlo", target)
    assert [path.name for path in tmp_path.iterdir()] == ["net.stablehlo"]
    assert target.read_bytes() == b"old"


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--to", "caffe"], 2, "'caffe' is unknown; choose from onnx, torch-export, savedmodel"),
        (["--to", "onnx,tflite", "--out", "net"], 2, "2 files are written; leave it out"),
        (["--to", "onnx", "--out", "no/such/net.onnx"], 2, "a folder that does not exist"),
        (["--to", "savedmodel", "--out", "tests"], 2, "tests exists; delete it first"),
        (["resnet18,vgg", "--to", "onnx"], 2, "'resnet18,vgg' is unknown; choose from resnet18"),
        (["--to", "onnx", "--weights", "none.pth"], 2, "none.pth: no such file"),
        (["--to", "onnx", "--weights", "pyproject.toml"], 1, "is no weight file of a kind that"),
    ],
)
def test_a_wrong_call_says_why(tmp_path, arguments, code, message):
    weights = [] if "--weights" in arguments else ["--weights", str(trained.PATH)]
    out = [] if {"--out", "onnx,tflite"} & set(arguments) else ["--out", str(tmp_path / "net")]
    done = call("export", *arguments, *weights, *out)
    assert done.exit_code == code, done.output
    assert message in done.words


@pytest.mark.parametrize("form", ["onnx", "savedmodel"])
def test_the_weights_are_not_overwritten(tmp_path, form):
    path = tmp_path / "net"
    shutil.copy(trained.PATH, path)
    for out in (path, tmp_path / "." / "again"):
        if out != path:
            out.symlink_to(path)
        done = call("export", "--weights", path, "--to", form, "--out", out)
        assert done.exit_code == 2
        assert f"{out.name} is --weights, which is kept; pass another" in done.words
    assert path.read_bytes() == trained.PATH.read_bytes()


def test_an_extra_that_is_missing_is_named(monkeypatch):
    from importlib import util

    find = util.find_spec
    monkeypatch.setattr(util, "find_spec", lambda n: None if n == "onnxruntime" else find(n))
    done = call("export", "--weights", trained.PATH, "--to", "onnx", "--out", "net.onnx")
    assert done.exit_code == 2
    assert 'onnx needs onnxruntime, which is not installed; pip install "cbam[torch,export]"' in (
        done.words
    )
    done = call("check", "--exports", "--frameworks", "onnxruntime")
    assert done.exit_code == 2
    assert 'onnxruntime was asked for, and onnxruntime is not installed; pip install "cbam[' in (
        done.words
    )


@pytest.mark.parametrize("option", [["--train"], ["--faults"], ["--dtype", "float64"]])
def test_a_check_of_exports_has_its_own_inputs(option):
    done = call("check", "--exports", *option)
    assert done.exit_code == 2
    assert "files run in evaluation, in float32 and on a CPU, on inputs of their own" in done.words


def test_the_page_has_the_code_that_is_printed():
    # There lines that import stand apart, and quotes are those of the project's style.
    page = PAGE.read_text().replace("\n\n", "\n")
    for form in FORMATS.values():
        shape = "2, 3, 224, 224" if form.channel_axis == 1 else "2, 224, 224, 3"
        code = form.code.format(path=f"net{form.suffix}", shape=shape)
        assert code.replace("'", '"') in page, form.name

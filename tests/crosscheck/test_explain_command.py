"""`cbam explain`, as its users call it."""

from __future__ import annotations

import json
import os
import re

import numpy as np
import pytest
from matplotlib.figure import Figure
from safetensors import safe_open
from safetensors.numpy import save_file
from skimage import io
from typer.testing import CliRunner

from cbam_core import Architecture, network_shapes, reference_network, write
from crosscheck import photograph, trained
from crosscheck.cli import app
from crosscheck.commands.explain import explanation
from crosscheck.explaining import draw
from crosscheck.frameworks import FRAMEWORKS
from crosscheck.training.data import digits
from tests import networks
from tests.crosscheck.test_cli import cbam

PICTURES = ["spatial.png", "channels.png", "grad_cam.png", "explain.png"]


@pytest.fixture
def digit(tmp_path):
    """The last 9 among the first ten digits, as a picture."""
    grey = digits().pictures[9]
    grey = (grey - grey.min()) / (grey.max() - grey.min())
    path = tmp_path / "$5_$digit.png"  # which would be a broken formula
    io.imsave(path, np.uint8(255 * grey), check_contrast=False)
    return path


def test_the_trained_network_on_a_digit(digit, tmp_path):
    """What is written is what the reference finds of the picture as it was read."""
    out, path = tmp_path / "out", tmp_path / "facts.json"
    options = f"--weights {trained.PATH} --size 8 --mean 0.305 --deviation 0.376"
    done = cbam("explain", digit, *options.split(), "--out", out, "--json", path, COLUMNS="80")
    assert (done.returncode, done.stderr) == (0, "")
    assert "class 9: " in done.stdout
    assert "stage3.block0.attention" in done.stdout
    assert [line.split("/")[-1] for line in done.stdout.splitlines()[-4:]] == PICTURES
    for name in PICTURES:
        picture = io.imread(out / name)
        assert picture.shape[1] > 1000
        assert picture[0, 0, :3].tolist() == [255, 255, 255]
        assert picture.std() > 10
    found = json.loads(path.read_text())
    assert (found["target"], found["predicted"], found["layer"]) == (9, 9, "stage3")
    x = (io.imread(digit)[None] / 255 - 0.305) / 0.376
    architecture, weights = trained.network()
    cam = reference_network.grad_cam(architecture, weights, x)[0]
    np.testing.assert_allclose(found["grad_cam"], cam, atol=1e-5 * cam.max())
    gates = reference_network.attention_maps(architecture, weights, x)
    for place, one in found["attentions"].items():
        np.testing.assert_allclose(one["spatial"], gates[f"{place}.spatial"][0, ..., 0], atol=1e-4)
        np.testing.assert_allclose(one["channel"], gates[f"{place}.channel"].ravel(), atol=1e-4)
    cam = reference_network.grad_cam(*bare(architecture, weights), x, target=9)[0]
    assert found["without"]["layer"] == "stage3"
    np.testing.assert_allclose(found["without"]["grad_cam"], cam, atol=1e-5 * cam.max())


@pytest.mark.parametrize(
    "layer", ["stage2.block0.attention", "stage1.block0.attention.spatial.conv"]
)
def test_a_layer_that_goes_with_the_gates(digit, layer):
    """Without them the last stage is explained, and said to be."""
    found, x = explained(digit, layer)
    assert (found.layer, found.plain_layer) == (layer, "stage3")
    assert found.facts()["without"]["layer"] == "stage3"
    without, plain = bare(*trained.network())
    cam = reference_network.grad_cam(without, plain, x, target=9)[0]
    np.testing.assert_allclose(found.plain_cam, cam, atol=1e-5 * cam.max())
    figure = Figure()
    draw._grad_cam(figure, found)
    _, _, plain_panel, difference, *_ = figure.axes
    assert plain_panel.get_title().startswith("stage3 without its gates")
    assert difference.get_title() == ""


def test_drawn_weights_a_class_and_a_layer(digit, tmp_path):
    arguments = "--model mobilenet --attention se --size 32 --target 3 --layer stage2.block1"
    done = cbam("explain", digit, *arguments.split(), "--out", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    assert "$5_$digit.png in mobilenet with drawn weights, not trained ones, torch" in done.stdout
    assert ", and 3 is explained; without its gates" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("--layer stage9", "--layer 'stage9' names no module of the model; choose from stem,"),
        ("--target 10", "target=10 is no class of a model with 10; pass 0 to 9"),
    ],
)
def test_what_the_network_does_not_have(digit, tmp_path, arguments, message):
    options = [*f"--weights {trained.PATH} --size 8".split(), "--out", str(tmp_path / "out")]
    done = cbam("explain", digit, *options, *arguments.split())
    assert done.returncode == 2
    assert message in words(done.stderr)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("", "pass the weights of a network, or --model for drawn ones"),
        (f"--weights {trained.PATH} --model resnet50", "resnet50"),
        ("--model resnet51", "'resnet51' is unknown; choose from resnet18"),
        ("--model resnet18,resnet50", "'resnet18,resnet50' is unknown; choose from resnet18"),
        ("--model resnet18 --attention cbam,se", "'cbam,se' is unknown; choose from cbam, se"),
        ("--model resnet18 --framework torch,flax", "'torch,flax' is unknown; choose from torch"),
        ("--model resnet18 --attention none", "'none' is unknown; choose from cbam, se"),
        ("--model resnet18 --framework numpy", "'numpy' is unknown; choose from torch, tf"),
        ("--model resnet18 --mean red", "'red' is no number, nor three"),
        ("--model resnet18 --deviation 0", "'0' is no number, nor three"),
        ("--model resnet18 --mean nan", "'nan' is no number, nor three"),
        ("--model resnet18 --out {digit}", "is a file; pass the path of a folder"),
        ("--model resnet18 --out {digit}/under/it", "is a file; pass the path of a folder"),
        ("--weights {digit}/under", "digit.png/under"),
        ("--weights {missing}", "missing.safetensors"),
        ("--weights {plain}", "holds a network without attention"),
    ],
)
def test_a_wrong_call_is_named(digit, tmp_path, arguments, message):
    plain = networks.NETWORKS["plain"]
    write(tmp_path / "plain.safetensors", networks.weights(plain), plain)
    names = {"digit": digit, "plain": tmp_path / "plain.safetensors"}
    names["missing"] = tmp_path / "missing.safetensors"
    texts = arguments.format(**names).split()
    done = CliRunner().invoke(app, ["explain", str(digit), *texts], env={"COLUMNS": "1000"})
    assert done.exit_code == 2, done.output
    assert message in words(done.output)


def test_what_can_t_be_explained_exits_with_1(digit, tmp_path):
    weights = trained.network()[1]
    headless = {name: array for name, array in weights.items() if not name.startswith("head")}
    with safe_open(trained.PATH, "np") as file:
        save_file(headless, tmp_path / "headless.safetensors", file.metadata())
    for file, message in (
        (digit, "is no weight file"),
        (tmp_path / "headless.safetensors", "safetensors: holds a network without a head"),
        (trained.PATH, "digits.safetensors gives numbers that are not finite"),
    ):
        arguments = f"--weights {file} --size 8 --deviation 1e-300 --out {tmp_path}".split()
        done = CliRunner().invoke(app, ["explain", str(digit), *arguments], env={"COLUMNS": "1000"})
        assert done.exit_code == 1, done.output
        assert message in words(done.output)
    assert not list(tmp_path.glob("explain.png"))


def test_a_folder_that_can_t_be_written_to_is_refused_before_the_work(digit, monkeypatch):
    monkeypatch.setattr(os, "access", lambda path, mode: not mode & os.W_OK)
    done = CliRunner().invoke(app, ["explain", str(digit), "--model", "vgg", "--out", "new/one"])
    assert done.exit_code == 2
    assert "is a folder that can't be written to; pass another" in words(done.output)


def test_what_is_no_picture_is_named(tmp_path):
    for text, name in ((None, "missing.png"), ("no picture", "text.png")):
        if text:
            (tmp_path / name).write_text(text)
        arguments = ["explain", str(tmp_path / name), "--model", "resnet18"]
        done = CliRunner().invoke(app, arguments, env={"COLUMNS": "1000"})
        assert done.exit_code == 2
        assert name in words(done.output)


def bare(architecture, weights):
    """The network without its attention."""
    without = Architecture.from_dict({**architecture.to_dict(), "attention": None, "spec": {}})
    return without, {name: weights[name] for name in network_shapes(without)}


def explained(image, layer):
    """What the command finds of the digit, and the digit as the network sees it."""
    picture = photograph.load(image, 8)
    x = (picture[None] - 0.305) / 0.376
    network = trained.network()
    return explanation(FRAMEWORKS["torch"], *network, picture, x, 9, layer), x


def words(text: str) -> str:
    return re.sub(r"[\s│]+", " ", text)

"""The scripts of examples/, as their users call them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from skimage import io

from cbam_core import read
from crosscheck.training.cases import DIGITS
from examples import train_digits

ROOT = Path(__file__).parent.parent


def run(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "examples/train_digits.py", *map(str, arguments)]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "COLUMNS": "160"}
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)


def test_a_network_is_trained_and_written(tmp_path):
    out = tmp_path / "digits.safetensors"
    done = run("--framework", "torch", "--steps", 5, "--out", out)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""  # no progress in a pipe
    assert done.stdout.splitlines()[1] == f"→ {out}, {out.with_suffix('.json')}"
    assert read(out).architecture == DIGITS
    (figures,) = json.loads(out.with_suffix(".json").read_text())
    assert train_digits.summary(figures) == done.stdout.splitlines()[0]
    assert len(figures["losses"]) == 5
    counts = [figures[part]["digits"] for part in ("trained_on", "held_out", "all")]
    assert counts == [1437, 360, 1797]


def test_the_curves_are_drawn(tmp_path):
    runs = [
        {"framework": name, "losses": (np.linspace(3, 1, 60) + apart).tolist()}
        for name, apart in (("torch", 0), ("tf", 1e-9), ("flax", 0))
    ]
    train_digits.draw(runs, tmp_path / "curves.png")
    picture = io.imread(tmp_path / "curves.png")
    assert min(picture.shape[:2]) > 400
    assert len(np.unique(picture.reshape(-1, picture.shape[2]), axis=0)) > 100


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--framework", "theano"], "'theano' is unknown; choose from torch, tf, keras, flax, all"),
        (["--framework", "torch", "--dtype", "float8"], "'float8' is unknown; choose from"),
        (["--framework", "torch", "--out", "no/such.safetensors"], "does not exist; create it"),
        (["--framework", "torch", "--plot", "a.png"], "one curve is no comparison; pass --framew"),
        (["--framework", "torch", "--steps", "0"], "Input should be greater than or equal to 1"),
    ],
)
def test_a_wrong_call_exits_with_2_and_says_why(arguments, message):
    done = run(*arguments)
    assert done.returncode == 2
    assert message in " ".join(done.stderr.replace("│", " ").split())


def test_help_has_examples():
    done = run("--help")
    assert done.returncode == 0
    assert "python examples/train_digits.py --framework all" in done.stdout

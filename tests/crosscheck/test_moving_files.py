"""`cbam convert --with-optimizer`, and `cbam inspect` of a training run, as users call them."""

from __future__ import annotations

import json

import pytest

from cbam_core import read_state, write_state
from tests.core.test_training_files import SAID, a_run, same, saved, torch, users
from tests.crosscheck.test_cli import cbam


@pytest.fixture
def checkpoint(tmp_path):
    """What a user of PyTorch saves, in a container that needs none."""
    arrays, facts = users(torch, "nesterov")
    return saved(tmp_path / "run.npz", arrays, facts)


def test_convert_moves_a_run_with_what_is_given(checkpoint, tmp_path):
    target, recipe = tmp_path / "run.msgpack", tmp_path / "recipe.json"
    recipe.write_text(json.dumps(SAID))
    done = cbam("convert", checkpoint, target, "--with-optimizer", "--recipe", recipe)
    assert (done.returncode, done.stderr) == (0, "")
    assert "a training run: sgd after 5 of 20 steps, momentum" in " ".join(done.stdout.split())
    same(read_state(target), a_run())


def test_another_file_of_the_run_completes_it(checkpoint, tmp_path):
    begun, target = tmp_path / "begun.safetensors", tmp_path / "run.safetensors"
    write_state(begun, a_run(step=0))
    done = cbam("convert", checkpoint, target, "--with-optimizer", "--recipe", begun)
    assert (done.returncode, done.stderr) == (0, "")
    same(read_state(target), a_run())


def test_inspect_says_how_far_a_run_is(tmp_path):
    path = tmp_path / "run.safetensors"
    write_state(path, a_run())
    done = cbam("inspect", path, "--json", tmp_path / "facts.json")
    assert (done.returncode, done.stderr) == (0, "")
    words = " ".join(done.stdout.split())
    assert "a training run, canonical: sgd, 5 of 20 steps, 21 slots (momentum)" in words
    run = json.loads((tmp_path / "facts.json").read_text())["run"]
    assert (run["form"], run["kinds"], run["slots"]) == ("canonical", ["momentum"], 21)
    assert (run["told"]["step"], run["told"]["learning_rate"]) == (5, 0.1)


def test_inspect_says_why_a_run_can_not_move(tmp_path):
    arrays, facts = users(torch, "nesterov")
    facts["optimizer/param_groups"][0]["dampening"] = 0.1
    done = cbam("inspect", saved(tmp_path / "run.npz", arrays, facts))
    assert done.returncode == 0
    words = " ".join(done.stdout.split())
    assert "a training run that can't move: its optimizer has dampening=0.1, which no" in words


def test_what_a_file_does_not_tell_is_asked_for_and_the_target_is_as_it_was(checkpoint, tmp_path):
    target = tmp_path / "run.msgpack"
    target.write_bytes(b"old")
    done = cbam("convert", checkpoint, target, "--with-optimizer")
    assert done.returncode == 1
    assert "the file does not tell architecture; give what is missing" in done.stderr
    assert target.read_bytes() == b"old"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["x.npz", "--with-optimizer"], "holds no run under way; write one of .safetensors, .pth"),
        (["x", "--with-optimizer", "--format", "me"], "container='me' is unknown; choose from"),
        (["x.exe", "--with-optimizer"], "has an ending that no container has"),
        (["x.pth", "--with-optimizer", "--to", "official"], "the ending of DST chooses; leave it"),
        (["x.pth", "--with-optimizer", "--keep-rest"], "the ending of DST chooses; leave it out"),
        (["x.pth", "--recipe", "pyproject.toml"], "it is that of a run; pass --with-optimizer too"),
        (["x.pth", "--with-optimizer", "--recipe", "none.json"], "none.json"),
    ],
)
def test_a_wrong_call_says_why(tmp_path, arguments, message):
    path = tmp_path / "run.safetensors"
    write_state(path, a_run())
    done = cbam("convert", path, *arguments)
    assert done.returncode == 2
    assert message in " ".join(done.stderr.replace("│", " ").split())

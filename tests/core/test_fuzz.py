"""Damaged files, 20,000 of them, or as many as `--fuzz` says: every reader gives what is there or a
CheckpointError, soon, and in little memory.

A container joins by a line in SEEDS.
"""

from __future__ import annotations

import math
import resource
import shutil
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from random import Random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import cbam_core
from cbam_core import CBAMSpec, CheckpointError, containers, expression
from cbam_core.containers import CONTAINERS, apart
from cbam_core.contents import Contents
from tests import specs
from tests.core import hostile_hdf5
from tests.core.damage import KINDS, Damage, damaged

SECONDS, BYTES = 5, 1 << 30
# Of a seed's files, the part that hypothesis chooses.
BY_HYPOTHESIS = 0.1


@dataclass(frozen=True)
class Seed:
    """A valid file, to be damaged.

    Attributes:
        make: writes it into a folder, all files of which are damaged in turn, and gives the path
            that is read.
        share: of all damaged files, in relation to the other seeds.
    """

    make: Callable[[Path, pytest.FixtureRequest], Path]
    share: int


def _checkpoint(dialect: str) -> Contents:
    """A block, and what people save beside one."""
    fields = cbam_core.DIALECTS[dialect].fields
    spec = CBAMSpec(4, **{**fields, "hidden": 2, "kernel_size": 3})
    weights = {name: array.astype(np.float32) for name, array in specs.weights(spec).items()}
    arrays = expression.spell({"layer1.cbam": (spec, weights)}, cbam_core.DIALECTS[dialect])
    more = {"fc.weight": np.zeros((2, 3), np.float16), "empty": np.zeros((0, 2))}
    facts = {"epoch": 90, "arch": "resnet50", "best": 77.5, "args/lr": 0.1}
    return Contents({f"state_dict/{n}": a for n, a in (arrays | more).items()}, facts)


def _written(container: str) -> Callable[[Path, pytest.FixtureRequest], Path]:
    """A seed that this project writes itself."""

    def make(folder: Path, _: pytest.FixtureRequest) -> Path:
        path = folder / f"seed{CONTAINERS[container].endings[0]}"
        checkpoint = _checkpoint("official")
        # orbax holds no array without numbers.
        arrays = {n: a for n, a in checkpoint.arrays.items() if a.size or container != "orbax"}
        containers.write(path, Contents(arrays, checkpoint.facts), CONTAINERS[container])
        return path

    return make


def _keras(folder: Path, request: pytest.FixtureRequest) -> Path:
    weights = _written("keras3")(folder, request)
    path = folder / "seed.keras"
    path.write_bytes(hostile_hdf5.keras(weights=weights.read_bytes()))
    weights.unlink()
    return path


def _savedmodel(folder: Path, request: pytest.FixtureRequest) -> Path:
    variables = _written("tensorflow")(folder, request).rename(folder / "variables")
    (variables / "checkpoint").unlink()
    for file in list(variables.iterdir()):
        file.rename(variables / file.name.replace("model.ckpt", "variables"))
    (folder / "saved_model.pb").write_bytes(b"a program")
    return folder


def _canonical(folder: Path, _: pytest.FixtureRequest) -> Path:
    spec = specs.SPECS["everything"]
    cbam_core.write(folder / "seed.safetensors", specs.weights(spec), spec)
    return folder / "seed.safetensors"


def _by_torch(name: str) -> Callable[[Path, pytest.FixtureRequest], Path]:
    """A seed that torch_files.py writes."""

    def make(folder: Path, request: pytest.FixtureRequest) -> Path:
        return Path(shutil.copy(request.getfixturevalue("torch_files") / name, folder))

    return make


SEEDS = {
    "safetensors": Seed(_written("safetensors"), 4),
    "canonical safetensors": Seed(_canonical, 2),
    "npz": Seed(_written("npz"), 4),
    "msgpack": Seed(_written("msgpack"), 4),
    "keras2": Seed(_written("keras2"), 2),
    "keras3": Seed(_written("keras3"), 2),
    "keras archive": Seed(_keras, 1),
    "tensorflow": Seed(_written("tensorflow"), 2),
    "savedmodel": Seed(_savedmodel, 1),
    "orbax": Seed(_written("orbax"), 2),
    "torch": Seed(_written("torch"), 2),
    "torch, as scripts save": Seed(_by_torch("zip/valid.pth.tar"), 2),
    "torch before zip": Seed(_by_torch("before zip/valid.pth.tar"), 2),
}


def test_every_container_has_a_seed():
    assert {name for name in CONTAINERS if not any(name in seed for seed in SEEDS)} == set()


@pytest.mark.parametrize("name", SEEDS)
def test_a_damaged_file_is_read_or_refused(name, tmp_path, request, monkeypatch):
    monkeypatch.setattr(apart, "SECONDS", SECONDS)
    total = request.config.getoption("--fuzz")
    count = math.ceil(total * SEEDS[name].share / sum(seed.share for seed in SEEDS.values()))
    by_chance = math.ceil(count * (1 - BY_HYPOTHESIS))
    path = SEEDS[name].make(tmp_path, request)
    whole = {file: file.read_bytes() for file in sorted(tmp_path.rglob("*")) if file.is_file()}
    containers.read(path)
    before = _peak()

    def check(file: Path, damages: list[Damage], member: int | None) -> None:
        file.write_bytes(damaged(whole[file], damages, member))
        _read(path)
        file.write_bytes(whole[file])

    for number in range(by_chance):
        random = Random(f"{name} {number}")
        damages = [
            (random.choice(list(KINDS)), random.random(), random.getrandbits(32))
            for _ in range(random.choice([1, 1, 1, 2, 4, 16]))
        ]
        member = random.choice([None, random.getrandbits(8)])
        check(random.choice(list(whole)), damages, member)

    numbers = st.integers(0, 2**32 - 1)
    damage = st.tuples(st.sampled_from(list(KINDS)), st.floats(0, 1, exclude_max=True), numbers)

    @settings(max_examples=count - by_chance, deadline=None, derandomize=True, database=None)
    @given(st.sampled_from(list(whole)), st.lists(damage, min_size=1), st.none() | numbers)
    def chosen(file: Path, damages: list[Damage], member: int | None) -> None:
        check(file, damages, member)

    chosen()
    assert _peak() - before < BYTES


def _read(path: Path) -> None:
    begun, refused = time.process_time(), f"{path}: "
    try:
        cbam_core.read(path)
    except CheckpointError as error:
        refused = str(error)
    assert refused.startswith(f"{path}: ")
    assert "took longer than" not in refused
    assert time.process_time() - begun < SECONDS


def _peak() -> int:
    """Bytes that this process, or one that it started and that has ended, once had."""
    apart._end_all()
    unit = 1 if sys.platform == "darwin" else 1024
    return unit * max(
        resource.getrusage(who).ru_maxrss
        for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    )

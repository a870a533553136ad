"""What converts to what: all pairs of dialects, of containers, and of a dialect and a container."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import cbam_core
from cbam_core import DIALECTS, CBAMSpec, containers, reference
from cbam_core.containers import CONTAINERS
from cbam_core.contents import Contents
from cbam_core.expression import express, spell
from tests import specs
from tests.compare import assert_equal
from tests.core import hostile_hdf5
from tests.core.test_dialects import WRITTEN, read, same_bits

ROOT = Path(__file__).parent.parent.parent
WRITABLE = [name for name, container in CONTAINERS.items() if container.writes is True]

# What keeps a dialect from being another, by the field of the spec that says so.
REASONS = {
    "order": "o",
    "mlp_bias": "b",
    "spatial_bias": "b",
    "spatial_norm": "n",
    "channel_pools": "a",
    "pooling": "l",
    "gate": "g",
    "residual": "r",
    "norm_momentum": "m",
}
LEGEND = (
    "= converts, + with --fold or --fill; refused for: o the gates it has, b a bias, n a norm, "
    "m its momentum, a the average alone, l one map (light), g another gate, r a residual"
)


def own_spec(name: str) -> CBAMSpec:
    """A small block as a dialect's code makes it."""
    fields = {**DIALECTS[name].fields, "hidden": 2, "kernel_size": 3}
    return CBAMSpec(8, **fields)


def table_of_pairs() -> tuple[list[str], list[tuple[str, str, bool]]]:
    """The table, and the pairs that convert, with whether they need help."""
    width = max(map(len, WRITTEN))
    lines = [" " * width + "".join(f"{column:3}" for column in range(1, len(WRITTEN) + 1))]
    pairs = []
    for row, source in enumerate(WRITTEN, 1):
        cells = ""
        for target in WRITTEN:
            spec = own_spec(source)
            cell = _cell(spec, specs.weights(spec), target)
            cells += f"{cell:>3}"
            pairs += [(source, target, cell == "+")] if cell in "=+" else []
        lines.append(f"{source:{width}}{cells}  {row}")
    return lines, pairs


def _cell(spec: CBAMSpec, weights, target: str) -> str:
    for sign, helps in (("=", False), ("+", True)):
        try:
            express(spec, weights, DIALECTS[target], fold=helps, fill=helps)
        except ValueError as error:
            fields = [line.split("=")[0].strip() for line in str(error).split("\n")[1:]]
        else:
            return sign
    return next(letter for field, letter in REASONS.items() if field in fields)


def test_the_tables_of_pairs(tmp_path):
    """Printed with -s: dialect x dialect, as in docs/dialects.md, and container x container.

    What converts keeps its meaning, and from container to container every bit.
    """
    lines, pairs = table_of_pairs()
    print(*lines, LEGEND, "", *table_of_containers(tmp_path), sep="\n")
    page = (ROOT / "docs" / "dialects.md").read_text()
    assert "\n".join(lines) in page
    assert LEGEND in page
    for source, target, helps in pairs:
        spec = own_spec(source)
        weights = specs.weights(spec)
        other, theirs = express(spec, weights, DIALECTS[target], fold=helps, fill=helps)
        (block,) = read(spell({"": (other, theirs)}, DIALECTS[target]), target, other).values()
        x = specs.feature_map(spec)
        expected = reference.run(spec, weights, x).output
        found = reference.run(block.spec, block.weights, x).output
        assert_equal({"output": found}, {"output": expected}, 1e-12 if helps else 0.0)


def table_of_containers(folder: Path) -> list[str]:
    """One line for each source: = under every target in which all of it is what it was."""
    width = max(map(len, CONTAINERS))
    lines = [" " * width + "".join(f" {target}" for target in WRITABLE)]
    for source in CONTAINERS:
        path = network(source, folder / source)
        known = cbam_core.read(path)
        cells = ""
        for target in WRITABLE:
            goal = folder / f"{source} as {target}{CONTAINERS[target].endings[0]}"
            cbam_core.convert(path, goal, to="canonical", container=target, keep_rest=True)
            found = cbam_core.read(goal)
            assert containers.recognise(goal).about == CONTAINERS[target].about
            assert list(found.blocks) == list(known.blocks) == ["cbam"]
            assert found.spec == known.spec == NETWORK
            assert same_bits(found.weights, specs.weights(NETWORK))
            assert same_bits(found.rest, known.rest)
            assert same_bits(found.rest, REST)
            assert found.facts == known.facts
            cells += f" {'=':>{len(target)}}"
        lines.append(f"{source:{width}}{cells}")
    return lines


NETWORK = specs.SPECS["everything"]
REST = {"fc.weight": np.arange(6, dtype=np.float16).reshape(2, 3), "steps": np.array(7)}


def network(container: str, folder: Path) -> Path:
    """A file of a block and other layers, as a container holds them."""
    folder.mkdir()
    weights = {f"cbam.{name}": array for name, array in specs.weights(NETWORK).items()}
    metadata = {"cbam_format": "1", "specs": json.dumps({"cbam": NETWORK.to_dict()})}
    contents = Contents(weights | REST, {"epoch": 90, "arch": "resnet50"}, metadata)
    if container == "keras":
        containers.write(folder / "a.weights.h5", contents, CONTAINERS["keras3"])
        path = folder / "a.keras"
        path.write_bytes(hostile_hdf5.keras(weights=(folder / "a.weights.h5").read_bytes()))
        return path
    if container == "savedmodel":
        variables = folder / "variables"
        containers.write(variables, contents, CONTAINERS["tensorflow"])
        for file in list(variables.glob("model.ckpt*")):
            file.rename(variables / file.name.replace("model.ckpt", "variables"))
        (folder / "saved_model.pb").write_bytes(b"a program")
        return folder
    path = folder / f"a{CONTAINERS[container].endings[0]}"
    containers.write(path, contents, CONTAINERS[container])
    return path


@pytest.mark.parametrize("container", WRITABLE)
def test_every_dialect_in_every_container_gives_back_the_same_bits(tmp_path, container):
    ending = CONTAINERS[container].endings[0]
    for name in WRITTEN:
        spec = own_spec(name)
        weights = specs.weights(spec)
        source, target = tmp_path / f"{name}.safetensors", tmp_path / f"{name}{container}{ending}"
        cbam_core.write(source, weights, spec)
        cbam_core.convert(source, target, to=name, container=container)
        fields = {field: getattr(spec, field) for field in DIALECTS[name].settable}
        found = cbam_core.read(target, name, **fields)
        assert (found.dialect, not found.rest) == (name, True)
        assert same_bits(found.weights, weights), name

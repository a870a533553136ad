"""What judge and worker hand each other: arrays, and facts about them, in one safetensors file."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import safetensors.numpy

Arrays = dict[str, np.ndarray]


def write(path: Path, arrays: Mapping[str, np.ndarray], facts: Mapping[str, Any]) -> None:
    contiguous = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
    safetensors.numpy.save_file(contiguous, path, {"facts": json.dumps(facts)})


def read(path: Path) -> tuple[Arrays, dict[str, Any]]:
    """The arrays and the facts that `write` was given."""
    with safetensors.safe_open(path, framework="numpy") as file:
        facts = json.loads(file.metadata()["facts"])
    return safetensors.numpy.load_file(path), facts

"""safetensors files, which hold nothing but arrays and a dict of texts."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import safetensors
import safetensors.numpy

from cbam_core.contents import Contents
from cbam_core.weights import as_canonical


def read(path: Path) -> Contents:
    with safetensors.safe_open(path, framework="numpy") as file:
        metadata = file.metadata() or {}
        arrays = {name: file.get_tensor(name) for name in list(file.keys())}
    facts = json.loads(metadata["facts"]) if "facts" in metadata else {}
    return Contents(arrays, facts, metadata)


def write(path: Path, contents: Contents) -> None:
    # safetensors writes an array's memory as it lies, so it must lie in row-major order.
    arrays = {n: np.ascontiguousarray(as_canonical(a)) for n, a in contents.arrays.items()}
    metadata = dict(contents.metadata)
    if contents.facts:
        metadata["facts"] = json.dumps(contents.facts)
    safetensors.numpy.save_file(arrays, path, metadata)

"""Keras 3's `.keras` archives: a model's description, which stays undone, and its weights.

Only the weights are read, by the reader of `.weights.h5` files. The description names classes and
may hold code (a Lambda layer does), so of it nothing is made.
"""

from __future__ import annotations

import io
import json
import zipfile
from pathlib import Path
from typing import Any

import h5py

from cbam_core.containers import archive, keras_hdf5
from cbam_core.contents import MAX_HEADER, Contents


def read(path: Path) -> Contents:
    with archive.checked(path) as opened:
        said = {"class_name": _json(opened, "config.json").get("class_name")}
        said |= _json(opened, "metadata.json")
        # Whole, since a member's check sum is compared at its end.
        weights = opened.read("model.weights.h5")
    with h5py.File(io.BytesIO(weights), "r") as root:
        contents = keras_hdf5.read_root(path, root, weights)
    facts = {name: text for name, text in said.items() if isinstance(text, str)}
    return Contents(contents.arrays, facts, contents.metadata)


def _json(opened: zipfile.ZipFile, name: str) -> dict[str, Any]:
    """What a member of the archive says.

    Raises:
        KeyError, ValueError: there is none, or it is none of Keras'.
    """
    if opened.getinfo(name).file_size > MAX_HEADER:
        raise ValueError(f"its {name} has {opened.getinfo(name).file_size} bytes")
    said = json.loads(opened.read(name))
    if not isinstance(said, dict):
        raise ValueError(f"its {name} is no JSON object")
    return said

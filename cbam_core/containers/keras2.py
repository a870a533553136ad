"""Keras 2's HDF5 files, of weights or of a whole model; Keras 3 writes such ones as well.

The attribute `layer_names` of the root, or of its group `model_weights`, lists the layers, and the
attribute `weight_names` of a layer's group lists its weights, each a dataset of that name. So all
have an order, which is the model's. A weight is called what Keras 2 calls it, without the ":0":
"dense_1/kernel"; if two layers call one alike, all names begin with their layer's. What no layer
lists, such as the group `optimizer_weights`, is called by its path in the file.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from cbam_core.containers import hdf5, keras_hdf5
from cbam_core.contents import Contents

read = keras_hdf5.read

_OPTIMIZER = "optimizer_weights/"


def write(path: Path, contents: Contents) -> None:
    """A file of weights; what stands before the last slash or point of a name is its layer."""
    layers: dict[str, list[str]] = {}
    for name in contents.arrays:
        if not name.startswith(_OPTIMIZER):
            layers.setdefault(re.split(r"[./][^./]*$", name)[0], []).append(name)
    with hdf5.create(path, contents) as root:
        root.attrs["layer_names"] = _encoded(layers)
        for layer, names in layers.items():
            root.require_group(layer).attrs["weight_names"] = _encoded(f"{n}:0" for n in names)
            for name in names:
                root[f"{layer}/{name}:0"] = contents.arrays[name]
        for name, array in contents.arrays.items():
            if name.startswith(_OPTIMIZER):
                root[f"{name}:0"] = array


def _encoded(names: Iterable[str]) -> list[bytes]:
    return [name.encode() for name in names]

"""Keras 2's HDF5 files, of weights or of a whole model; Keras 3 writes such ones as well.

The attribute `layer_names` of the root, or of its group `model_weights`, lists the layers, and the
attribute `weight_names` of a layer's group lists its weights, each a dataset of that name. So all
have an order, which is the model's. A weight is called what Keras 2 calls it, without the ":0":
"dense_1/kernel"; if two layers call one alike, all names begin with their layer's. What no layer
lists, such as the group `optimizer_weights`, is called by its path in the file.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Mapping
from pathlib import Path

import h5py

from cbam_core.containers import hdf5
from cbam_core.contents import Contents

read = hdf5.read

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


def lists_layers(root: h5py.Group) -> bool:
    """Whether it is laid out as Keras 2 does it."""
    return _base(root) is not None


def in_order(root: h5py.Group, datasets: Mapping[str, h5py.Dataset]) -> dict[str, h5py.Dataset]:
    """Name -> dataset, of all `datasets`, which come by their paths.

    Raises:
        ValueError: a weight that is listed is not there, or two have the same name.
    """
    rest = dict(datasets)
    listed = []
    base = _base(root)
    for layer in _names(root[base], "layer_names"):
        for weight in _names(root[base][layer], "weight_names"):
            path = f"{base}/{layer}/{weight}".lstrip("/")
            if path not in rest:
                raise ValueError(f"layer {layer!r} lists the weight {weight!r}, which is not there")
            listed.append((layer, weight, rest.pop(path)))
    is_unique = len({weight for _, weight, _ in listed}) == len(listed)
    named = [(w if is_unique else f"{layer}/{w}", dataset) for layer, w, dataset in listed]
    named = [(name.removesuffix(":0"), dataset) for name, dataset in [*named, *rest.items()]]
    if len(dict(named)) < len(named):
        raise ValueError("it has two weights of the same name in one layer")
    return dict(named)


def _base(root: h5py.Group) -> str | None:
    """The path of the group that lists the layers."""
    for base in ("/", "/model_weights"):
        if base in root and {"layer_names", "layer_names0"} & set(root[base].attrs):
            return base
    return None


def _names(group: h5py.Group, attribute: str) -> list[str]:
    """A list of names, which Keras cuts into numbered parts where HDF5 can't hold it in one."""
    if attribute in group.attrs:
        parts = [group.attrs[attribute]]
    else:
        numbered = (f"{attribute}{n}" for n in itertools.count())
        parts = [group.attrs[n] for n in itertools.takewhile(group.attrs.__contains__, numbered)]
    names = itertools.chain.from_iterable(parts)
    return [name.decode() if isinstance(name, bytes) else name for name in names]


def _encoded(names: Iterable[str]) -> list[bytes]:
    return [name.encode() for name in names]

"""Keras' HDF5 files, read: in the layout of Keras 2 where layers are listed, else in Keras 3's."""

from __future__ import annotations

import itertools
import json
import mmap
from collections.abc import Mapping
from pathlib import Path

import h5py

from cbam_core.containers import hdf5
from cbam_core.containers.nesting import RESERVED
from cbam_core.contents import Contents, by_number, check_size

# What Keras says about a model beside its weights: long, and for Keras alone.
_CONFIGS = ("model_config", "training_config")


def read(path: Path) -> Contents:
    """The contents of the file at `path`."""
    with (
        path.open("rb") as file,
        mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data,
        h5py.File(path, "r") as root,
    ):
        return read_root(path, root, data)


def read_root(path: Path, root: h5py.File, data: bytes | mmap.mmap) -> Contents:
    """The contents of an opened file with the bytes `data`, which is `path` or stands in it."""
    hdf5.check_heaps(root, data)
    datasets = hdf5.list_datasets(root)
    check_size(path, sum(hdf5.size_of(dataset) for dataset in datasets.values()))
    base = _base(root)
    named = _by_number(datasets) if base is None else _as_listed(root, base, datasets)
    arrays = {name: hdf5.array_of(dataset) for name, dataset in named.items()}
    metadata = {n: t for n, t in hdf5.texts_of(root).items() if n not in _CONFIGS}
    ours = json.loads(metadata.pop(RESERVED, "{}"))
    facts = _optimizer(root) | ours.get("facts", {})
    return Contents(arrays, facts, metadata | ours.get("metadata", {}))


def _optimizer(root: h5py.Group) -> dict[str, str]:
    """What Keras 3 calls a compiled model's optimizer."""
    if "optimizer/vars" not in root:
        return {}
    name = root["optimizer/vars"].attrs.get("name")
    return {"optimizer": name} if isinstance(name, str) else {}


def _by_number(datasets: Mapping[str, h5py.Dataset]) -> dict[str, h5py.Dataset]:
    """By the paths, in which numbers count as Keras 3 counted them."""
    return {path: datasets[path] for path in sorted(datasets, key=by_number)}


def _as_listed(
    root: h5py.Group, base: str, datasets: Mapping[str, h5py.Dataset]
) -> dict[str, h5py.Dataset]:
    """Name -> dataset, of all `datasets`, in the order of the lists below the group `base`.

    Raises:
        ValueError: a weight that is listed is not there, or two have the same name.
    """
    rest = dict(datasets)
    listed = []
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

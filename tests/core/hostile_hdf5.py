"""Keras' files that lie: what is wrong with one -> what makes its bytes, and what must be said."""

from __future__ import annotations

import io
from collections.abc import Callable
from functools import partial
from pathlib import Path

import h5py
import numpy as np

from tests.core.hostile import MANY, Member, archive

NAMES = {"metadata": "metadata.json", "config": "config.json", "weights": "model.weights.h5"}


def hdf5(fill: Callable[[h5py.File], object]) -> bytes:
    """The bytes of a file that `fill` has filled."""
    file = io.BytesIO()
    with h5py.File(file, "w", libver="latest") as root:
        fill(root)
    return file.getvalue()


def valid(root: h5py.File) -> None:
    root["layers/dense/vars/0"] = np.arange(6.0).reshape(2, 3)
    root["layers/dense_10/vars/0"] = np.ones(1)
    root["layers/dense_2/vars/0"] = np.zeros(2)


def _circle(root: h5py.File) -> None:
    root.create_group("a/b")
    root["a/b/c"] = root["a"]


def _two_names(root: h5py.File) -> None:
    root["a"] = np.zeros(1000)
    for n in range(1000):
        root[f"b{n}"] = root["a"]


def _virtual(root: h5py.File) -> None:
    layout = h5py.VirtualLayout((3,), "f8")
    layout[:] = h5py.VirtualSource("/etc/passwd", "x", (3,))
    root.create_virtual_dataset("a", layout)


def _array(shape: tuple[int, ...], **options: object) -> Callable[[h5py.File], object]:
    return lambda root: root.create_dataset("a", shape, "f4", **options)


def _deep(root: h5py.File) -> None:
    group = root
    for _ in range(500):
        group = group.create_group("a")


def _many(root: h5py.File) -> None:
    for n in range(MANY):
        h5py.h5g.create(root.id, str(n).encode())


def _layers(names: object, weights: object) -> Callable[[h5py.File], None]:
    def fill(root: h5py.File) -> None:
        root["dense/dense/kernel:0"] = np.zeros((2, 3))
        root.attrs["layer_names"] = names
        root["dense"].attrs["weight_names"] = weights

    return fill


def hdf5_files(_: Path) -> dict[str, tuple[Callable[[], bytes], str]]:
    right = hdf5(valid)
    fills = {
        "a link to another file": (
            lambda root: root.update({"a": h5py.ExternalLink("/etc/passwd", "/x")}),
            "'a' is a link by name",
        ),
        "a link by name": (
            lambda root: root.update({"a": h5py.SoftLink("/b")}), "'a' is a link by name"
        ),
        "a circle": (_circle, "'a/b/c' is another name of something that has one"),
        "an array of many names": (_two_names, "is another name of something that has one"),
        "data in another file": (
            lambda root: root.create_dataset("a", (9,), "u1", external=[("/etc/passwd", 0, 9)]),
            "'a' has its data in another file",
        ),
        "data out of other files": (_virtual, "'a' has its data in another file"),
        "a shape without data": (_array((10**12,)), "claims 4000000000000 bytes"),
        "a shape without pieces": (
            _array((10**12,), chunks=(1000,)), "claims 4000000000000 bytes"
        ),
        "a shape that overflows": (
            _array((2**40, 2**23), chunks=(1, 1)), "claims 36893488147419103232 bytes"
        ),
        "a bomb": (
            lambda root: root.create_dataset("a", data=np.zeros(1 << 27, "u1"), compression=9),
            "claims 134217728 bytes of arrays in a file of",
        ),
        "deep groups": (_deep, "deeper nested"),
        "10^5 groups": (_many, "100000 datasets, and 50000 are the most"),
        "a layer that is not there": (_layers(["x"], []), "not a readable"),
        "layers that are numbers": (_layers([1, 2], []), "not a readable"),
        "layers that are one": (_layers(7, []), "not a readable"),
        "a weight that is not there": (
            _layers(["dense"], ["dense/bias:0"]), "lists the weight 'dense/bias:0', which is not"
        ),
        "a weight twice": (_layers(["dense"], ["dense/kernel:0"] * 2), "which is not there"),
        "a spec that is none": (
            lambda root: root.attrs.update({"__cbam__": "[" * 1000}), "not a readable"
        ),
    }  # fmt: skip
    return {
        "cut off at the end": (lambda: right[:-1], "not a readable Keras HDF5 file"),
        "cut off in the middle": (lambda: right[:1000], "not a readable Keras HDF5 file"),
    } | {name: (partial(hdf5, fill), reason) for name, (fill, reason) in fills.items()}


def keras(**changed: bytes | None) -> bytes:
    """A Keras archive whose `config`, `metadata` or `weights` are changed, or left out if None."""
    parts = {"metadata": b'{"keras_version": "3.15.1"}', "config": b'{"class_name": "Functional"}',
             "weights": hdf5(valid)} | changed  # fmt: skip
    return archive(*(Member(NAMES[n], data) for n, data in parts.items() if data is not None))


def keras_files(_: Path) -> dict[str, tuple[Callable[[], bytes], str]]:
    twice = [Member(NAMES["metadata"], b"{}")] * 2
    outside = [Member(NAMES["metadata"], b"{}"), Member("../model.weights.h5", b"")]
    long = [Member(NAMES["config"], b" " * (1 << 25), deflated=True), Member(NAMES["weights"], b"")]
    bomb = [Member(NAMES["config"], b" " * (1 << 28), deflated=True)]
    changes = {
        "no weights": ({"weights": None}, "no item named 'model.weights.h5'"),
        "no description": ({"config": None}, "no item named 'config.json'"),
        "weights that are none": ({"weights": b"hello"}, "not a readable Keras archive"),
        "weights that are cut off": ({"weights": hdf5(valid)[:-9]}, "not a readable"),
        "weights with a link": (
            {"weights": hdf5(lambda root: root.update({"a": h5py.SoftLink("/x")}))}, "link by name"
        ),
        "a description that is no JSON": ({"config": b"{" * 9000}, "JSONDecodeError"),
        "a description that nests": ({"config": b"[" * MANY}, "RecursionError"),
        "a description that is a list": ({"config": b"[]"}, "config.json is no JSON object"),
    }  # fmt: skip
    return {
        "cut off": (lambda: keras()[:-30], "File is not a zip file"),
        "a name twice": (lambda: archive(*twice), "two of its members have one name"),
        "a path upwards": (lambda: archive(*outside), "leaves the archive"),
        "a long description": (lambda: archive(*long), "config.json has 33554432 bytes"),
        "a bomb": (lambda: archive(*bomb), "claims 268435456 bytes of arrays in a file of"),
    } | {name: (partial(keras, **change), reason) for name, (change, reason) in changes.items()}

"""Keras 3's `.weights.h5` files, which have a group for each layer and its variables by number.

An array is called by its path in the file: "layers/dense_1/vars/0", "optimizer/vars/3". HDF5 lists
names alphabetically, dense_10 before dense_2; here numbers count, as Keras counted them.
"""

from __future__ import annotations

from pathlib import Path, PurePosixPath

from cbam_core.containers import hdf5, keras_hdf5
from cbam_core.contents import Contents

read = keras_hdf5.read


def write(path: Path, contents: Contents) -> None:
    """A file in which a name's slashes are groups.

    Raises:
        ValueError: a name is an array's, and another goes on from it.
    """
    for name in contents.arrays:
        if any(str(above) in contents.arrays for above in PurePosixPath(name).parents):
            raise ValueError(f"a Keras 3 file can't hold {name!r} below another array")
    with hdf5.create(path, contents) as root:
        for name, array in contents.arrays.items():
            root[name] = array

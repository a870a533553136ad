"""TensorFlow's checkpoints, of versions 1 and 2: an index, and the arrays' bytes beside it.

One is named by its prefix ("model.ckpt"), by its index ("model.ckpt.index"), or by a folder whose
file `checkpoint` tells the latest. TensorFlow 1 keys arrays by the names of their variables, and
those names are kept; for those of TensorFlow 2 see object_graph.py.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import tensorflow as tf
from tensorflow.core.protobuf.trackable_object_graph_pb2 import TrackableObjectGraph

from cbam_core.containers import object_graph
from cbam_core.containers.nesting import RESERVED
from cbam_core.contents import MAX_ARRAYS, Contents, by_number, check_size
from cbam_core.weights import as_canonical

_GRAPH = "_CHECKPOINTABLE_OBJECT_GRAPH"
_VALUE = "/.ATTRIBUTES/VARIABLE_VALUE"
# What tf.train.Checkpoint counts, and is no variable of anybody.
_COUNTER = "save_counter"


def read(path: Path) -> Contents:
    """The checkpoint with the index `path`, or the latest of the folder `path`."""
    return read_variables(path, _latest(path) if path.is_dir() else path)


def read_variables(path: Path, index: Path) -> Contents:
    """The checkpoint with an index, which is `path` or stands in it."""
    reader = tf.train.load_checkpoint(str(index).removesuffix(".index"))
    shapes = reader.get_variable_to_shape_map()
    if len(shapes) > MAX_ARRAYS:
        raise ValueError(f"it holds {len(shapes)} arrays, and {MAX_ARRAYS} are the most")
    dtypes = reader.get_variable_to_dtype_map()
    numbers = [key for key in shapes if _is_number(dtypes[key])]
    check_size(path, sum(math.prod(shapes[key]) * dtypes[key].size for key in numbers))
    graph = TrackableObjectGraph.FromString(reader.get_tensor(_GRAPH) if _GRAPH in shapes else b"")
    arrays = _named(numbers, object_graph.names(graph.nodes), reader)
    ours = json.loads(reader.get_tensor(RESERVED)) if RESERVED in shapes else {}
    return Contents(arrays, ours.get("facts", {}), ours.get("metadata", {}))


def write(path: Path, contents: Contents) -> None:
    """A folder that holds the checkpoint "model.ckpt", with the names as keys."""
    tensors = {name: as_canonical(array) for name, array in contents.arrays.items()}
    ours = {"facts": dict(contents.facts), "metadata": dict(contents.metadata)}
    tensors[RESERVED] = np.array(json.dumps(ours).encode())
    tf.raw_ops.SaveV2(
        prefix=str(path / "model.ckpt"),
        tensor_names=list(tensors),
        shape_and_slices=[""] * len(tensors),
        tensors=[tf.constant(tensor) for tensor in tensors.values()],
    )
    (path / "checkpoint").write_text(
        'model_checkpoint_path: "model.ckpt"\nall_model_checkpoint_paths: "model.ckpt"\n'
    )


def _latest(folder: Path) -> Path:
    """The index that the file `checkpoint` names; only its last part, for folders are moved.

    Raises:
        ValueError: it names none, or one that is not in the folder.
    """
    with (folder / "checkpoint").open(encoding="utf-8") as file:
        found = re.match(r'model_checkpoint_path: "([^"\n]+)"', file.read(10_000))
    if not found:
        raise ValueError("its file `checkpoint` names no checkpoint")
    name = re.split(r"[/\\]", found[1])[-1]
    # Before there was an index, all stood in one file.
    for path in (folder / f"{name}.index", folder / name):
        if path.is_file():
            return path
    raise ValueError(f"its file `checkpoint` names {name!r}, and there is no {name}.index")


def _is_number(dtype: tf.DType) -> bool:
    return dtype == tf.bfloat16 or dtype.is_bool or np.dtype(dtype.as_numpy_dtype).kind in "fiu"


def _named(
    keys: Iterable[str], names: dict[str, str], reader: tf.train.CheckpointReader
) -> dict[str, np.ndarray]:
    """Name -> array. Keras' export saves a variable twice; two of one name keep their keys."""
    arrays: dict[str, np.ndarray] = {}
    for key in sorted(keys, key=by_number):
        own = key.removesuffix(_VALUE)
        if own == _COUNTER:
            continue
        array = as_canonical(reader.get_tensor(key))
        name = names.get(key, own)
        if name in arrays and np.array_equal(arrays[name], array):
            continue
        arrays[own if name in arrays else name] = array
    return {name: arrays[name] for name in sorted(arrays, key=by_number)}

"""A live module on NumPy arrays: one file for each framework, with the same functions in all.

borrow(module)                  a context with a module that may be changed; the given one stays
                                as it is, or is so again afterwards
modules(module)                 the module and all that it is made of
arrays(module)                  name -> array of every floating-point weight and statistic
assign(module, arrays)          give them these values
call(module, x, training)       every array that module(x) returns, as float64
gradient(module, x, index, cotangent)
                                of sum(output * cotangent) by x, for one of these arrays, in
                                evaluation

An x is in the layout and every array in the shape of the module.
"""

from __future__ import annotations

import importlib
from types import ModuleType
from typing import Any

# The start of a base class's module -> the file. Keras layers are torch modules, too, on its torch
# backend, and Keras 2 layers are tf modules.
_PROBES = {
    "keras.": "keras",
    "torch.nn.": "torch",
    "tensorflow.": "tf",
    "flax.nnx.": "flax",
    "flax.linen.": "linen",
}


def probe_of(module: Any) -> ModuleType:
    """The file that knows how to run `module`; it imports that module's framework alone.

    Raises:
        TypeError: the module is of no framework that is known.
    """
    first = module[0] if isinstance(module, tuple) and len(module) == 2 else module
    origins = [f"{cls.__module__}." for cls in type(first).__mro__]
    for start, name in _PROBES.items():
        if any(origin.startswith(start) for origin in origins):
            return importlib.import_module(f"{__name__}.{name}")
    raise TypeError(
        f"module={module!r:.80} has the type {type(module).__name__}, which is of no framework "
        f"that is known; pass a torch.nn.Module, tf.Module, Keras layer or model, nnx.Module, or "
        f"a linen module with its variables"
    )

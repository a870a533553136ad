"""The kernels of `primitives.cpp` for CPUs, where a compiler built them when this was installed.

Which package calls them, and for what, is its own matter: here are addresses in and an error out.
"""

from __future__ import annotations

import ctypes
import functools
import sys
import warnings
from pathlib import Path

FILE = {"win32": "primitives.dll", "darwin": "primitives.dylib"}.get(sys.platform, "primitives.so")
# The numbers by which they know the dtypes of a map.
DTYPES = {"float32": 0, "float64": 1, "bfloat16": 2}

_SHAPE = [ctypes.c_int, ctypes.c_int, *[ctypes.c_int64] * 3]
_ARGUMENTS = {
    "pool_rows": [*_SHAPE, *[ctypes.c_void_p] * 5],
    "pool_columns": [*_SHAPE, *[ctypes.c_void_p] * 5],
    "pool_rows_backward": [*_SHAPE, *[ctypes.c_void_p] * 9],
    "pool_columns_backward": [*_SHAPE, *[ctypes.c_void_p] * 9],
    "scale": [*_SHAPE, *[ctypes.c_void_p] * 3, ctypes.c_int, ctypes.c_void_p],
    "scale_backward": [*_SHAPE, *[ctypes.c_void_p] * 3, ctypes.c_int, *[ctypes.c_void_p] * 4],
}
NAMES = tuple(_ARGUMENTS)


class Kernels:
    """The functions of `primitives.cpp`, which has their arguments: addresses and sizes.

    Each is there a second time, xla_NAME, for XLA to call: see `xla.cpp`.

    Raises:
        MemoryError: a function lacked memory.
        OSError: no library, or one that the system can't load.
        AttributeError: the library was built of older sources, which lack functions.
    """

    def __init__(self, path: Path) -> None:
        library = ctypes.CDLL(str(path))
        for name, arguments in _ARGUMENTS.items():
            function = getattr(library, f"cbam_{name}")
            function.argtypes, function.restype = arguments, ctypes.c_int
            function.errcheck = _raise
            setattr(self, name, function)
            setattr(self, f"xla_{name}", getattr(library, f"cbam_xla_{name}"))


def _raise(result: int, function: object, arguments: tuple[object, ...]) -> int:
    if result:
        raise MemoryError("no memory is left for the sums of a map; make the batch smaller")
    return result


@functools.cache
def kernels() -> Kernels | None:
    """The kernels; None, with one warning, where there are none."""
    try:
        return Kernels(Path(__file__).parent / FILE)
    except (OSError, AttributeError) as error:
        warnings.warn(
            f"cbam has no native kernels here and runs on plain operations ({error}); with a C++ "
            "compiler on the path, install it again, or set CBAM_KERNELS=off to hear no more",
            stacklevel=2,
        )
        return None

"""The registry: one entry for each way to run a block. A new framework is one more line here."""

from __future__ import annotations

import importlib.util
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field

from cbam_core.slots import KERAS, OPTAX, TORCH, Convention


@dataclass(frozen=True)
class Library:
    """An array library: its functions, methods of the layers made of it, and its optimizers' slots.

    Of the functions and methods, which faults are made of, each is "module:function" or
    "module:Class.method".

    Attributes:
        stop_gradient, as_tensor: functions of the array library.
        convolution: what runs a convolution over images.
        norm: what runs the batch norm.
        update: what moves its running statistics.
        convention: how its optimizers name and scale what they keep.
    """

    stop_gradient: str
    as_tensor: str
    convolution: str
    norm: str
    update: str
    convention: Convention


@dataclass(frozen=True)
class Framework:
    """One way to run a block.

    Attributes:
        name: as `cbam check --frameworks` takes it.
        package: the package of this project that holds the block; its module `evaluate` has
            `prepare`, `evaluate`, `evaluate_network` and, of attention maps, `evaluate_gates`,
            which a worker calls, and `explain_network`, which `cbam explain` does.
        requires: the modules that have to be installed.
        extra: the extra of this project that installs them.
        library: the array library that the package computes with.
        compiled: whether `evaluate` is asked to compile the block.
        sample: whether `cbam check` without --full runs a few cases only, because a pass takes
            seconds or the code is for the most part that of another framework.
        needs_compiler: whether it compiles C++ while it runs.
        environment: variables that its process needs.
    """

    name: str
    package: str
    requires: tuple[str, ...]
    extra: str
    library: Library
    compiled: bool = False
    sample: bool = False
    needs_compiler: bool = False
    environment: Mapping[str, str] = field(default_factory=dict)

    @property
    def missing(self) -> list[str]:
        """What is not installed of what it needs (found without importing anything)."""
        missing = [name for name in self.requires if importlib.util.find_spec(name) is None]
        if self.needs_compiler and not any(map(shutil.which, _compilers())):
            missing.append("a C++ compiler")
        return missing


def _compilers() -> list[str]:
    return [os.environ.get("CXX", "g++"), "g++", "clang++", "cl"]


_TORCH = Library(
    "torch:Tensor.detach",
    "torch:as_tensor",
    "cbam_torch.layers:Conv2d.forward",
    "cbam_torch.layers:BatchNorm.forward",
    "cbam_torch.layers:BatchNorm.forward",
    TORCH,
)
_TF = Library(
    "tensorflow:stop_gradient",
    "tensorflow:convert_to_tensor",
    "cbam_tf.layers:Conv.__call__",
    "cbam_tf.layers:BatchNorm.__call__",
    "cbam_tf.layers:BatchNorm.update",
    KERAS,
)
_KERAS = Library(
    "keras.ops:stop_gradient",
    "keras.ops:convert_to_tensor",
    "cbam_keras.layers:Conv2D.call",
    "cbam_keras.layers:BatchNorm.call",
    "cbam_keras.layers:BatchNorm.update",
    KERAS,
)
_FLAX = Library(
    "jax.lax:stop_gradient",
    "jax.numpy:asarray",
    "flax.nnx:Conv.__call__",
    "cbam_flax.layers:BatchNorm.__call__",
    "cbam_flax.layers:update",
    OPTAX,
)
_LINEN = Library(
    "jax.lax:stop_gradient",
    "jax.numpy:asarray",
    "flax.linen:Conv.__call__",
    "cbam_flax.linen.layers:BatchNorm.__call__",
    "cbam_flax.layers:update",
    OPTAX,
)


def _torch(name: str, *, compiled: bool) -> Framework:
    return Framework(
        name,
        "cbam_torch",
        ("torch",),
        "torch",
        _TORCH,
        compiled=compiled,
        sample=compiled,
        needs_compiler=compiled,
    )


def _tf(name: str, *, compiled: bool) -> Framework:
    return Framework(name, "cbam_tf", ("tensorflow",), "tf", _TF, compiled=compiled)


def _keras(backend: str, *, module: str, extra: str, sample: bool = False) -> Framework:
    return Framework(
        f"keras-{backend}",
        "cbam_keras",
        ("keras", module),
        f"keras,{extra}",
        _KERAS,
        sample=sample,
        environment={"KERAS_BACKEND": backend},
    )


def _flax(name: str, package: str, library: Library, *, sample: bool) -> Framework:
    return Framework(name, package, ("jax", "flax"), "flax", library, sample=sample)


FRAMEWORKS = {
    framework.name: framework
    for framework in (
        _torch("torch", compiled=False),
        _torch("torch-compile", compiled=True),
        _tf("tf", compiled=False),
        _tf("tf-function", compiled=True),
        _keras("tensorflow", module="tensorflow", extra="tf"),
        _keras("jax", module="jax", extra="flax", sample=True),
        _keras("torch", module="torch", extra="torch"),
        _flax("flax", "cbam_flax", _FLAX, sample=False),
        _flax("linen", "cbam_flax.linen", _LINEN, sample=True),
    )
}

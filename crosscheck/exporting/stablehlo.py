"""StableHLO in the files of jax.export, written and run by JAX."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array, export

from cbam_core import Architecture, CBAMSpec
from cbam_flax import CBAM, Backbone, load_canonical
from crosscheck.exporting.formats import Run, axes_of, channels_of

PLATFORMS = ("cpu", "cuda", "rocm", "tpu")


def write(
    described: CBAMSpec | Architecture, weights: Mapping[str, np.ndarray], path: Path
) -> None:
    """The block or network with canonical weights, in evaluation, for any batch and size.

    The precision of its products is left to the device that runs it.
    """
    with jax.enable_x64(False), jax.default_matmul_precision(None):
        shape = (*export.symbolic_shape(", ".join(axes_of(described))), channels_of(described))
        x = jax.ShapeDtypeStruct(shape, jnp.float32)
        found = export.export(jax.jit(_evaluation(described, weights)), platforms=PLATFORMS)(x)
    path.write_bytes(found.serialize())


def _evaluation(
    described: CBAMSpec | Architecture, weights: Mapping[str, np.ndarray]
) -> Callable[[Array], Any]:
    """x (N, *S, C) -> y."""

    def build() -> Backbone | CBAM:
        rngs = nnx.Rngs(0)
        if isinstance(described, Architecture):
            return Backbone(described, rngs=rngs)
        return CBAM.from_spec(described, rngs=rngs)

    # Only the shapes: the values are those of the weights.
    module = nnx.eval_shape(build)
    nnx.reseed(module, default=0)
    load_canonical(module, weights)
    module.set_attributes(use_running_average=True, deterministic=True, raise_if_not_found=False)
    graph, state = nnx.split(module)

    def run(x: Array) -> Any:
        return nnx.merge(graph, state)(x)

    return run


def load(path: Path) -> Run:
    """x (N, *S, C) -> y."""
    run = jax.jit(export.deserialize(bytearray(path.read_bytes())).call)
    return lambda x: np.asarray(run(x))

"""A block on NumPy arrays: what the cross-check runs, the same function in all four packages."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from cbam_core import STATISTICS, CBAMSpec, as_canonical
from cbam_flax.linen.attention import CBAM
from cbam_flax.linen.weights import load_canonical, to_canonical

Variables = dict[str, Any]


def prepare(device: str) -> None:
    """Make this process ready for `device`, "cpu" or "gpu", with full float32 precision.

    Raises:
        RuntimeError: JAX sees no such device.
    """
    try:
        jax.devices(device)
    except RuntimeError:
        raise RuntimeError(f"JAX sees no {device.upper()} here; run with --device cpu") from None
    jax.config.update("jax_default_matmul_precision", "highest")
    jax.config.update("jax_enable_x64", True)


def evaluate(
    spec: CBAMSpec,
    weights: Mapping[str, np.ndarray],
    x: np.ndarray,
    cotangent: np.ndarray,
    *,
    dtype: str = "float32",
    training: bool = False,
    device: str = "cpu",
    compiled: bool = False,
) -> tuple[dict[str, np.ndarray], str]:
    """The pass of `spec` with `weights` over x, and the gradients of sum(output * cotangent).

    Args:
        weights: canonical weights.
        x, cotangent: (N, *S, C).
        dtype: "float64", "float32", "bfloat16" or "float16", of the block and of its input.
        training: whether the block is in training mode.
        device: "cpu" or "gpu".
        compiled: has no effect; the block always goes through jax.jit.

    Returns:
        The arrays "output", "grad:input", "grad:NAME" of each weight and "state:NAME" of each
        running statistic after the pass, all in canonical layout, bfloat16 as float32; and the
        dtype that the output had.
    """
    with jax.default_device(jax.devices(device)[0]):
        block = CBAM.from_spec(spec, param_dtype=dtype, use_running_average=not training)
        variables = load_canonical(block, weights)
        params, statistics = variables["params"], variables.get("batch_stats", {})
        arguments = (params, statistics, jnp.asarray(x, dtype), jnp.asarray(cotangent, dtype))
        y, gradients, dx, updated = _step(block, *arguments)
    arrays = {"output": as_canonical(y), "grad:input": as_canonical(dx)}
    # The gradients in place of the parameters, and the statistics after the pass.
    after = {"params": gradients, **updated}
    for name, array in to_canonical(block, after).items():
        arrays[f"{'state' if name in STATISTICS else 'grad'}:{name}"] = array
    return arrays, y.dtype.name


@functools.partial(jax.jit, static_argnames="block")
def _step(
    block: CBAM, params: Variables, statistics: Variables, x: Array, cotangent: Array
) -> tuple[Array, Variables, Array, Variables]:
    """The output, the gradients by the parameters and by x, and the statistics after the pass."""

    def run(params: Variables, x: Array) -> Any:
        variables = {"params": params, "batch_stats": statistics}
        return block.apply(variables, x, mutable=["batch_stats"])

    y, pullback, after = jax.vjp(run, params, x, has_aux=True)
    gradients, dx = pullback(cotangent.astype(y.dtype))
    return y, gradients, dx, after

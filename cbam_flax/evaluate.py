"""A block or a network on NumPy arrays: what the cross-check runs, alike in all four packages."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array

from cbam_core import Architecture, CBAMSpec, as_canonical
from cbam_core.costs import is_statistic
from cbam_flax.attention import CBAM
from cbam_flax.backbones import Backbone
from cbam_flax.explain import attention_maps, grad_cam
from cbam_flax.weights import load_canonical, to_canonical


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
        # Only the shapes: what draws values that nobody uses would take JAX long to compile.
        block = nnx.eval_shape(lambda: CBAM.from_spec(spec, param_dtype=dtype, rngs=nnx.Rngs(0)))
        return _differentiate(block, weights, x, cotangent, dtype, training)


def evaluate_network(
    architecture: Architecture,
    weights: Mapping[str, np.ndarray],
    x: np.ndarray,
    cotangent: np.ndarray,
    *,
    dtype: str = "float32",
    training: bool = False,
    device: str = "cpu",
    compiled: bool = False,
) -> tuple[dict[str, np.ndarray], str]:
    """The pass of a network over pictures x (N, H, W, 3), as `evaluate` gives that of a block.

    Args:
        cotangent: (N, num_classes), of the logits.
        training: whether the network is in training mode, but without dropout, which no two
            frameworks draw alike.
    """
    with jax.default_device(jax.devices(device)[0]):
        network = nnx.eval_shape(
            lambda: Backbone(architecture, param_dtype=dtype, rngs=nnx.Rngs(0))
        )
        nnx.reseed(network, default=0)
        return _differentiate(network, weights, x, cotangent, dtype, training)


def evaluate_gates(
    spec: CBAMSpec,
    weights: Mapping[str, np.ndarray],
    x: np.ndarray,
    *,
    dtype: str = "float32",
    device: str = "cpu",
    compiled: bool = False,
) -> dict[str, np.ndarray]:
    """The attention maps of `spec` with `weights` on x (N, *S, C), as `evaluate` takes them.

    Returns:
        "gate:channel", (N, 1.., C), and "gate:spatial", (N, *S, 1), as far as the spec has them.
    """
    with jax.default_device(jax.devices(device)[0]):
        block = nnx.eval_shape(lambda: CBAM.from_spec(spec, param_dtype=dtype, rngs=nnx.Rngs(0)))
        load_canonical(block, weights)
        maps = attention_maps(block, jnp.asarray(x, dtype))
    return {f"gate:{name}": as_canonical(np.asarray(gate)) for name, gate in maps.items()}


def explain_network(
    architecture: Architecture,
    weights: Mapping[str, np.ndarray],
    x: np.ndarray,
    target: Any = None,
    at: str | None = None,
    *,
    dtype: str = "float32",
    device: str = "cpu",
) -> tuple[np.ndarray, dict[str, np.ndarray], np.ndarray]:
    """What a network says of pictures x (N, H, W, 3), and what it looks at.

    Args:
        target, at: see `grad_cam`.

    Returns:
        The logits (N, num_classes); the attention maps, channels last, of which a network without
        attention has none; and Grad-CAM (N, H', W').
    """
    names: list[str] = []
    with jax.default_device(jax.devices(device)[0]):
        network = nnx.eval_shape(
            lambda: Backbone(architecture, param_dtype=dtype, rngs=nnx.Rngs(0))
        )
        nnx.reseed(network, default=0)
        load_canonical(network, weights)
        network.eval()

        @nnx.jit
        def explain(network: Backbone, x: Array) -> Any:
            maps = attention_maps(network, x) if architecture.attention else {}
            names[:] = maps
            return network(x), list(maps.values()), grad_cam(network, x, target, at)

        found = explain(network, jnp.asarray(x, dtype))
        logits, gates, cam = jax.tree.map(np.asarray, found)
    return logits, dict(zip(names, gates, strict=True)), cam


def _differentiate(
    module: CBAM | Backbone,
    weights: Mapping[str, np.ndarray],
    x: np.ndarray,
    cotangent: np.ndarray,
    dtype: str,
    training: bool,
) -> tuple[dict[str, np.ndarray], str]:
    load_canonical(module, weights)
    modes = {"use_running_average": not training, "deterministic": True}
    module.set_attributes(**modes, raise_if_not_found=False)
    graph, *states = nnx.split(module, nnx.Param, ...)
    arguments = (*states, jnp.asarray(x, dtype), jnp.asarray(cotangent, dtype))
    y, gradients, dx, others = _step(graph, *arguments)
    arrays = {"output": as_canonical(y), "grad:input": as_canonical(dx)}
    # The gradients in place of the parameters, and the statistics after the pass.
    after = nnx.merge(graph, gradients, others)
    for name, array in to_canonical(after).items():
        arrays[f"{'state' if is_statistic(name) else 'grad'}:{name}"] = array
    return arrays, y.dtype.name


@functools.partial(jax.jit, static_argnames="graph")
def _step(
    graph: nnx.GraphDef[Any],
    params: nnx.State,
    others: nnx.State,
    x: Array,
    cotangent: Array,
) -> tuple[Array, nnx.State, Array, nnx.State]:
    """The output, the gradients by the parameters and by x, and the other state after the pass."""

    def run(params: nnx.State, x: Array) -> tuple[Array, nnx.State]:
        module = nnx.merge(graph, params, others, copy=True)
        return module(x), nnx.state(module, nnx.Not(nnx.Param))

    y, pullback, after = jax.vjp(run, params, x, has_aux=True)
    gradients, dx = pullback(cotangent.astype(y.dtype))
    return y, gradients, dx, after

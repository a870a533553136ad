"""A block or a network on NumPy arrays: what the cross-check runs, alike in all four packages."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from cbam_core import Architecture, CBAMSpec, as_canonical
from cbam_core.costs import is_statistic
from cbam_flax.linen.attention import CBAM
from cbam_flax.linen.backbones import Backbone
from cbam_flax.linen.explain import attention_maps, grad_cam
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
        return _differentiate(block, weights, x, cotangent, dtype)


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
    with jax.default_device(jax.devices(device)[0]), nn.intercept_methods(_without_dropout):
        network = Backbone(architecture, param_dtype=dtype, use_running_average=not training)
        return _differentiate(network, weights, x, cotangent, dtype)


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
        block = CBAM.from_spec(spec, param_dtype=dtype)
        variables = load_canonical(block, weights)
        maps = attention_maps(block, jnp.asarray(x, dtype), variables=variables)
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
        network = Backbone(architecture, param_dtype=dtype, use_running_average=True)

        @jax.jit
        def explain(variables: Any, x: Array) -> Any:
            given = {"variables": variables}
            maps = attention_maps(network, x, **given) if architecture.attention else {}
            names[:] = maps
            cam = grad_cam(network, x, target, at, **given)
            return network.apply(variables, x), list(maps.values()), cam

        found = explain(load_canonical(network, weights), jnp.asarray(x, dtype))
        logits, gates, cam = jax.tree.map(np.asarray, found)
    return logits, dict(zip(names, gates, strict=True)), cam


def _without_dropout(
    method: Callable[..., Any], arguments: Any, options: Any, context: nn.module.InterceptorContext
) -> Any:
    if isinstance(context.module, nn.Dropout):
        return arguments[0]
    return method(*arguments, **options)


def _differentiate(
    module: CBAM | Backbone,
    weights: Mapping[str, np.ndarray],
    x: np.ndarray,
    cotangent: np.ndarray,
    dtype: str,
) -> tuple[dict[str, np.ndarray], str]:
    variables = load_canonical(module, weights)
    params, statistics = variables["params"], variables.get("batch_stats", {})
    arguments = (params, statistics, jnp.asarray(x, dtype), jnp.asarray(cotangent, dtype))
    y, gradients, dx, updated = _step(module, *arguments)
    arrays = {"output": as_canonical(y), "grad:input": as_canonical(dx)}
    # The gradients in place of the parameters, and the statistics after the pass.
    after = {"params": gradients, **updated}
    for name, array in to_canonical(module, after).items():
        arrays[f"{'state' if is_statistic(name) else 'grad'}:{name}"] = array
    return arrays, y.dtype.name


@functools.partial(jax.jit, static_argnames="module")
def _step(
    module: CBAM | Backbone,
    params: Variables,
    statistics: Variables,
    x: Array,
    cotangent: Array,
) -> tuple[Array, Variables, Array, Variables]:
    """The output, the gradients by the parameters and by x, and the statistics after the pass."""

    def run(params: Variables, x: Array) -> Any:
        variables = {"params": params, "batch_stats": statistics}
        return module.apply(variables, x, mutable=["batch_stats"])

    y, pullback, after = jax.vjp(run, params, x, has_aux=True)
    gradients, dx = pullback(cotangent.astype(y.dtype))
    return y, gradients, dx, after

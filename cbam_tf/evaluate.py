"""A block or a network on NumPy arrays: what the cross-check runs, alike in all four packages."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import tensorflow as tf

from cbam_core import Architecture, CBAMSpec
from cbam_core.costs import is_statistic
from cbam_tf.attention import CBAM
from cbam_tf.backbones import Backbone
from cbam_tf.explain import attention_maps, grad_cam
from cbam_tf.weights import canonical_array, load_canonical, named_weights


def prepare(device: str) -> None:
    """Make this process ready for `device`, "cpu" or "gpu", with full float32 precision.

    Raises:
        RuntimeError: TensorFlow sees no such device.
    """
    if device == "gpu" and not tf.config.list_physical_devices("GPU"):
        raise RuntimeError("TensorFlow sees no GPU here; run with --device cpu")
    tf.config.experimental.enable_tensor_float_32_execution(False)


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
        compiled: whether the block goes through tf.function.

    Returns:
        The arrays "output", "grad:input", "grad:NAME" of each weight and "state:NAME" of each
        running statistic after the pass, all in canonical layout, bfloat16 as float32; and the
        dtype that the output had.
    """
    with tf.device(f"/{device.upper()}:0"):
        block = CBAM.from_spec(spec, dtype=getattr(tf, dtype))
        return _differentiate(block, weights, x, cotangent, dtype, training, compiled)


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
    with tf.device(f"/{device.upper()}:0"):
        network = Backbone(architecture, dtype=getattr(tf, dtype))
        if architecture.head == "dual_pooling":
            network.head.dropout.rate = 0.0
        return _differentiate(network, weights, x, cotangent, dtype, training, compiled)


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
    with tf.device(f"/{device.upper()}:0"):
        block = CBAM.from_spec(spec, dtype=getattr(tf, dtype))
        load_canonical(block, weights)
        run = tf.function(attention_maps, autograph=False) if compiled else attention_maps
        maps = run(block, tf.cast(x, dtype))
    return {f"gate:{name}": canonical_array(gate) for name, gate in maps.items()}


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
    with tf.device(f"/{device.upper()}:0"):
        network = Backbone(architecture, dtype=getattr(tf, dtype))
        load_canonical(network, weights)
        pictures = tf.constant(x, dtype)
        maps = attention_maps(network, pictures) if architecture.attention else {}
        cam = grad_cam(network, pictures, target, at)
        logits: Any = network(pictures)
        gates = {name: gate.numpy() for name, gate in maps.items()}
        return logits.numpy(), gates, cam.numpy()


def _differentiate(
    module: CBAM | Backbone,
    weights: Mapping[str, np.ndarray],
    x: np.ndarray,
    cotangent: np.ndarray,
    dtype: str,
    training: bool,
    compiled: bool,
) -> tuple[dict[str, np.ndarray], str]:
    load_canonical(module, weights)
    run: Callable[..., tf.Tensor] = tf.function(module, autograph=False) if compiled else module
    leaf = tf.cast(x, dtype)
    variables = named_weights(module)
    sources = {n: v for n, v in variables.items() if not is_statistic(n)} | {"input": leaf}
    with tf.GradientTape() as tape:
        tape.watch(leaf)
        y = run(leaf, training=training)
    zero = tf.UnconnectedGradients.ZERO
    gradients = tape.gradient(y, sources, tf.cast(cotangent, y.dtype), zero)
    arrays = {"output": canonical_array(y)}
    arrays |= {f"grad:{name}": canonical_array(g) for name, g in gradients.items()}
    arrays |= {f"state:{n}": canonical_array(v) for n, v in variables.items() if is_statistic(n)}
    return arrays, y.dtype.name

"""A block or a network on NumPy arrays: what the cross-check runs, alike in all four packages.

The only file that knows all backends, since Keras leaves gradients and devices to them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import keras
import numpy as np

from cbam_core import Architecture, CBAMSpec
from cbam_keras.attention import CBAM
from cbam_keras.backbones import Backbone
from cbam_keras.explain import attention_maps, grad_cam
from cbam_keras.weights import canonical_array, load_canonical, named_weights

Module = CBAM | Backbone


def prepare(device: str) -> None:
    """Make this process ready for `device`, "cpu" or "gpu", with full float32 precision.

    Raises:
        RuntimeError: the backend sees no such device.
    """
    backend = keras.config.backend()
    if not _PREPARE[backend](device):
        raise RuntimeError(f"{backend} sees no {device.upper()} here; run with --device cpu")


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
        dtype: "float64", "float32", "bfloat16" or "float16", the policy of the block and the
            dtype of its input.
        training: whether the block is in training mode.
        device: "cpu" or "gpu".
        compiled: whether the block goes through tf.function; on JAX it always goes through
            jax.jit, on torch it never is compiled.

    Returns:
        The arrays "output", "grad:input", "grad:NAME" of each weight and "state:NAME" of each
        running statistic after the pass, all in canonical layout, bfloat16 as float32; and the
        dtype that the output had.
    """
    prepare(device)
    with keras.device(device):
        block = CBAM.from_spec(spec, data_format="channels_last", dtype=dtype)
        load_canonical(block, weights)
        return differentiate(block, x, cotangent, training=training, compiled=compiled)


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
    prepare(device)
    with keras.device(device):
        network = Backbone(architecture, data_format="channels_last", dtype=dtype)
        if architecture.head == "dual_pooling":
            network.head.dropout.rate = 0.0
        load_canonical(network, weights)
        return differentiate(network, x, cotangent, training=training, compiled=compiled)


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
    prepare(device)
    with keras.device(device):
        block = CBAM.from_spec(spec, data_format="channels_last", dtype=dtype)
        load_canonical(block, weights)
        maps = attention_maps(block, keras.ops.convert_to_tensor(x, dtype))
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
    prepare(device)
    names: list[str] = []
    with keras.device(device):
        network = Backbone(architecture, data_format="channels_last", dtype=dtype)
        load_canonical(network, weights)

        def explain(x: Any) -> Any:
            maps = attention_maps(network, x) if architecture.attention else {}
            names[:] = maps
            return network(x), list(maps.values()), grad_cam(network, x, target, at)

        run = _COMPILED.get(keras.config.backend(), lambda function: function)(explain)
        found = run(keras.ops.convert_to_tensor(x, dtype))
        logits, gates, cam = keras.tree.map_structure(keras.ops.convert_to_numpy, found)
    return logits, dict(zip(names, gates, strict=True)), cam


def differentiate(
    module: Module,
    x: np.ndarray,
    cotangent: np.ndarray,
    *,
    training: bool = False,
    compiled: bool = False,
) -> tuple[dict[str, np.ndarray], str]:
    """What `evaluate` returns, of a block or network that is there, in its layout and policy."""
    names = {id(variable): name for name, variable in named_weights(module).items()}
    leaf, dy = (
        keras.ops.convert_to_tensor(array, module.compute_dtype) for array in (x, cotangent)
    )
    run = _RUN[keras.config.backend()]
    y, dx, gradients, others = run(module, leaf, dy, training, compiled)
    arrays = {"output": canonical_array(y), "grad:input": canonical_array(dx)}
    for variable, gradient in zip(module.trainable_variables, gradients, strict=True):
        arrays[f"grad:{names[id(variable)]}"] = canonical_array(gradient)
    for variable, value in zip(module.non_trainable_variables, others, strict=True):
        # Besides statistics there are the seeds of dropout.
        if id(variable) in names:
            arrays[f"state:{names[id(variable)]}"] = canonical_array(value)
    return arrays, keras.backend.standardize_dtype(y.dtype)


# The output, the gradients by x and by the trainable variables, and the other variables after it.
Pass = tuple[Any, Any, list[Any], list[Any]]


def _run_tensorflow(module: Module, x: Any, cotangent: Any, training: bool, compiled: bool) -> Pass:
    import tensorflow as tf

    call = tf.function(module) if compiled else module
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = call(x, training=training)
    sources = [x, *(variable.value for variable in module.trainable_variables)]
    zero = tf.UnconnectedGradients.ZERO
    dx, *gradients = tape.gradient(y, sources, cotangent, unconnected_gradients=zero)
    return y, dx, gradients, module.non_trainable_variables


def _run_jax(module: Module, x: Any, cotangent: Any, training: bool, compiled: bool) -> Pass:
    import jax

    weights = [variable.value for variable in module.trainable_variables]
    others = [variable.value for variable in module.non_trainable_variables]

    @jax.jit
    def differentiate(weights, x, cotangent):
        def call(weights, x):
            return module.stateless_call(weights, others, x, training=training)

        y, pullback, after = jax.vjp(call, weights, x, has_aux=True)
        gradients, dx = pullback(cotangent)
        return y, dx, gradients, after

    return differentiate(weights, x, cotangent)


def _run_torch(module: Module, x: Any, cotangent: Any, training: bool, compiled: bool) -> Pass:
    import torch

    weights = [variable.value for variable in module.trainable_variables]
    y = module(x.requires_grad_(), training=training)
    dx, *gradients = torch.autograd.grad(y, [x, *weights], cotangent, materialize_grads=True)
    return y, dx, gradients, module.non_trainable_variables


def _prepare_tensorflow(device: str) -> bool:
    import tensorflow as tf

    tf.config.experimental.enable_tensor_float_32_execution(False)
    return bool(tf.config.list_physical_devices(device.upper()))


def _prepare_jax(device: str) -> bool:
    import jax

    jax.config.update("jax_enable_x64", True)
    jax.config.update("jax_default_matmul_precision", "highest")
    return device == "cpu" or jax.default_backend() == device


def _prepare_torch(device: str) -> bool:
    import torch

    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False
    return device == "cpu" or torch.cuda.is_available()


def _jit(function: Any) -> Any:
    import jax

    return jax.jit(function)


# Of a network one program, which takes XLA a fifth of the time that its operations take.
_COMPILED = {"jax": _jit}
_RUN = {"tensorflow": _run_tensorflow, "jax": _run_jax, "torch": _run_torch}
_PREPARE = {"tensorflow": _prepare_tensorflow, "jax": _prepare_jax, "torch": _prepare_torch}

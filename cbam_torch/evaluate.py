"""A block or a network on NumPy arrays: what the cross-check runs, alike in all four packages."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from cbam_core import Architecture, CBAMSpec
from cbam_core.costs import is_statistic
from cbam_torch.attention import CBAM
from cbam_torch.backbones import Backbone
from cbam_torch.explain import attention_maps, grad_cam
from cbam_torch.weights import canonical_array, load_canonical, named_weights, to_numpy


def prepare(device: str) -> None:
    """Make this process ready for `device`, "cpu" or "gpu", with full float32 precision.

    Raises:
        RuntimeError: torch sees no such device.
    """
    if device == "gpu" and not torch.cuda.is_available():
        raise RuntimeError("torch sees no GPU here; run with --device cpu")
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False


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
        compiled: whether the block goes through torch.compile(fullgraph=True).

    Returns:
        The arrays "output", "grad:input", "grad:NAME" of each weight and "state:NAME" of each
        running statistic after the pass, all in canonical layout, bfloat16 as float32; and the
        dtype that the output had.
    """
    options = {"device": PLACES[device], "dtype": getattr(torch, dtype)}
    block = CBAM.from_spec(spec, **options).train(training)
    return _differentiate(block, weights, x, cotangent, compiled, **options)


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
    options = {"device": PLACES[device], "dtype": getattr(torch, dtype)}
    network = Backbone(architecture, **options).train(training)
    for layer in network.modules():
        if isinstance(layer, nn.Dropout):
            layer.p = 0.0
    return _differentiate(network, weights, x, cotangent, compiled, **options)


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
    options: dict[str, Any] = {"device": PLACES[device], "dtype": getattr(torch, dtype)}
    block = CBAM.from_spec(spec, **options)
    load_canonical(block, weights)
    torch.compiler.reset()
    run = torch.compile(attention_maps, fullgraph=True) if compiled else attention_maps
    maps = run(block, channels_first(x).to(**options))
    return {f"gate:{name}": _channels_last(gate) for name, gate in maps.items()}


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
    options = {"device": PLACES[device], "dtype": getattr(torch, dtype)}
    network = Backbone(architecture, **options).eval()
    load_canonical(network, weights)
    pictures = channels_first(x).to(**options)
    with torch.no_grad():
        logits = network(pictures)
    maps = attention_maps(network, pictures) if architecture.attention else {}
    cam = grad_cam(network, pictures, target, at)
    gates = {name: _channels_last(gate) for name, gate in maps.items()}
    return to_numpy(logits), gates, to_numpy(cam)


PLACES = {"cpu": "cpu", "gpu": "cuda"}


def _differentiate(
    module: CBAM | Backbone,
    weights: Mapping[str, np.ndarray],
    x: np.ndarray,
    cotangent: np.ndarray,
    compiled: bool,
    **options: Any,
) -> tuple[dict[str, np.ndarray], str]:
    load_canonical(module, weights)
    # Compiled code is kept by the function, not the module, and only for a few of them.
    torch.compiler.reset()
    run = torch.compile(module, fullgraph=True, dynamic=False) if compiled else module
    leaf = channels_first(x).to(**options).requires_grad_()
    y = run(leaf)
    state = named_weights(module)
    sources = {"input": leaf} | {n: w for n, w in state.items() if not is_statistic(n)}
    dy = channels_first(cotangent).to(y)
    gradients = torch.autograd.grad(y, list(sources.values()), dy, materialize_grads=True)
    arrays = {"output": _channels_last(y), "grad:input": _channels_last(gradients[0])}
    for name, gradient in list(zip(sources, gradients, strict=True))[1:]:
        arrays[f"grad:{name}"] = canonical_array(gradient, weights[name].shape)
    for name in state.keys() - sources:
        arrays[f"state:{name}"] = canonical_array(state[name], weights[name].shape)
    return arrays, str(y.dtype).removeprefix("torch.")


def channels_first(array: np.ndarray) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(np.moveaxis(array, -1, 1)))


def _channels_last(tensor: Tensor) -> np.ndarray:
    return np.moveaxis(to_numpy(tensor), 1, -1)

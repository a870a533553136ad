"""Attention maps and Grad-CAM of Keras models, on any backend.

The one file beside `evaluate.py` that knows all backends, since Keras leaves gradients to them.
"""

from __future__ import annotations

import contextlib
import functools
import inspect
import itertools
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from typing import Any

import keras
from keras import KerasTensor as Tensor

from cbam_core.explaining import (
    check_logits,
    check_map,
    checked_target,
    explained_path,
    named_gates,
)
from cbam_keras import ops
from cbam_keras.attention import CBAM, ChannelAttention, SpatialAttention
from cbam_keras.insert import is_graph
from cbam_keras.layers import check_data_format

Keywords = Mapping[str, Any]
Hook = Callable[[Any, tuple[Any, ...], Keywords, Any], Any]


def attention_maps(
    model: keras.layers.Layer, x: Any, *, call: Mapping[str, Any] | None = None
) -> dict[str, Tensor]:
    """The gates with which a model refines its maps of x, in evaluation mode.

    The model is left as it was. A tf.function may call this function, and so may jax.jit, which
    sorts the names.

    Args:
        model: a block of this package, or a model with such blocks anywhere in it.
        x: an input of the model, or a tuple of all of them.
        call: further arguments of `model(x)` by name; `training` is False where the model has it.

    Returns:
        "PATH.channel", Mc (N, 1.., C), and "PATH.spatial", Ms (N, *S, 1), of the block at each
        path, in the order in which they are computed; "channel" and "spatial" where the model is
        the block. What a block gives when it is called again is "PATH.channel#2" and so on. They
        are of at least float32, without gradients.

    Raises:
        ValueError: the model calls no attention.

    Example:
        >>> import keras
        >>> from cbam_keras import attention_maps, resnet18
        >>> maps = attention_maps(resnet18(attention="cbam"), keras.random.normal((1, 64, 64, 3)))
        >>> tuple(maps["stage4.block1.attention.spatial"].shape)
        (1, 2, 2, 1)
    """
    calls: list[Any] = []

    def record(
        path: str, block: Any, arguments: tuple[Any, ...], keywords: Keywords, output: Tensor
    ) -> None:
        calls.append((path, block.spec, *_gates(block, *arguments, **keywords)))

    hooks = [
        (layer, functools.partial(record, path))
        for path, layer in _layers(model, x, call).items()
        if isinstance(layer, CBAM | ChannelAttention | SpatialAttention)
    ]
    with _watching(hooks):
        _evaluate(model, x, call)
    return named_gates(calls, model)


def grad_cam(
    model: keras.layers.Layer,
    x: Any,
    target: Any = None,
    at: str | None = None,
    *,
    call: Mapping[str, Any] | None = None,
    data_format: str = "channels_last",
) -> Tensor:
    """Where in its map A of x a model sees a class: relu(sum over k of alpha_k A_k).

    alpha_k is the mean over space of the gradient of the class's logit by the channel A_k, in
    evaluation mode. The model is left as it was.
    Selvaraju et al., Grad-CAM, ICCV 2017, https://arxiv.org/abs/1610.02391.

    Args:
        model: a classifier, from x to logits (N, num_classes).
        x: an input of the model, or a tuple of all of them.
        target: a class, or one for each sample; those that the model predicts if None.
        at: the path of the layer whose output is A, (N, *S, C); the last stage of a network of
            this package if None.
        call: further arguments of `model(x)` by name; `training` is False where the model has it.
        data_format: "channels_first" where A is (N, C, *S), None for Keras' own setting; the
            networks of this package are channels last inside.

    Returns:
        The map (N, *S) in at least float32, not normalised.

    Raises:
        ValueError, TypeError: a path that is not there or gives no map, which the message names; a
            class that the model does not have; a model that gives no logits.

    Example:
        >>> import keras
        >>> from cbam_keras import grad_cam, resnet18
        >>> x = keras.random.normal((1, 64, 64, 3))
        >>> tuple(grad_cam(resnet18(attention="cbam"), x, target=7).shape)
        (1, 2, 2)
    """
    channel_axis = 1 if check_data_format(data_format) == "channels_first" else -1
    layers = _layers(model, x, call)
    path = explained_path(at, layers, model)

    def score(change: Callable[[Tensor], Tensor]) -> tuple[Tensor, Tensor]:
        """The sum of the classes' logits where the map is changed, and the changed map."""
        outputs: list[Any] = []

        def swap(layer: Any, arguments: tuple[Any, ...], keywords: Keywords, output: Any) -> Any:
            outputs.append(output)
            check_map(path, outputs)
            outputs[0] = change(output)
            return outputs[0]

        with _watching([(layers[path], swap)]):
            logits = _evaluate(model, x, call)
        check_map(path, outputs)
        check_logits(logits)
        chosen = keras.ops.expand_dims(_classes(target, logits), 1)
        return keras.ops.sum(keras.ops.take_along_axis(logits, chosen, 1)), outputs[0]

    gradient, a = map(ops.at_least_float32, _GRADIENT[keras.config.backend()](score))
    space = [axis for axis in range(1, len(a.shape)) if axis != channel_axis % len(a.shape)]
    alpha = ops.avg(gradient, tuple(space))
    return ops.relu(keras.ops.sum(alpha * a, channel_axis))


def _gates(block: Any, x: Tensor, *_: Any, **others: Any) -> list[Tensor | None]:
    """Mc and Ms of a block for its input."""
    x = block.accept(x)
    if isinstance(block, CBAM):
        gates = block.gates(x)[1:]
    else:
        gate = block.attend(x)[1]
        gates = (gate, None) if isinstance(block, ChannelAttention) else (None, gate)
    stopped = (gate if gate is None else keras.ops.stop_gradient(gate) for gate in gates)
    return [gate if gate is None else block.from_channels_last(gate) for gate in stopped]


def _classes(target: Any, logits: Tensor) -> Tensor:
    """The class of each sample, (N,)."""
    if target is None:
        return keras.ops.argmax(logits, 1)
    # The value of a tensor that is traced can't be checked.
    is_traced = _IS_TRACED[keras.config.backend()](target)
    chosen = target if is_traced else checked_target(target, *logits.shape)
    return keras.ops.broadcast_to(chosen, keras.ops.shape(logits)[:1])


def _evaluate(model: Any, x: Any, call: Mapping[str, Any] | None) -> Any:
    """model(x) in evaluation mode, where the model has modes."""
    has_modes = "training" in inspect.signature(model.call).parameters
    modes = {"training": False} if has_modes else {}
    inputs = x if isinstance(x, tuple) else (x,)
    # A graph of layers takes all of its inputs as one.
    inputs = (inputs,) if is_graph(model) and len(inputs) > 1 else inputs
    return model(*inputs, **{**modes, **(call or {})})


def _layers(model: keras.layers.Layer, x: Any, call: Mapping[str, Any] | None) -> dict[str, Any]:
    """Path, of layers' names, -> layer, each at the first of its paths, and the model at ""."""
    if not model.built:
        # Its first call makes layers, and may call them without values.
        _evaluate(model, x, call)
    layers, seen = {"": model}, {id(model)}
    for path, layer in _inside(model, ""):
        if id(layer) not in seen:
            seen.add(id(layer))
            layers[path] = layer
    return layers


def _inside(layer: Any, prefix: str) -> Iterator[tuple[str, Any]]:
    named: dict[str, Any] = {}
    for inner in layer._flatten_layers(include_self=False, recursive=False):
        named[_unused(inner.name, named)] = inner
    for name, inner in named.items():
        yield f"{prefix}{name}", inner
        yield from _inside(inner, f"{prefix}{name}.")


def _unused(name: str, names: Container[str]) -> str:
    """The name itself, or with a number behind it where a layer beside it has it already."""
    numbered = (f"{name}_{number}" for number in itertools.count(1))
    return next(one for one in itertools.chain([name], numbered) if one not in names)


@contextlib.contextmanager
def _watching(hooks: Sequence[tuple[Any, Hook]]) -> Iterator[None]:
    """Hooks behind some layers; undone at the end."""
    before = [(layer, vars(layer).get("call")) for layer, _ in hooks]
    try:
        for layer, hook in hooks:
            # Past Keras' own, which would track it.
            vars(layer)["call"] = _watched(layer, hook)
        yield
    finally:
        for layer, own in before:
            del vars(layer)["call"]
            vars(layer).update({} if own is None else {"call": own})


def _watched(layer: Any, hook: Hook) -> Callable[..., Any]:
    """The layer's call, behind which the hook may change the output."""
    call = layer.call

    @functools.wraps(call)
    def watched(*arguments: Any, **keywords: Any) -> Any:
        output = call(*arguments, **keywords)
        changed = hook(layer, arguments, keywords, output)
        return output if changed is None else changed

    return watched


Score = Callable[[Callable[[Any], Any]], tuple[Any, Any]]


def _gradient_on_tensorflow(score: Score) -> tuple[Any, Any]:
    """The gradient of the score by the map, and the map."""
    import tensorflow as tf

    def watch(output: Any) -> Any:
        tape.watch(output)
        return output

    with tf.GradientTape(watch_accessed_variables=False) as tape:
        value, a = score(watch)
    return tape.gradient(value, a, unconnected_gradients=tf.UnconnectedGradients.ZERO), a


def _gradient_on_jax(score: Score) -> tuple[Any, Any]:
    import jax
    import jax.numpy as jnp

    def perturbed(perturbation: Any) -> tuple[Any, Any]:
        return score(lambda output: output + perturbation)

    _, a = jax.eval_shape(perturbed, 0.0)
    return jax.grad(perturbed, has_aux=True)(jnp.zeros(a.shape, a.dtype))


def _gradient_on_torch(score: Score) -> tuple[Any, Any]:
    import torch

    def cut(output: Any) -> Any:
        """Start a graph at the map, since what is before it needs none."""
        torch.set_grad_enabled(True)
        return output.detach().requires_grad_()

    with torch.inference_mode(False), torch.no_grad():
        value, a = score(cut)
        (gradient,) = torch.autograd.grad(value, [a], materialize_grads=True)
    return gradient, a.detach()


def _is_traced_by_tensorflow(target: Any) -> bool:
    import tensorflow as tf

    return bool(tf.is_symbolic_tensor(target))


def _is_traced_by_jax(target: Any) -> bool:
    import jax

    return isinstance(target, jax.core.Tracer)


_GRADIENT = {
    "tensorflow": _gradient_on_tensorflow,
    "jax": _gradient_on_jax,
    "torch": _gradient_on_torch,
}
_IS_TRACED = {
    "tensorflow": _is_traced_by_tensorflow,
    "jax": _is_traced_by_jax,
    "torch": lambda target: False,
}

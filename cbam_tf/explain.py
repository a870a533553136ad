"""Attention maps and Grad-CAM of TensorFlow models."""

from __future__ import annotations

import contextlib
import functools
import inspect
import types
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import tensorflow as tf

from cbam_core.explaining import (
    check_logits,
    check_map,
    checked_target,
    explained_path,
    named_gates,
)
from cbam_tf import ops
from cbam_tf.attention import CBAM, ChannelAttention, SpatialAttention, accepted, like_input
from cbam_tf.insert import modules_of
from cbam_tf.layers import CHANNEL_AXIS, check_data_format

Keywords = Mapping[str, Any]
Hook = Callable[[Any, tuple[Any, ...], Keywords, Any], None]


def attention_maps(
    model: tf.Module, x: Any, *, call: Mapping[str, Any] | None = None
) -> dict[str, tf.Tensor]:
    """The gates with which a model refines its maps of x, in evaluation mode.

    The model is left as it was. A tf.function may call this one; one that the model has inside runs
    without its graph.

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
        >>> import tensorflow as tf
        >>> from cbam_tf import attention_maps, resnet18
        >>> maps = attention_maps(resnet18(attention="cbam"), tf.random.normal([1, 64, 64, 3]))
        >>> maps["stage4.block1.attention.spatial"].shape
        TensorShape([1, 2, 2, 1])
    """
    calls: list[Any] = []

    def record(
        path: str, block: Any, arguments: tuple[Any, ...], keywords: Keywords, output: tf.Tensor
    ) -> None:
        calls.append((path, block.spec, *_gates(block, *arguments, **keywords)))

    hooks = [
        (module, functools.partial(record, path))
        for path, module in modules_of(model).items()
        if isinstance(module, CBAM | ChannelAttention | SpatialAttention)
    ]
    with _watching(hooks):
        _evaluate(model, x, call)
    return named_gates(calls, model)


def grad_cam(
    model: tf.Module,
    x: Any,
    target: Any = None,
    at: str | None = None,
    *,
    call: Mapping[str, Any] | None = None,
    data_format: str = "channels_last",
) -> tf.Tensor:
    """Where in its map A of x a model sees a class: relu(sum over k of alpha_k A_k).

    alpha_k is the mean over space of the gradient of the class's logit by the channel A_k, in
    evaluation mode. The model is left as it was.
    Selvaraju et al., Grad-CAM, ICCV 2017, https://arxiv.org/abs/1610.02391.

    Args:
        model: a classifier, from x to logits (N, num_classes).
        x: an input of the model, or a tuple of all of them.
        target: a class, or one for each sample; those that the model predicts if None.
        at: the path of the module whose output is A, (N, *S, C); the last stage of a network of
            this package if None.
        call: further arguments of `model(x)` by name; `training` is False where the model has it.
        data_format: "channels_first" where A is (N, C, *S); the networks of this package are
            channels last inside.

    Returns:
        The map (N, *S) in at least float32, not normalised.

    Raises:
        ValueError, TypeError: a path that is not there or gives no map, which the message names; a
            class that the model does not have; a model that gives no logits.

    Example:
        >>> import tensorflow as tf
        >>> from cbam_tf import grad_cam, resnet18
        >>> x = tf.random.normal([1, 64, 64, 3])
        >>> grad_cam(resnet18(attention="cbam"), x, target=7).shape
        TensorShape([1, 2, 2])
    """
    channel_axis = CHANNEL_AXIS[check_data_format(data_format)]
    modules = modules_of(model)
    path = explained_path(at, modules, model)
    outputs: list[Any] = []

    def watch(module: Any, arguments: tuple[Any, ...], keywords: Keywords, output: Any) -> None:
        outputs.append(output)
        check_map(path, outputs)
        tape.watch(output)

    with (
        tf.GradientTape(watch_accessed_variables=False) as tape,
        _watching([(modules[path], watch)]),
    ):
        logits = _evaluate(model, x, call)
        check_map(path, outputs)
        check_logits(logits)
        score = tf.reduce_sum(tf.gather(logits, _classes(target, logits), axis=1, batch_dims=1))
    zero = tf.UnconnectedGradients.ZERO
    gradients = tape.gradient(score, outputs, unconnected_gradients=zero)
    gradient, a = map(ops.at_least_float32, (*gradients, *outputs))
    space = [axis for axis in range(1, len(a.shape)) if axis != channel_axis % len(a.shape)]
    alpha = ops.avg(gradient, tuple(space))
    return tf.nn.relu(tf.reduce_sum(alpha * a, channel_axis))


def _gates(block: Any, x: tf.Tensor, *_: Any, **others: Any) -> list[tf.Tensor | None]:
    """Mc and Ms of a block for its input."""
    x = accepted(block, x)
    if isinstance(block, CBAM):
        gates = block.gates(x)[1:]
    else:
        gate = block.attend(x)[1]
        gates = (gate, None) if isinstance(block, ChannelAttention) else (None, gate)
    return [gate if gate is None else like_input(block, tf.stop_gradient(gate)) for gate in gates]


def _classes(target: Any, logits: tf.Tensor) -> tf.Tensor:
    """The class of each sample, (N,)."""
    if target is None:
        return tf.argmax(logits, 1)
    # The value of a tensor in a graph can't be checked.
    chosen = target if tf.is_symbolic_tensor(target) else checked_target(target, *logits.shape)
    return tf.broadcast_to(tf.cast(chosen, tf.int64), tf.shape(logits)[:1])


def _evaluate(model: Any, x: Any, call: Mapping[str, Any] | None) -> Any:
    """model(x) in evaluation mode, where the model has modes."""
    # The class of a module with a CBAM behind it takes what the class under it takes.
    calls = [kind.__call__ for kind in type(model).__mro__ if "__call__" in vars(kind)]
    has_modes = any("training" in inspect.signature(one).parameters for one in calls)
    modes = {"training": False} if has_modes else {}
    return model(*(x if isinstance(x, tuple) else (x,)), **{**modes, **(call or {})})


class Watched(tf.Module):
    """What a module of any class is while it is watched: the same, with a hook behind it."""

    _cbam_hook: Callable[..., None]

    def __call__(self, *arguments: Any, **keywords: Any) -> Any:
        output = super().__call__(*arguments, **keywords)
        self._cbam_hook(arguments, keywords, output)
        return output


@functools.cache
def _watched(kind: type[tf.Module]) -> type[tf.Module]:
    return types.new_class(f"{kind.__name__}Watched", (Watched, kind))


@contextlib.contextmanager
def _watching(hooks: Sequence[tuple[Any, Hook]]) -> Iterator[None]:
    """Hooks behind some modules, in a model without graphs of its own; undone at the end."""
    kinds: list[tuple[Any, Any]] = [(module, type(module)) for module, _ in hooks]
    eagerly = tf.config.functions_run_eagerly()
    try:
        # A graph inside would keep what a hook gets to itself.
        tf.config.run_functions_eagerly(True)
        for (module, kind), (_, hook) in zip(kinds, hooks, strict=True):
            module.__class__ = _watched(kind)
            # Past TensorFlow's own, which would track it.
            vars(module)["_cbam_hook"] = functools.partial(hook, module)
        yield
    finally:
        for module, kind in kinds:
            module.__class__ = kind
            vars(module).pop("_cbam_hook", None)
        tf.config.run_functions_eagerly(eagerly)

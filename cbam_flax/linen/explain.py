"""Attention maps and Grad-CAM of linen models."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array

from cbam_core.explaining import (
    check_logits,
    check_map,
    checked_target,
    explained_path,
    named_gates,
)
from cbam_flax import ops
from cbam_flax.linen.attention import CBAM, ChannelAttention, SpatialAttention
from cbam_flax.linen.insert import WithCBAM

Keywords = Mapping[str, Any]
Hook = Callable[[str, Any, tuple[Any, ...], Keywords, Any], Any]


def attention_maps(
    model: nn.Module,
    x: Any,
    *,
    variables: Mapping[str, Any],
    call: Mapping[str, Any] | None = None,
) -> dict[str, Array]:
    """The gates with which a model refines its maps of x, in evaluation mode.

    jax.jit may call this function, and sorts the names.

    Args:
        model: a block of this package, or a model with such blocks anywhere in it.
        x: an input of the model, or a tuple of all of them.
        variables: of the model.
        call: further arguments of `model.apply(variables, x)` by name, such as {"train": False};
            `use_running_average` is True where the model has it.

    Returns:
        "PATH.channel", Mc (N, 1.., C), and "PATH.spatial", Ms (N, *S, 1), of the block at each
        path, in the order in which they are computed; "channel" and "spatial" where the model is
        the block. What a block gives when it is called again is "PATH.channel#2" and so on. They
        are of at least float32, without gradients.

    Raises:
        ValueError: the model calls no attention.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from cbam_flax.linen import attention_maps, resnet18
        >>> model, x = resnet18(attention="cbam"), jnp.ones((1, 64, 64, 3))
        >>> variables = jax.eval_shape(model.init, jax.random.key(0), x)
        >>> run = lambda variables, x: attention_maps(model, x, variables=variables)
        >>> jax.eval_shape(run, variables, x)["stage4.block1.attention.spatial"].shape
        (1, 2, 2, 1)
    """
    calls: list[Any] = []

    def record(
        path: str, block: Any, arguments: tuple[Any, ...], keywords: Keywords, output: Array
    ) -> None:
        if isinstance(block, CBAM | ChannelAttention | SpatialAttention):
            calls.append((path, block.spec, *_gates(block, *arguments, **keywords)))

    _evaluate(model, record, variables, x, call)
    return named_gates(calls, model)


def grad_cam(
    model: nn.Module,
    x: Any,
    target: Any = None,
    at: str | None = None,
    *,
    variables: Mapping[str, Any],
    call: Mapping[str, Any] | None = None,
) -> Array:
    """Where in its map A of x a model sees a class: relu(sum over k of alpha_k A_k).

    alpha_k is the mean over space of the gradient of the class's logit by the channel A_k, in
    evaluation mode.
    Selvaraju et al., Grad-CAM, ICCV 2017, https://arxiv.org/abs/1610.02391.

    Args:
        model: a classifier, from x to logits (N, num_classes).
        x: an input of the model, or a tuple of all of them.
        target: a class, or one for each sample; those that the model predicts if None.
        at: the path of the module whose output is A, (N, *S, C); the last stage of a network of
            this package if None.
        variables: of the model.
        call: further arguments of `model.apply(variables, x)` by name, such as {"train": False};
            `use_running_average` is True where the model has it.

    Returns:
        The map (N, *S) in at least float32, not normalised.

    Raises:
        ValueError, TypeError: a path that is not there or gives no map, which the message names; a
            class that the model does not have; a model that gives no logits.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from cbam_flax.linen import grad_cam, resnet18
        >>> model, x = resnet18(attention="cbam"), jnp.ones((1, 64, 64, 3))
        >>> variables = jax.eval_shape(model.init, jax.random.key(0), x)
        >>> run = lambda variables, x: grad_cam(model, x, target=7, variables=variables)
        >>> jax.eval_shape(run, variables, x).shape
        (1, 2, 2)
    """
    found: dict[str, list[Any]] = {}

    def record(
        path: str, module: Any, arguments: tuple[Any, ...], keywords: Keywords, output: Any
    ) -> None:
        found.setdefault(path, []).append(jax.tree.map(jax.typeof, output))

    jax.eval_shape(lambda: _evaluate(model, record, variables, x, call))
    path = explained_path(at, found, getattr(model, "original", model))
    check_map(path, found[path])

    def score(perturbation: Array) -> tuple[Array, Array]:
        """The sum of the classes' logits where the map is perturbed, and the map."""
        outputs: list[Any] = []

        def perturb(
            called: str, module: Any, arguments: tuple[Any, ...], keywords: Keywords, output: Any
        ) -> Any:
            if called != path:
                return None
            outputs.append(output)
            return output + perturbation

        logits = _evaluate(model, perturb, variables, x, call)
        check_logits(logits)
        chosen = jnp.take_along_axis(logits, _classes(target, logits)[:, None], 1)
        return chosen.sum(), outputs[0]

    gradient, a = jax.grad(score, has_aux=True)(jnp.zeros_like(found[path][0]))
    gradient, a = ops.at_least_float32(gradient), ops.at_least_float32(a)
    alpha = ops.avg(gradient, tuple(range(1, a.ndim - 1)))
    return ops.relu((alpha * a).sum(-1))


def _gates(block: Any, x: Array, *_: Any, **others: Any) -> list[Array | None]:
    """Mc and Ms of a block for its input."""
    x = jnp.asarray(x, block.dtype)
    if isinstance(block, CBAM):
        gates = block.gates(x, use_running_average=True)[1:]
    elif isinstance(block, ChannelAttention):
        gates = (block.gate_of(x), None)
    else:
        gates = (None, block.gate_of(x, use_running_average=True))
    return [gate if gate is None else jax.lax.stop_gradient(gate) for gate in gates]


def _classes(target: Any, logits: Array) -> Array:
    """The class of each sample, (N,)."""
    if target is None:
        return logits.argmax(1)
    # The value of an array that is traced can't be checked.
    is_traced = isinstance(target, jax.core.Tracer)
    chosen = target if is_traced else checked_target(target, *logits.shape)
    return jnp.broadcast_to(jnp.asarray(chosen), len(logits))


def _evaluate(
    model: nn.Module,
    hook: Hook,
    variables: Mapping[str, Any],
    x: Any,
    call: Mapping[str, Any] | None,
) -> Any:
    """model(x) in evaluation mode, with a hook behind every module that is called."""

    def watch(
        method: Callable[..., Any],
        arguments: tuple[Any, ...],
        keywords: dict[str, Any],
        context: nn.module.InterceptorContext,
    ) -> Any:
        output = method(*arguments, **keywords)
        if context.method_name != "__call__":
            return output
        path = ".".join(context.module.path)
        changed = hook(path, context.module, arguments, keywords, output)
        return output if changed is None else changed

    model, modes = _evaluating(model)
    inputs = x if isinstance(x, tuple) else (x,)
    with nn.intercept_methods(watch):
        return model.apply(variables, *inputs, **{**modes, **(call or {})})


def _evaluating(model: nn.Module) -> tuple[nn.Module, dict[str, bool]]:
    """The model, and arguments of its call, with which it evaluates."""
    if isinstance(model, WithCBAM):
        original, modes = _evaluating(model.original)
        return model.clone(original=original), modes
    if getattr(model, "use_running_average", None) is not None:
        return model.clone(use_running_average=True), {}
    has_modes = "use_running_average" in inspect.signature(model.__call__).parameters
    return model, {"use_running_average": True} if has_modes else {}

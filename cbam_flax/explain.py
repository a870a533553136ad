"""Attention maps and Grad-CAM of nnx models."""

from __future__ import annotations

import functools
import types
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array

from cbam_core.explaining import (
    check_logits,
    check_map,
    checked_target,
    explained_path,
    named_gates,
)
from cbam_flax import ops
from cbam_flax.attention import CBAM, ChannelAttention, SpatialAttention
from cbam_flax.insert import modules_of

Keywords = Mapping[str, Any]
Hook = Callable[[Any, tuple[Any, ...], Keywords, Any], Any]


def attention_maps(
    model: nnx.Module, x: Any, *, call: Mapping[str, Any] | None = None
) -> dict[str, Array]:
    """The gates with which a model refines its maps of x, in evaluation mode.

    The model is left as it was, since a copy of it runs. jax.jit and nnx.jit may call this
    function, and sort the names.

    Args:
        model: a block of this package, or a model with such blocks anywhere in it.
        x: an input of the model, or a tuple of all of them.
        call: further arguments of `model(x)` by name.

    Returns:
        "PATH.channel", Mc (N, 1.., C), and "PATH.spatial", Ms (N, *S, 1), of the block at each
        path, in the order in which they are computed; "channel" and "spatial" where the model is
        the block. What a block gives when it is called again is "PATH.channel#2" and so on. They
        are of at least float32, without gradients.

    Raises:
        ValueError: the model calls no attention.

    Example:
        >>> import jax
        >>> from flax import nnx
        >>> from cbam_flax import attention_maps, resnet18
        >>> model = nnx.eval_shape(lambda: resnet18(attention="cbam", rngs=nnx.Rngs(0)))
        >>> x = jax.ShapeDtypeStruct((1, 64, 64, 3), "float32")
        >>> maps = nnx.eval_shape(attention_maps, model, x)
        >>> maps["stage4.block1.attention.spatial"].shape
        (1, 2, 2, 1)
    """
    calls: list[Any] = []

    def record(
        path: str, block: Any, arguments: tuple[Any, ...], keywords: Keywords, output: Array
    ) -> None:
        calls.append((path, block.spec, *_gates(block, *arguments, **keywords)))

    hooks = {
        path: functools.partial(record, path)
        for path, module in modules_of(model).items()
        if isinstance(module, CBAM | ChannelAttention | SpatialAttention)
    }
    _evaluate(model, hooks, x, call)
    return named_gates(calls, model)


def grad_cam(
    model: nnx.Module,
    x: Any,
    target: Any = None,
    at: str | None = None,
    *,
    call: Mapping[str, Any] | None = None,
) -> Array:
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
        call: further arguments of `model(x)` by name.

    Returns:
        The map (N, *S) in at least float32, not normalised.

    Raises:
        ValueError, TypeError: a path that is not there or gives no map, which the message names; a
            class that the model does not have; a model that gives no logits.

    Example:
        >>> import jax
        >>> from flax import nnx
        >>> from cbam_flax import grad_cam, resnet18
        >>> model = nnx.eval_shape(lambda: resnet18(attention="cbam", rngs=nnx.Rngs(0)))
        >>> x = jax.ShapeDtypeStruct((1, 64, 64, 3), "float32")
        >>> nnx.eval_shape(lambda model, x: grad_cam(model, x, target=7), model, x).shape
        (1, 2, 2)
    """
    path = explained_path(at, modules_of(model), model)

    def score(perturbation: Any) -> tuple[Array, Array]:
        """The sum of the classes' logits where the map is perturbed, and the map."""
        outputs: list[Any] = []

        def perturb(
            module: Any, arguments: tuple[Any, ...], keywords: Keywords, output: Any
        ) -> Any:
            outputs.append(output)
            check_map(path, outputs)
            return output + perturbation

        logits = _evaluate(model, {path: perturb}, x, call)
        check_map(path, outputs)
        check_logits(logits)
        chosen = jnp.take_along_axis(logits, _classes(target, logits)[:, None], 1)
        return chosen.sum(), outputs[0]

    _, a = jax.eval_shape(score, 0.0)
    gradient, a = jax.grad(score, has_aux=True)(jnp.zeros(a.shape, a.dtype))
    gradient, a = ops.at_least_float32(gradient), ops.at_least_float32(a)
    alpha = ops.avg(gradient, tuple(range(1, a.ndim - 1)))
    return ops.relu((alpha * a).sum(-1))


def _gates(block: Any, x: Array, *_: Any, **others: Any) -> list[Array | None]:
    """Mc and Ms of a block for its input."""
    x = jnp.asarray(x, block.dtype)
    if isinstance(block, CBAM):
        gates = block.gates(x)[1:]
    else:
        gate = block.gate(x)
        gates = (gate, None) if isinstance(block, ChannelAttention) else (None, gate)
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
    model: nnx.Module, hooks: Mapping[str, Hook], x: Any, call: Mapping[str, Any] | None
) -> Any:
    """model(x) in evaluation mode, with hooks behind the modules at some paths, by a copy."""
    copy = nnx.clone(model)
    copy.eval()
    modules = modules_of(copy)
    for path, hook in hooks.items():
        module: Any = modules[path]
        kind: type[nnx.Module] = type(module)
        object.__setattr__(module, "__class__", _watched(kind))
        module._cbam_hook = functools.partial(hook, module)
    return copy(*(x if isinstance(x, tuple) else (x,)), **(call or {}))


class Watched(nnx.Module):
    """What a module of any class becomes: the same, behind which a hook may change the output."""

    _cbam_hook: Callable[..., Any]

    def __call__(self, *arguments: Any, **keywords: Any) -> Any:
        output = super().__call__(*arguments, **keywords)
        changed = self._cbam_hook(arguments, keywords, output)
        return output if changed is None else changed


@functools.cache
def _watched(kind: type[nnx.Module]) -> type[nnx.Module]:
    return types.new_class(f"{kind.__name__}Watched", (Watched, kind))

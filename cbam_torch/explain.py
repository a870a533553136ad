"""Attention maps and Grad-CAM of torch models."""

from __future__ import annotations

import contextlib
import functools
import sys
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cbam_core.explaining import (
    check_logits,
    check_map,
    checked_target,
    explained_path,
    named_gates,
)
from cbam_torch import ops
from cbam_torch.attention import CBAM, ChannelAttention, SpatialAttention
from cbam_torch.compiling import constant

Keywords = Mapping[str, Any]
Hook = Callable[[Any, tuple[Any, ...], Keywords, Any], Any]


def attention_maps(
    model: nn.Module, x: Any, *, call: Mapping[str, Any] | None = None
) -> dict[str, Tensor]:
    """The gates with which a model refines its maps of x, in evaluation mode.

    The model is left as it was, its mode and hooks included. torch.compile takes a call of this
    function whole; a model that is compiled itself runs without its compiled code.

    Args:
        model: a block of this package, or a model with such blocks anywhere in it.
        x: an input of the model, or a tuple of all of them.
        call: further arguments of `model(x)` by name.

    Returns:
        "PATH.channel", Mc (N, C, 1..), and "PATH.spatial", Ms (N, 1, *S), of the block at each
        path, in the order in which they are computed; "channel" and "spatial" where the model is
        the block. What a block gives when it is called again is "PATH.channel#2" and so on. They
        are of at least float32, without gradients.

    Raises:
        ValueError: the model calls no attention.

    Example:
        >>> import torch
        >>> from cbam_torch import attention_maps, resnet18
        >>> maps = attention_maps(resnet18(attention="cbam"), torch.randn(1, 3, 64, 64))
        >>> maps["stage4.block1.attention.spatial"].shape
        torch.Size([1, 1, 2, 2])
    """
    calls: list[Any] = []

    def record(
        path: str, block: Any, arguments: tuple[Any, ...], keywords: Keywords, output: Tensor
    ) -> None:
        calls.append((path, block.spec, *_gates(block, *arguments, **keywords)))

    modules = _modules(model)
    hooks = [
        (module, functools.partial(record, path))
        for path, module in modules.items()
        if isinstance(module, CBAM | ChannelAttention | SpatialAttention)
    ]
    with _evaluating(modules, hooks), torch.no_grad():
        _run(model, x, call)
    return named_gates(calls, modules[""])


def grad_cam(
    model: nn.Module,
    x: Any,
    target: Any = None,
    at: str | None = None,
    *,
    call: Mapping[str, Any] | None = None,
) -> Tensor:
    """Where in its map A of x a model sees a class: relu(sum over k of alpha_k A_k).

    alpha_k is the mean over space of the gradient of the class's logit by the channel A_k, in
    evaluation mode. The model is left as it was, its mode, hooks and gradients included.
    Selvaraju et al., Grad-CAM, ICCV 2017, https://arxiv.org/abs/1610.02391.

    Args:
        model: a classifier, from x to logits (N, num_classes).
        x: an input of the model, or a tuple of all of them.
        target: a class, or one for each sample; those that the model predicts if None.
        at: the path of the module whose output is A, (N, C, *S); the last stage of a network of
            this package if None.
        call: further arguments of `model(x)` by name.

    Returns:
        The map (N, *S) in at least float32, not normalised.

    Raises:
        ValueError, TypeError: a path that is not there or gives no map, which the message names; a
            class that the model does not have; a model that gives no logits.

    Example:
        >>> import torch
        >>> from cbam_torch import grad_cam, resnet18
        >>> grad_cam(resnet18(attention="cbam"), torch.randn(1, 3, 64, 64), target=7).shape
        torch.Size([1, 2, 2])
    """
    modules = _modules(model)
    path = explained_path(at, modules, modules[""])
    outputs: list[Any] = []

    def cut(module: Any, arguments: tuple[Any, ...], keywords: Keywords, output: Any) -> Any:
        """Start a graph at the map, and hand on a copy that what follows may overwrite."""
        outputs.append(output)
        check_map(path, outputs)
        outputs[0] = output.detach().requires_grad_()
        torch.set_grad_enabled(True)
        return outputs[0].clone()

    # What is before the map needs no graph.
    with _evaluating(modules, [(modules[path], cut)]), torch.inference_mode(False), torch.no_grad():
        logits = _run(model, x, call)
        check_map(path, outputs)
        check_logits(logits)
        score = logits.gather(1, _classes(target, logits)[:, None]).sum()
        gradients = torch.autograd.grad(score, outputs, materialize_grads=True)
    gradient, a = (ops.at_least_float32(array.detach()) for array in (*gradients, *outputs))
    alpha = ops.avg(gradient, tuple(range(2, a.ndim)))
    return F.relu((alpha * a).sum(1))


def _gates(block: Any, x: Tensor, *_: Any, **others: Any) -> tuple[Tensor | None, Tensor | None]:
    """Mc and Ms of a block for its input."""
    if isinstance(block, CBAM):
        return block.gates(x)[1:]
    gate = block.gate(x)
    return (gate, None) if isinstance(block, ChannelAttention) else (None, gate)


def _classes(target: Any, logits: Tensor) -> Tensor:
    """The class of each sample, (N,)."""
    if target is None:
        return logits.argmax(1)
    chosen = _checked(target, *logits.shape)
    return torch.tensor(chosen, device=logits.device).expand(len(logits))


@constant
def _checked(target: Any, samples: int, classes: int) -> int | list[int]:
    return checked_target(target, samples, classes)


def _run(model: nn.Module, x: Any, call: Mapping[str, Any] | None) -> Any:
    return model(*(x if isinstance(x, tuple) else (x,)), **(call or {}))


def _modules(model: nn.Module) -> dict[str, nn.Module]:
    """Path -> module, without what torch.compile wraps around one."""
    return {
        ".".join(name for name in path.split(".") if name != "_orig_mod"): module
        for path, module in model.named_modules()
    }


@contextlib.contextmanager
def _evaluating(
    modules: Mapping[str, nn.Module], hooks: Sequence[tuple[nn.Module, Hook]]
) -> Iterator[None]:
    """Evaluation mode with hooks behind those of some modules; all of it is undone at the end."""
    modes = [(module, module.training) for module in modules.values()]
    before = [
        (module, module._forward_hooks, module._forward_hooks_with_kwargs) for module, _ in hooks
    ]
    try:
        for module, _ in modes:
            module.training = False
        for module, hook in hooks:
            # torch.compile can't trace register_forward_hook.
            module._forward_hooks = OrderedDict({**module._forward_hooks, -1: hook})
            named = {**module._forward_hooks_with_kwargs, -1: True}
            module._forward_hooks_with_kwargs = OrderedDict(named)
        with _uncompiled():
            yield
    finally:
        for module, own, named in before:
            module._forward_hooks = own
            module._forward_hooks_with_kwargs = named
        for module, mode in modes:
            module.training = mode


def _uncompiled() -> contextlib.AbstractContextManager[Any]:
    """Without the compiled code of a model, which would not call the hooks."""
    # Nothing is compiled before the compiler is loaded, which takes a second.
    if torch.compiler.is_compiling() or "torch._dynamo" not in sys.modules:
        return contextlib.nullcontext()
    return torch.compiler.set_stance("force_eager")

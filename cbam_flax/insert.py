"""CBAM into an nnx model that somebody else wrote."""

from __future__ import annotations

import functools
import types
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from flax.typing import Dtype

from cbam_core import CBAMSpec
from cbam_core.initial import initial_at
from cbam_core.insertion import chosen, inserted_spec
from cbam_flax.attention import CBAM
from cbam_flax.weights import load_canonical


def insert_cbam(
    model: nnx.Module,
    where: Any,
    spec: CBAMSpec | str | None = None,
    *,
    example: Any,
    call: Mapping[str, Any] | None = None,
    init: str = "identity",
    seed: int = 0,
    param_dtype: Dtype = jnp.float32,
    axis_name: str | None = None,
) -> nnx.Module:
    """Put a CBAM behind each module that `where` means, in the model itself.

    The CBAM of the module at `layer1.norm` is its new attribute `layer1.norm.cbam`; all other
    paths stay as they are, so old states still go into the model with `nnx.update`. With
    init="identity" the model computes what it did, bit for bit wherever its maps are finite (under
    jit up to what XLA does otherwise in another graph), and training starts from there. As
    everywhere in nnx, the new modules are in training mode; `model.eval()` switches them.

    Args:
        model: called with feature maps inside that are channels last.
        where: a pattern of dotted paths ("layer*.norm", where * also stands for dots), a type, a
            predicate of (path, module), or a list of these; "block" is the last norm of each block
            of a ResNet with the names of torchvision or timm, "stem_and_tail" its stem's
            activation and its last stage.
        spec: a preset's name or a CBAMSpec, whose channels and rank do not count; the preset
            "identity" if None.
        example: an input of the model, or a tuple of all of them, as arrays or
            jax.ShapeDtypeStruct; channels are read from a trace of `model(*example)`, in which
            nothing is computed.
        call: further arguments of that call by name, such as {"deterministic": True}.
        init: a scheme of `cbam_core.initial_weights`.
        seed: of `init`.
        param_dtype, axis_name: see `CBAM`.

    Returns:
        The model.

    Raises:
        ValueError, TypeError: a place that is not there or can't take a CBAM, which the message
            names, or a spec that can't have `init`; the model is as it was.

    Example:
        >>> import jax
        >>> from flax import nnx
        >>> rngs = nnx.Rngs(0)
        >>> model = nnx.Sequential(nnx.Conv(3, 8, (3, 3), rngs=rngs), nnx.BatchNorm(8, rngs=rngs))
        >>> x = jax.ShapeDtypeStruct((1, 32, 32, 3), "float32")
        >>> model = insert_cbam(model, nnx.BatchNorm, example=x)
        >>> model.layers[1].cbam.channel.reduce.kernel.shape
        (8, 1)
    """
    modules = modules_of(model)
    paths = chosen(where, modules, CBAM)
    for path in paths:
        if hasattr(modules[path], "cbam"):
            raise ValueError(f"where={path!r} has an attribute cbam already; choose other modules")
    outputs = _outputs(model, paths, example if isinstance(example, tuple) else (example,), call)
    options = {"param_dtype": param_dtype, "axis_name": axis_name}
    blocks = {}
    for path in paths:
        own = inserted_spec(path, outputs[path], spec, channel_axis=-1)
        blocks[path] = _block(own, initial_at(path, own, init, seed=seed), **options)
    for path, block in blocks.items():
        _put_behind(modules[path], block)
    return model


def new_parameters(model: nnx.Module) -> nnx.filterlib.PathIn:
    """A filter of the parameters that `insert_cbam` brought, for nnx.state, nnx.Optimizer or such.

    Example:
        >>> import optax
        >>> from flax import nnx
        >>> model = nnx.Sequential(nnx.Conv(3, 8, (3, 3), rngs=nnx.Rngs(0)))
        >>> model = insert_cbam(model, nnx.Conv, example=jax.ShapeDtypeStruct((1, 9, 9, 3), "f4"))
        >>> optimizer = nnx.Optimizer(model, optax.sgd(0.1), wrt=new_parameters(model))
        >>> len(jax.tree.leaves(nnx.state(model, new_parameters(model))))
        3
    """
    return nnx.filterlib.PathIn(
        *(
            (*path, "cbam", *inner)
            for path, module in nnx.iter_modules(model)
            if isinstance(module, WithCBAM)
            for inner, _ in nnx.to_flat_state(nnx.state(module.cbam, nnx.Param))
        )
    )


class WithCBAM(nnx.Module):
    """What a module of any class becomes: the same, with a CBAM behind its output."""

    cbam: Callable[[Any], Any]

    def __call__(self, *arguments: Any, **keywords: Any) -> Any:
        return self.cbam(super().__call__(*arguments, **keywords))


def _block(spec: CBAMSpec, weights: Mapping[str, np.ndarray], **options: Any) -> CBAM:
    # Only the shapes, for the values are there.
    block = nnx.eval_shape(lambda: CBAM.from_spec(spec, rngs=nnx.Rngs(0), **options))
    load_canonical(block, weights)
    return block


@functools.cache
def _with_cbam(kind: type[nnx.Module]) -> type[nnx.Module]:
    """A wrapper would move the parameters to other paths; a subclass does not."""
    return types.new_class(f"{kind.__name__}WithCBAM", (WithCBAM, kind))


def _put_behind(module: Any, refine: Callable[[Any], Any]) -> None:
    kind: type[nnx.Module] = type(module)
    object.__setattr__(module, "__class__", _with_cbam(kind))
    module.cbam = refine


def modules_of(model: nnx.Module) -> dict[str, nnx.Module]:
    return {".".join(map(str, path)): module for path, module in nnx.iter_modules(model)}


def _outputs(
    model: nnx.Module, paths: list[str], example: tuple[Any, ...], call: Mapping[str, Any] | None
) -> dict[str, list[Any]]:
    """What the modules at `paths` return in a trace of the model, as shapes and dtypes."""
    outputs: dict[str, list[Any]] = {path: [] for path in paths}
    graph, state = nnx.split(model)

    def run(state: nnx.State, *arguments: Any) -> None:
        copy = nnx.merge(graph, state, copy=True)
        modules = modules_of(copy)
        for path in paths:
            _put_behind(modules[path], functools.partial(_record, outputs[path]))
        copy(*arguments, **(call or {}))

    jax.eval_shape(run, state, *example)
    return outputs


def _record(outputs: list[Any], output: Any) -> Any:
    outputs.append(jax.tree.map(jax.typeof, output))
    return output

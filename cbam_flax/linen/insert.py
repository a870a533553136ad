"""CBAM into a linen model that somebody else wrote."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.traverse_util import flatten_dict, unflatten_dict
from flax.typing import Dtype

from cbam_core import CBAMSpec
from cbam_core.initial import initial_at
from cbam_core.insertion import chosen, inserted_spec
from cbam_flax.linen.attention import CBAM
from cbam_flax.linen.weights import load_canonical


def insert_cbam(
    model: nn.Module,
    where: Any,
    spec: CBAMSpec | str | None = None,
    *,
    variables: Mapping[str, Any],
    example: Any,
    call: Mapping[str, Any] | None = None,
    init: str = "identity",
    seed: int = 0,
    param_dtype: Dtype = jnp.float32,
    axis_name: str | None = None,
) -> tuple[WithCBAM, dict[str, Any]]:
    """The model with a CBAM behind each module that `where` means, and its variables.

    The variables of the CBAM behind the module at `layer1.norm` stand under `layer1.norm.cbam`; all
    others stay where they are, so old files still go into the tree. With init="identity" the model
    computes what it did, bit for bit wherever its maps are finite (under jit up to what XLA does
    otherwise in another graph), and training starts from there. Where a CBAM has a norm, it takes
    batch statistics when "batch_stats" is mutable.

    Args:
        model: called with feature maps inside that are channels last.
        where: a pattern of dotted paths ("layer*.norm", where * also stands for dots), a type, a
            predicate of (path, module), or a list of these; "block" is the last norm of each block
            of a ResNet with the names of torchvision or timm, "stem_and_tail" its stem's
            activation and its last stage. All that a call of the model calls may be meant.
        spec: a preset's name or a CBAMSpec, whose channels and rank do not count; the preset
            "identity" if None.
        variables: of the model.
        example: an input of the model, or a tuple of all of them, as arrays or
            jax.ShapeDtypeStruct; channels are read from a trace of
            `model.apply(variables, *example)`, in which nothing is computed.
        call: further arguments of that call by name, such as {"train": False}.
        init: a scheme of `cbam_core.initial_weights`.
        seed: of `init`.
        param_dtype, axis_name: see `CBAM`.

    Returns:
        A module that takes what the model takes, and its variables.

    Raises:
        ValueError, TypeError: a place that is not there or can't take a CBAM, which the message
            names, or a spec that can't have `init`.

    Example:
        >>> import jax
        >>> model = nn.Sequential([nn.Conv(8, (3, 3)), nn.relu])
        >>> x = jnp.ones((1, 32, 32, 3))
        >>> variables = model.init(jax.random.key(0), x)
        >>> model, variables = insert_cbam(model, nn.Conv, variables=variables, example=x)
        >>> variables["params"]["layers_0"]["cbam"]["channel"]["reduce"]["kernel"].shape
        (8, 1)
        >>> model.apply(variables, x).shape
        (1, 32, 32, 8)
    """
    example = example if isinstance(example, tuple) else (example,)
    modules, outputs = _called(model, variables, example, call or {})
    flat = flatten_dict(variables, keep_empty_nodes=True)
    places = []
    for path in chosen(where, modules, CBAM):
        names = _names(path)
        if any(name[1 : len(names) + 1] == names for name in flat):
            raise ValueError(f"where={path!r} has variables cbam already; choose other modules")
        own = inserted_spec(path, outputs[path], spec, channel_axis=-1)
        places.append(Place(path, own, param_dtype, axis_name))
        new = load_canonical(places[-1].block(), initial_at(path, own, init, seed=seed))
        flat |= {(name[0], *names, *name[1:]): array for name, array in flatten_dict(new).items()}
    if isinstance(model, WithCBAM):
        model, places = model.original, [*model.places, *places]
    return WithCBAM(model, tuple(places)), unflatten_dict(flat)


def new_parameters(model: WithCBAM) -> Callable[[Mapping[str, Any]], dict[str, Any]]:
    """A mask for optax: from "params" to the same tree with True for what `insert_cbam` brought.

    Example:
        >>> import jax, optax
        >>> model, x = nn.Conv(8, (3, 3)), jnp.ones((1, 32, 32, 3))
        >>> variables = model.init(jax.random.key(0), x)
        >>> model, variables = insert_cbam(model, nn.Conv, variables=variables, example=x)
        >>> mask = new_parameters(model)(variables["params"])
        >>> mask["kernel"], mask["cbam"]["spatial"]["conv"]["kernel"]
        (False, True)
        >>> optimizer = optax.masked(optax.sgd(0.1), new_parameters(model))
    """
    places = [_names(place.path) for place in model.places]

    def mask(params: Mapping[str, Any]) -> dict[str, Any]:
        flat = flatten_dict(params)
        return unflatten_dict(
            {path: any(path[: len(place)] == place for place in places) for path in flat}
        )

    return mask


@dataclass(frozen=True)
class Place:
    """The path of a module, and what the CBAM behind it is built with."""

    path: str
    spec: CBAMSpec
    param_dtype: Dtype
    axis_name: str | None

    def block(self, **options: Any) -> CBAM:
        options |= {"param_dtype": self.param_dtype, "axis_name": self.axis_name}
        return CBAM.from_spec(self.spec, **options)


class WithCBAM(nn.Module):
    """A model with a CBAM behind some of its modules, in the model's own tree of variables.

    Args:
        original: the model.
        places: of the CBAMs.
    """

    original: nn.Module
    places: tuple[Place, ...]

    def setup(self) -> None:
        nn.share_scope(self, self.original)

    def __call__(self, *arguments: Any, **keywords: Any) -> Any:
        with nn.intercept_methods(self.refine):
            return self.original(*arguments, **keywords)

    @nn.nowrap
    def refine(
        self,
        method: Callable[..., Any],
        arguments: tuple[Any, ...],
        keywords: dict[str, Any],
        context: nn.module.InterceptorContext,
    ) -> Any:
        """What a module's method returns, and its CBAM makes of that."""
        output = method(*arguments, **keywords)
        module: Any = context.module
        place = {place.path: place for place in self.places}.get(_path(module, self))
        if place is None or context.method_name != "__call__":
            return output
        block = place.block(parent=module.scope.push("cbam", reuse=True))
        return block(output, not module.is_mutable_collection("batch_stats"))


def _called(
    model: nn.Module,
    variables: Mapping[str, Any],
    example: tuple[Any, ...],
    call: Mapping[str, Any],
) -> tuple[dict[str, nn.Module], dict[str, list[Any]]]:
    """The modules that a trace of the model calls, and what they return, as shapes and dtypes."""
    modules: dict[str, nn.Module] = {}
    outputs: dict[str, list[Any]] = {}

    def record(
        method: Callable[..., Any],
        arguments: tuple[Any, ...],
        keywords: dict[str, Any],
        context: nn.module.InterceptorContext,
    ) -> Any:
        output = method(*arguments, **keywords)
        if context.method_name == "__call__":
            path = ".".join(context.module.path)
            modules[path] = context.module
            outputs.setdefault(path, []).append(jax.tree.map(jax.typeof, output))
        return output

    def run(variables: Mapping[str, Any], *arguments: Any) -> None:
        rngs = {"dropout": jax.random.key(0)}
        with nn.intercept_methods(record):
            model.apply(variables, *arguments, mutable=True, rngs=rngs, **call)

    jax.eval_shape(run, variables, *example)
    return modules, outputs


def _path(module: nn.Module, root: nn.Module) -> str:
    return ".".join(module.path[len(root.path) :])


def _names(path: str) -> tuple[str, ...]:
    """Where the variables of the CBAM behind a module stand in a collection."""
    return (*filter(None, path.split(".")), "cbam")

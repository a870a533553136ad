"""CBAM into a tf.Module that somebody else wrote."""

from __future__ import annotations

import functools
import inspect
import types
from collections.abc import Callable, Mapping
from typing import Any

import tensorflow as tf

from cbam_core import CBAMSpec
from cbam_core.initial import initial_at
from cbam_core.insertion import chosen, inserted_spec
from cbam_tf.attention import CBAM
from cbam_tf.layers import check_data_format
from cbam_tf.weights import load_canonical


def insert_cbam(
    model: tf.Module,
    where: Any,
    spec: CBAMSpec | str | None = None,
    *,
    example: Any,
    call: Mapping[str, Any] | None = None,
    init: str = "identity",
    seed: int = 0,
    data_format: str = "channels_last",
    synchronized: bool = False,
) -> tf.Module:
    """Put a CBAM behind each module that `where` means, in the model itself.

    The CBAM of the module at `layers.0.norm` is its new attribute `layers.0.norm.cbam`; all other
    paths stay as they are, so old checkpoints are still restored into the model. With
    init="identity" the model computes what it did, bit for bit wherever its maps are finite (in a
    compiled graph up to what XLA does otherwise in another one), and training starts from there.
    A CBAM is in training mode where its module is called with `training`. Methods that are a
    tf.function are traced anew; a tf.function around the model has to be made anew.

    Args:
        model: with all its variables.
        where: a pattern of dotted paths ("layers.*.norm", where * also stands for dots), a type, a
            predicate of (path, module), or a list of these; "block" is the last norm of each block
            of a ResNet with the names of torchvision or timm, "stem_and_tail" its stem's
            activation and its last stage.
        spec: a preset's name or a CBAMSpec, whose channels and rank do not count; the preset
            "identity" if None.
        example: an input of the model, or a tuple of all of them, as tensors or tf.TensorSpec;
            channels are read from a trace of `model(*example)`, in which nothing is computed.
        call: further arguments of that call by name, such as {"training": False}.
        init: a scheme of `cbam_core.initial_weights`.
        seed: of `init`.
        data_format, synchronized: see `CBAM`.

    Returns:
        The model.

    Raises:
        ValueError, TypeError: a place that is not there or can't take a CBAM, which the message
            names, or a spec that can't have `init`; the model is as it was.

    Example:
        >>> import tensorflow as tf
        >>> from cbam_tf import ChannelAttention, insert_cbam
        >>> model = ChannelAttention(8)
        >>> model = insert_cbam(model, "", example=tf.TensorSpec((1, 32, 32, 8)))
        >>> model.cbam.channel.reduce.kernel.shape
        TensorShape([8, 1])
    """
    modules = modules_of(model)
    paths = chosen(where, modules, CBAM)
    for path in paths:
        if hasattr(modules[path], "cbam"):
            raise ValueError(f"where={path!r} has an attribute cbam already; choose other modules")
    channel_axis = 1 if check_data_format(data_format) == "channels_first" else -1
    example = example if isinstance(example, tuple) else (example,)
    outputs = _outputs(model, {path: modules[path] for path in paths}, example, call or {})
    blocks = {}
    for path in paths:
        own = inserted_spec(path, outputs[path], spec, channel_axis=channel_axis)
        options = {"dtype": outputs[path][0].dtype, "synchronized": synchronized, "name": "cbam"}
        blocks[path] = CBAM.from_spec(own, data_format=data_format, **options)
        load_canonical(blocks[path], initial_at(path, own, init, seed=seed))
    for path, block in blocks.items():
        _put_behind(modules[path], block)
    for module in modules.values():
        forget_traces(module)
    return model


def new_parameters(model: tf.Module) -> list[tf.Variable]:
    """The trainable variables that `insert_cbam` brought, for a tape and an optimizer.

    Example:
        >>> import tensorflow as tf
        >>> from cbam_tf import ChannelAttention, insert_cbam, new_parameters
        >>> model = insert_cbam(ChannelAttention(8), "", example=tf.TensorSpec((1, 32, 32, 8)))
        >>> len(new_parameters(model)), len(model.trainable_variables)
        (3, 5)
    """
    modules = modules_of(model).values()
    blocks = [module.cbam for module in modules if isinstance(module, WithCBAM)]
    return [variable for block in blocks for variable in block.trainable_variables]


class WithCBAM(tf.Module):
    """What a module of any class becomes: the same, with a CBAM behind its output."""

    cbam: Any

    def __call__(self, *arguments: Any, **keywords: Any) -> Any:
        method = super().__call__
        output = method(*arguments, **keywords)
        return self.cbam(output, training=_is_training(method, arguments, keywords))


@tf.autograph.experimental.do_not_convert
def _is_training(
    method: Callable[..., Any], arguments: tuple[Any, ...], keywords: Mapping[str, Any]
) -> bool:
    """The value of `training` in a call, which a method may lack."""
    bound = inspect.signature(method).bind(*arguments, **keywords)
    bound.apply_defaults()
    return bool(bound.arguments.get("training", False))


@functools.cache
def _with_cbam(kind: type[tf.Module]) -> type[tf.Module]:
    """A wrapper would move the variables to other paths; a subclass does not."""
    return types.new_class(f"{kind.__name__}WithCBAM", (WithCBAM, kind))


def _put_behind(module: Any, block: Callable[..., Any]) -> None:
    kind: Any = type(module)
    module.__class__ = _with_cbam(kind)
    module.cbam = block


def modules_of(model: tf.Module) -> dict[str, Any]:
    """Path -> module, each at the first of its paths."""
    found = model._flatten(predicate=lambda leaf: isinstance(leaf, tf.Module), with_path=True)
    modules, seen = {"": model}, {id(model)}
    for path, module in found:
        if id(module) not in seen:
            seen.add(id(module))
            modules[".".join(map(str, path))] = module
    return modules


def _outputs(
    model: tf.Module,
    places: Mapping[str, Any],
    example: tuple[Any, ...],
    call: Mapping[str, Any],
) -> dict[str, list[Any]]:
    """What the modules in `places` return in a trace of the model, as symbolic tensors."""
    outputs: dict[str, list[Any]] = {path: [] for path in places}
    kinds = {path: type(module) for path, module in places.items()}
    modules = modules_of(model).values()
    try:
        for path, module in places.items():
            _put_behind(module, functools.partial(_record, outputs[path]))
        for module in modules:
            forget_traces(module)
        tf.function(lambda *arguments: model(*arguments, **call)).get_concrete_function(*example)
    finally:
        for path, module in places.items():
            module.__class__ = kinds[path]
            del module.cbam
        for module in modules:
            forget_traces(module)
    return outputs


def _record(outputs: list[Any], output: Any, training: bool) -> Any:
    outputs.append(output)
    return output


def forget_traces(module: Any) -> None:
    """Have methods that are a tf.function traced again, in which modules have changed."""
    for kind in type(module).__mro__:
        for attribute in vars(kind).values():
            getattr(attribute, "_descriptor_cache", {}).pop(module, None)

"""CBAM into a functional Keras model that somebody else wrote."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import keras

from cbam_core import CBAMSpec
from cbam_core.initial import initial_at
from cbam_core.insertion import chosen, inserted_spec
from cbam_keras.attention import CBAM
from cbam_keras.layers import check_data_format
from cbam_keras.weights import load_canonical


def insert_cbam(
    model: keras.Model,
    where: Any,
    spec: CBAMSpec | str | None = None,
    *,
    init: str = "identity",
    seed: int = 0,
    data_format: str | None = None,
    synchronized: bool = False,
) -> keras.Model:
    """A copy of the model with a CBAM behind each layer that `where` means.

    The CBAM of the layer `conv1_bn` is the layer `conv1_bn_cbam`; all others keep their names and
    weights, and the model, which stays as it is, no longer shares them. With init="identity" the
    copy computes what the model does, bit for bit wherever its maps are finite (compiled, up to
    what XLA does otherwise in another graph), and training starts from there. The copy is compiled
    as the model was, with an optimizer of its own.

    Args:
        model: a functional or sequential model that is built; a sequential one becomes functional.
        where: a pattern of layers' names ("conv*_bn"), a type, a predicate of (name, layer), or a
            list of these; layers of a model inside have a dot in their names ("resnet50.*_bn").
            "block" is the last norm of each block of a ResNet of keras.applications and every
            activation behind a norm of its MobileNet, "stem_and_tail" the stem's activation and
            the last block.
        spec: a preset's name or a CBAMSpec, whose channels and rank do not count; the preset
            "identity" if None.
        init: a scheme of `cbam_core.initial_weights`.
        seed: of `init`.
        data_format, synchronized: see `CBAM`.

    Returns:
        The copy.

    Raises:
        ValueError, TypeError: a place that is not there or can't take a CBAM, which the message
            names, or a spec that can't have `init`.

    Example:
        >>> import keras
        >>> layers = [keras.Input((32, 32, 3)), keras.layers.Conv2D(8, 3, name="conv")]
        >>> model = insert_cbam(keras.Sequential(layers), "conv")
        >>> model.get_layer("conv_cbam").spec.channels
        8
    """
    if not (is_graph(model) and model.built):
        raise ValueError(
            f"model={model!r} has no graph of layers; pass a functional model or a sequential one "
            f"that is built"
        )
    modules = dict(_layers(model))
    paths = chosen(where, modules, CBAM)
    for path in paths:
        if f"{path}_cbam" in modules:
            raise ValueError(f"where={path!r} has a layer {path}_cbam already; choose other layers")
    channel_axis = 1 if check_data_format(data_format) == "channels_first" else -1
    blocks: dict[str, InsertedCBAM] = {}
    outputs: dict[str, list[Any]] = {path: [] for path in paths}

    def refine(path: str, output: Any) -> Any:
        """What the layer at `path` gives, and its CBAM makes of that."""
        if path not in outputs:
            return output
        outputs[path].append(output)
        own = inserted_spec(path, outputs[path], spec, channel_axis=channel_axis)
        if path not in blocks:
            layer = modules[path]
            blocks[path] = InsertedCBAM.from_spec(
                own,
                data_format=data_format,
                synchronized=synchronized,
                name=f"{layer.name}_cbam",
                dtype=layer.dtype_policy,
            )
            load_canonical(blocks[path], initial_at(path, own, init, seed=seed))
        return blocks[path](output)

    copy = _copy(model, "", paths, refine)
    _copy_weights(modules, dict(_layers(copy)))
    if model.compiled:
        copy.compile_from_config(model.get_compile_config())
    return copy


def new_parameters(model: keras.Model) -> list[keras.Variable]:
    """The trainable variables that `insert_cbam` brought, for a training loop of one's own.

    With `fit`, freeze the others: `layer.trainable = isinstance(layer, InsertedCBAM)` for each
    layer of the model.

    Example:
        >>> import keras
        >>> layers = [keras.Input((32, 32, 3)), keras.layers.Conv2D(8, 3)]
        >>> model = insert_cbam(keras.Sequential(layers), keras.layers.Conv2D)
        >>> len(new_parameters(model))
        3
    """
    blocks = [layer for _, layer in _layers(model) if isinstance(layer, InsertedCBAM)]
    return [variable for block in blocks for variable in block.trainable_variables]


@keras.saving.register_keras_serializable(package="cbam")
class InsertedCBAM(CBAM):
    """A CBAM that `insert_cbam` put into a model."""


def is_graph(layer: Any) -> bool:
    """Whether the layer is a functional or sequential model, whose layers are places too."""
    is_functional = isinstance(layer, keras.Model) and hasattr(layer, "operations")
    return is_functional or isinstance(layer, keras.Sequential)


def _layers(model: keras.Model, prefix: str = "") -> Iterator[tuple[str, keras.layers.Layer]]:
    """Path and layer of all that the model calls, also in models inside."""
    for layer in model.layers:
        if isinstance(layer, keras.layers.InputLayer):
            continue
        yield f"{prefix}{layer.name}", layer
        if is_graph(layer):
            yield from _layers(layer, f"{prefix}{layer.name}.")


def _copy(
    model: keras.Model, prefix: str, paths: Sequence[str], refine: Callable[..., Any]
) -> keras.Model:
    """The model with new layers, behind whose calls there is `refine`."""
    if isinstance(model, keras.Sequential):
        # A sequential model has no calls to put something behind.
        outputs = model.outputs if len(model.outputs) > 1 else model.outputs[0]
        model = keras.Model(model.inputs[0], outputs, name=model.name)

    def copied(layer: Any) -> Any:
        inside = f"{prefix}{layer.name}."
        if is_graph(layer) and any(path.startswith(inside) for path in paths):
            return _copy(layer, inside, paths, refine)
        return type(layer).from_config(layer.get_config())

    def called(layer: Any, *arguments: Any, **keywords: Any) -> Any:
        return refine(f"{prefix}{layer.name}", layer(*arguments, **keywords))

    # Keras would give the inputs new names.
    inputs = {id(layer.output): _input(layer) for layer in _input_layers(model)}
    tensors = keras.tree.map_structure(lambda tensor: inputs[id(tensor)], model.input)
    return keras.models.clone_model(model, tensors, copied, call_function=called)


def _input_layers(model: keras.Model) -> list[keras.layers.Layer]:
    return [layer for layer in model.layers if isinstance(layer, keras.layers.InputLayer)]


def _input(layer: keras.layers.Layer) -> Any:
    return keras.layers.InputLayer.from_config(layer.get_config()).output


def _copy_weights(
    modules: Mapping[str, keras.layers.Layer], copied: Mapping[str, keras.layers.Layer]
) -> None:
    for path, layer in modules.items():
        if is_graph(layer):
            continue
        for variable, new in zip(layer.variables, copied[path].variables, strict=True):
            new.assign(variable)
        # A Normalization computes with what it made of its variables.
        if isinstance(layer, keras.layers.Normalization):
            copied[path].finalize_state()

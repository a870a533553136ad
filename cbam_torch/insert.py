"""CBAM into a torch model that somebody else wrote."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from cbam_core import CBAMSpec
from cbam_core.initial import initial_at
from cbam_core.insertion import chosen, inserted_spec
from cbam_torch.attention import CBAM
from cbam_torch.weights import load_canonical


def insert_cbam(
    model: nn.Module,
    where: Any,
    spec: CBAMSpec | str | None = None,
    *,
    example: Any = None,
    call: Mapping[str, Any] | None = None,
    init: str = "identity",
    seed: int = 0,
    synchronized: bool = False,
) -> nn.Module:
    """Put a CBAM behind each module that `where` means, in the model itself.

    The CBAM of the module at `layer1.0.bn3` is its new child `layer1.0.bn3.cbam`; all other names
    stay as they are, so old state dicts still load with strict=False, which reports the new names
    and no others. With init="identity" the model computes what it did, bit for bit wherever its
    maps are finite, and training starts from there. Each CBAM is in the mode of its module, on the
    device of the map there, and of the parameters' dtype. Convert the model to SyncBatchNorm before
    the insertion, since that drops hooks, and compile after it.

    Args:
        model: called with feature maps inside that are channels first.
        where: a pattern of dotted paths ("layer*.bn3", where * also stands for dots), a type, a
            predicate of (path, module), or a list of these; "block" is the last norm of each block
            of a ResNet with the names of torchvision or timm, "stem_and_tail" its stem's
            activation and its last stage.
        spec: a preset's name or a CBAMSpec, whose channels and rank do not count; the preset
            "identity" if None.
        example: an input of the model, or a tuple of all of them; channels are read from a call
            `model(*example)` on fake tensors, in which nothing is computed. Pictures for the
            model's first convolution if None.
        call: further arguments of that call by name, such as {"labels": labels}.
        init: a scheme of `cbam_core.initial_weights`.
        seed: of `init`.
        synchronized: see `CBAM`.

    Returns:
        The model.

    Raises:
        ValueError, TypeError: a place that is not there or can't take a CBAM, which the message
            names, or a spec that can't have `init`; the model is as it was.

    Example:
        >>> from torch import nn
        >>> model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8))
        >>> model = insert_cbam(model, nn.BatchNorm2d)
        >>> model[1].cbam.channel.reduce.weight.shape
        torch.Size([1, 8])
    """
    modules = dict(model.named_modules())
    paths = chosen(where, modules, CBAM)
    for path in paths:
        _check_place(path, modules[path])
    places = {path: modules[path] for path in paths}
    if example is None:
        outputs = _outputs_of_pictures(model, places, call or {})
    else:
        example = example if isinstance(example, tuple) else (example,)
        outputs = _outputs(model, places, example, call or {})
    blocks = {}
    for path, module in places.items():
        own = inserted_spec(path, outputs[path], spec, channel_axis=1)
        block = _block(own, initial_at(path, own, init, seed=seed), synchronized)
        blocks[path] = block.to(outputs[path][0].device, _dtype(module, model))
        block.train(module.training)
    for path, block in blocks.items():
        _put_behind(places[path], block)
    return model


def new_parameters(model: nn.Module) -> list[nn.Parameter]:
    """The parameters that `insert_cbam` brought, for an optimizer or one of its groups.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> model = insert_cbam(nn.Sequential(nn.Conv2d(3, 8, 3)), nn.Conv2d)
        >>> optimizer = torch.optim.SGD(new_parameters(model), lr=0.1)
        >>> len(new_parameters(model))
        3
    """
    blocks = [module for module in model.modules() if isinstance(module, InsertedCBAM)]
    return [parameter for block in blocks for parameter in block.parameters()]


class InsertedCBAM(CBAM):
    """A CBAM that `insert_cbam` put into a model."""


def refine(module: Any, arguments: tuple[Any, ...], output: Tensor) -> Tensor:
    """The forward hook of a module with a CBAM behind it."""
    return module.cbam(output)


def _check_place(path: str, module: nn.Module) -> None:
    if hasattr(module, "cbam"):
        raise ValueError(f"where={path!r} has an attribute cbam already; choose other modules")
    is_container = isinstance(module, nn.Sequential | nn.ModuleList | nn.ModuleDict)
    if is_container and not _runs_children(module):
        raise ValueError(
            f"where={path!r} is a container with a forward of its own ({type(module).__name__}), "
            f"of which a new child might become a part; choose a module in it"
        )


def _block(spec: CBAMSpec, weights: Mapping[str, np.ndarray], synchronized: bool) -> CBAM:
    # The values are there, so what the constructor draws must not move the user's random numbers.
    with torch.random.fork_rng(devices=[]):
        options = {"device": "cpu", "dtype": torch.float64, "synchronized": synchronized}
        block = InsertedCBAM.from_spec(spec, **options)
    load_canonical(block, weights)
    return block


def _dtype(*modules: nn.Module) -> torch.dtype:
    """That of the first parameter, which autocast leaves as it is, unlike a map."""
    parameters = (parameter for module in modules for parameter in module.parameters())
    floating = (parameter.dtype for parameter in parameters if parameter.is_floating_point())
    return next(floating, torch.get_default_dtype())


def _put_behind(module: nn.Module, block: CBAM) -> None:
    # A hook, since a wrapper would move the parameters to other names.
    module.add_module("cbam", block)
    if not _runs_children(module):
        module.register_forward_hook(refine)


def _runs_children(module: nn.Module) -> bool:
    """Whether a new child is called behind the others, without a hook."""
    return isinstance(module, nn.Sequential) and type(module).forward is nn.Sequential.forward


def _outputs(
    model: nn.Module,
    places: Mapping[str, nn.Module],
    example: tuple[Any, ...],
    call: Mapping[str, Any],
) -> dict[str, list[Any]]:
    """What the modules in `places` return in a call of the model, as fake tensors."""
    # Loaded late, as it takes longer than the rest of this package.
    from torch._subclasses.fake_tensor import FakeTensorMode

    outputs: dict[str, list[Any]] = {path: [] for path in places}
    handles = [
        module.register_forward_hook(
            lambda module, _, output, path=path: outputs[path].append(output)
        )
        for path, module in places.items()
    ]
    tensors = dict(model.named_parameters()) | dict(model.named_buffers())
    try:
        with torch.no_grad(), FakeTensorMode(allow_non_fake_inputs=True) as mode:
            fakes: dict[str, Tensor] = {name: mode.from_tensor(t) for name, t in tensors.items()}
            torch.func.functional_call(model, fakes, example, dict(call))
    finally:
        for handle in handles:
            handle.remove()
    return outputs


def _outputs_of_pictures(
    model: nn.Module, places: Mapping[str, nn.Module], call: Mapping[str, Any]
) -> dict[str, list[Any]]:
    """As `_outputs`, of the first pictures that the model takes."""
    shapes = []
    for picture in _pictures(model):
        try:
            return _outputs(model, places, (picture,), call)
        except Exception as error:  # A model may raise anything.
            shapes.append(tuple(picture.shape))
            reason = error
    if not shapes:
        raise ValueError(
            "example=None, and the model has no convolution to make pictures for; pass an input of "
            "the model"
        )
    tried = " or ".join(map(str, shapes))
    raise ValueError(
        f"example=None, and the model takes no pictures of shape {tried} ({reason}); pass an input "
        f"of the model"
    ) from reason


def _pictures(model: nn.Module) -> Iterator[Tensor]:
    """Batches of the sizes of ImageNet's pictures and of CIFAR's, without memory of their own."""
    for module in model.modules():
        if isinstance(module, nn.modules.conv._ConvNd):
            zero = module.weight.new_zeros(())
            for size in (224, 32):
                yield zero.expand(2, module.in_channels, *[size] * (module.weight.ndim - 2))
            return

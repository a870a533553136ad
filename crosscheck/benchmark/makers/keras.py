"""Blocks and networks in Keras, on the backend that KERAS_BACKEND names."""

from __future__ import annotations

import functools
import importlib
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

import keras

from cbam_core import Architecture, CBAMSpec
from cbam_keras import CBAM, ops
from cbam_keras.backbones import Backbone
from crosscheck.benchmark import kernels
from crosscheck.benchmark.candidate import Entry, Model
from crosscheck.benchmark.plan import Plan

_LIBRARIES = {"tensorflow": "tf", "jax": "jax", "torch": "torch"}
# A torch library's map is (N, C, *S), as its users have it.
_DATA_FORMATS = {"tensorflow": "channels_last", "jax": "channels_last", "torch": "channels_first"}


def library() -> ModuleType:
    name = _LIBRARIES[keras.config.backend()]
    return importlib.import_module(f"crosscheck.benchmark.libraries.{name}")


def blocks(x: Any, plan: Plan) -> Iterator[Entry]:
    channels_last = _DATA_FORMATS[keras.config.backend()] == "channels_last"
    spec = CBAMSpec.preset("official", x.shape[-1 if channels_last else 1])
    for name, on in (("ours", True), ("plain", False)):
        make = functools.partial(CBAM.from_spec, spec, kernels=on)
        yield _entry(name, make, x, plan, ops.path(x, kernels=on))


def networks(x: Any, plan: Plan) -> Iterator[Entry]:
    none, cbam = plan.architecture(None), plan.architecture("cbam")
    yield _entry("none", functools.partial(Backbone, none), x, plan)
    for name, on in (("ours", True), ("plain", False)):
        make = functools.partial(_network, cbam, on)
        yield _entry(name, make, x, plan, ops.path(x, kernels=on))


def _network(architecture: Architecture, on: bool, **options: Any) -> Backbone:
    network = Backbone(architecture, **options)
    kernels.set_all(network._flatten_layers(), on)
    return network


def _entry(
    name: str, make: Callable[..., keras.Layer], x: Any, plan: Plan, path: str = ""
) -> Entry:
    backend = keras.config.backend()

    def build(training: bool) -> Model:
        with keras.device(f"{plan.device}:0"):
            module = make(data_format=_DATA_FORMATS[backend], dtype=plan.dtype)
            module.build(tuple(x.shape))
        weights = [variable.value for variable in module.trainable_variables]
        if backend != "jax":
            return Model(functools.partial(module, training=training), weights)
        others = [variable.value for variable in module.non_trainable_variables]

        def call(weights: Any, x: Any) -> Any:
            return module.stateless_call(weights, others, x, training=training)

        return Model(call, weights)

    return Entry(name, build, path)

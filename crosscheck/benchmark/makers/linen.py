"""Blocks and networks in Flax linen."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Iterator, Mapping
from types import ModuleType
from typing import Any
from unittest import mock

import numpy as np
from jax import Array

from cbam_core import CBAMSpec, initial_network, initial_weights
from cbam_flax import ops
from cbam_flax.linen.attention import CBAM
from cbam_flax.linen.backbones import Backbone
from cbam_flax.linen.weights import load_canonical
from crosscheck.benchmark.candidate import Entry, Model
from crosscheck.benchmark.libraries import jax as jax_library
from crosscheck.benchmark.plan import Plan


def library() -> ModuleType:
    return jax_library


def blocks(x: Array, plan: Plan) -> Iterator[Entry]:
    spec = CBAMSpec.preset("official", x.shape[-1])
    make, weights = functools.partial(CBAM.from_spec, spec), initial_weights(spec)
    for name, on in (("ours", True), ("plain", False)):
        yield _entry(name, make, weights, plan, on, ops.path(x, kernels=on))


def networks(x: Array, plan: Plan) -> Iterator[Entry]:
    none, cbam = plan.architecture(None), plan.architecture("cbam")
    yield _entry("none", functools.partial(Backbone, none), initial_network(none), plan)
    make, weights = functools.partial(Backbone, cbam), initial_network(cbam)
    for name, on in (("ours", True), ("plain", False)):
        yield _entry(name, make, weights, plan, on, ops.path(x, kernels=on))


def _entry(
    name: str,
    make: Callable[..., CBAM | Backbone],
    weights: Mapping[str, np.ndarray],
    plan: Plan,
    on: bool = True,
    path: str = "",
) -> Entry:
    # Parts of a network are made while it is traced, and their fields can't be set from here.
    switch = {} if on else {"CBAM_KERNELS": "off"}

    def build(training: bool) -> Model:
        module = make(param_dtype=plan.dtype, use_running_average=not training)
        variables = load_canonical(module, weights)
        statistics = variables.get("batch_stats", {})

        def call(params: Any, x: Array) -> tuple[Array, Any]:
            state = {"params": params, "batch_stats": statistics}
            with mock.patch.dict(os.environ, switch):
                return module.apply(state, x, mutable=["batch_stats"])

        return Model(call, variables["params"])

    return Entry(name, build, path)

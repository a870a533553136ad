"""Blocks and networks in Flax nnx."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping
from types import ModuleType
from typing import Any

import numpy as np
from flax import nnx
from jax import Array

from cbam_core import CBAMSpec, initial_network, initial_weights
from cbam_flax import CBAM, ops
from cbam_flax.backbones import Backbone
from cbam_flax.weights import load_canonical
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
    def build(training: bool) -> Model:
        # Only the shapes: what draws values would take JAX long to compile.
        module = nnx.eval_shape(lambda: make(param_dtype=plan.dtype, rngs=nnx.Rngs(0)))
        load_canonical(module, weights)
        options = {"use_running_average": not training, "kernels": on}
        module.set_attributes(**options, raise_if_not_found=False)
        graph, *states = nnx.split(module, nnx.Param, ...)
        params, others = states

        def call(params: nnx.State, x: Array) -> tuple[Any, nnx.State]:
            merged = nnx.merge(graph, params, others, copy=True)
            return merged(x), nnx.state(merged, nnx.Not(nnx.Param))

        return Model(call, params)

    return Entry(name, build, path)

"""Blocks and networks in TensorFlow."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

import tensorflow as tf

from cbam_core import Architecture, CBAMSpec
from cbam_tf import CBAM, ops
from cbam_tf.backbones import Backbone
from crosscheck.benchmark import kernels
from crosscheck.benchmark.candidate import Entry, Model
from crosscheck.benchmark.libraries import tf as tf_library
from crosscheck.benchmark.plan import Plan


def library() -> ModuleType:
    return tf_library


def blocks(x: tf.Tensor, plan: Plan) -> Iterator[Entry]:
    spec = CBAMSpec.preset("official", x.shape[-1])
    for name, on in (("ours", True), ("plain", False)):
        make = functools.partial(CBAM.from_spec, spec, kernels=on)
        yield _entry(name, make, plan, ops.path(x, kernels=on))


def networks(x: tf.Tensor, plan: Plan) -> Iterator[Entry]:
    none, cbam = plan.architecture(None), plan.architecture("cbam")
    yield _entry("none", functools.partial(Backbone, none), plan)
    for name, on in (("ours", True), ("plain", False)):
        make = functools.partial(_network, cbam, on)
        yield _entry(name, make, plan, ops.path(x, kernels=on))


def _network(architecture: Architecture, on: bool, **options: Any) -> Backbone:
    network = Backbone(architecture, **options)
    kernels.set_all(network.submodules, on)
    return network


def _entry(name: str, make: Callable[..., tf.Module], plan: Plan, path: str = "") -> Entry:
    def build(training: bool) -> Model:
        with tf.device(f"/{plan.device.upper()}:0"):
            module = make(dtype=getattr(tf, plan.dtype))
        return Model(functools.partial(module, training=training), module.trainable_variables)

    return Entry(name, build, path)

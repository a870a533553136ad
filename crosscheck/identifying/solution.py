"""A spec for a module, with the canonical weights that are in it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from cbam_core import CBAMSpec, reference, weight_shapes
from cbam_core.reference import Step
from crosscheck.identifying.bench import Bench
from crosscheck.identifying.channel import ChannelReading
from crosscheck.identifying.functions import POOLS
from crosscheck.identifying.matching import Match
from crosscheck.identifying.roles import Roles, read
from crosscheck.identifying.spatial import SpatialReading, has_norm

Array = np.ndarray


@dataclass(frozen=True)
class Solution:
    """What a module is thought to be.

    Attributes:
        roles: where its canonical weights are.
        swapped: whether its spatial kernel takes [max, avg].
    """

    spec: CBAMSpec
    roles: Roles
    swapped: bool
    bench: Bench

    def replace(self, **changes: Any) -> Solution:
        """With another spec."""
        return replace(self, spec=self.spec.replace(**changes))

    def weights(self, arrays: Mapping[str, Array]) -> dict[str, Array]:
        """The canonical weights in the module's arrays; what it lacks has no effect."""
        found = read(self.roles, arrays)
        if self.swapped:
            found["spatial.conv.kernel"] = found["spatial.conv.kernel"][..., ::-1, :]
        shapes = weight_shapes(self.spec)
        return {name: found.get(name, _without_effect(name, shapes[name])) for name in shapes}

    @property
    def lacking(self) -> list[str]:
        """Canonical names of what the spec has, and the module has not."""
        return [name for name in weight_shapes(self.spec) if name not in self.roles]

    def run(self, arrays: Mapping[str, Array], x: Array, training: bool = False) -> Step:
        return reference.run(self.spec, self.weights(arrays), x, training=training)

    def expected(self, arrays: Mapping[str, Array], x: Array, training: bool = False) -> Array:
        """What the module returns if it is this: the map, or all gates together; x has no 0."""
        y = self.run(arrays, x, training).output
        return y / x if self.bench.subject.is_gate else y

    def difference(self, arrays: Mapping[str, Array], x: Array, training: bool = False) -> float:
        """From what the module returns, relative to the largest value."""
        expected = self.expected(arrays, x, training)
        found = self.bench.subject.output(arrays, x, training)
        largest = np.abs(expected).max()
        off = float(np.abs(found - expected).max() / largest) if largest else np.inf
        return off if np.isfinite(off) else np.inf


def _without_effect(name: str, shape: tuple[int, ...]) -> Array:
    """What a module computes with where it has no such weight."""
    if name == "channel.reduce.kernel":
        return np.eye(shape[0])
    return np.full(shape, 1.0 if name.endswith((".scale", ".var")) else 0.0)


def solution(bench: Bench, channel: Match | None, spatial: Match | None) -> Solution:
    """The spec that both matches say, but for the order of the gates and the momentum."""
    subject = bench.subject
    fields: dict[str, Any] = {"residual": subject.adds_input, "rank": subject.rank}
    roles: dict = {}
    if channel is not None:
        roles |= channel.reading.roles
        fields |= _channel_fields(bench, channel.reading)
    if spatial is not None:
        roles |= spatial.reading.roles
        fields |= _spatial_fields(bench, spatial.reading, fields.get("pooling", "separate"))
    if channel is None or spatial is None:
        fields["order"] = "spatial" if channel is None else "channel"
    swapped = spatial is not None and spatial.reading.maps == ("max", "avg")
    return Solution(CBAMSpec(subject.channels, **fields), roles, swapped, bench)


def _channel_fields(bench: Bench, reading: ChannelReading) -> dict[str, Any]:
    channels = bench.subject.channels
    hidden = bench.parts.hidden
    return {
        "hidden": None if hidden == CBAMSpec(channels).hidden_channels else hidden,
        "mlp_bias": any(name.endswith(".bias") for name in reading.roles),
        "channel_pools": tuple(pool for pool in POOLS if pool in reading.pools),
        "pooling": "light" if reading.is_light else "separate",
        "gate": reading.gate,
    }


def _spatial_fields(bench: Bench, reading: SpatialReading, pooling: str) -> dict[str, Any]:
    if reading.is_pooled:
        pooling = "light" if reading.is_light else "separate"
    kernel = reading.roles["spatial.conv.kernel"].read(bench.own)
    return {
        "gate": reading.gate,
        "kernel_size": kernel.shape[0],
        "spatial_bias": "spatial.conv.bias" in reading.roles,
        "spatial_norm": has_norm(reading.roles),
        "norm_eps": reading.norm_eps,
        "pooling": pooling,
        "spatial_descriptor": "pool" if reading.is_pooled else "conv",
    }

"""The specs and inputs on which implementations are compared in the tests."""

from __future__ import annotations

import numpy as np

from cbam_core import PRESETS, CBAMSpec, initial_weights

# Every preset (small kernels, so that tests stay quick), and every field's other values.
SPECS = {
    name: CBAMSpec.preset(name, 12, hidden=3, **({"kernel_size": 9} if "49" in str(fields) else {}))
    for name, fields in PRESETS.items()
} | {
    "everything": CBAMSpec(
        6,
        hidden=2,
        mlp_bias=True,
        channel_pools=("lse", "avg", "lp", "max"),
        kernel_size=3,
        spatial_bias=True,
        spatial_norm=True,
        order="spatial_channel",
        residual=True,
        norm_eps=1e-3,
        norm_momentum=0.3,
    ),
    "parallel_conv": CBAMSpec(6, hidden=2, spatial_descriptor="conv", order="parallel"),
    "spatial_light": CBAMSpec(6, kernel_size=5, pooling="light", order="spatial"),
    "light_lse": CBAMSpec(6, hidden=2, pooling="light", channel_pools=("max", "lse")),
    "hard_sigmoid": CBAMSpec(6, hidden=2, gate="hard_sigmoid", spatial_norm=True),
    "signals": CBAMSpec(6, hidden=2, rank=1, spatial_norm=True, mlp_bias=True),
    "volumes": CBAMSpec(6, hidden=2, kernel_size=3, rank=3, spatial_norm=True, spatial_bias=True),
    "volumes_conv": CBAMSpec(6, kernel_size=3, rank=3, spatial_descriptor="conv"),
    "signals_light": CBAMSpec(6, kernel_size=3, rank=1, pooling="light"),
    "one_channel": CBAMSpec(1),
}


def weights(spec: CBAMSpec, seed: int = 0) -> dict[str, np.ndarray]:
    """Float64 weights without a zero or a one among them, and a positive variance."""
    rng = np.random.default_rng(seed)
    drawn = initial_weights(spec, "kaiming_fan_out", seed=seed)
    return {
        name: np.abs(array + 0.1 * rng.standard_normal(array.shape))
        if name.endswith(".var")
        else array + 0.1 * rng.standard_normal(array.shape)
        for name, array in drawn.items()
    }


def feature_map(spec: CBAMSpec, batch: int = 3, seed: int = 0) -> np.ndarray:
    """(batch, *S, C) after a ReLU: half of the values tie at 0, and one channel is 0 throughout."""
    rng = np.random.default_rng(seed)
    size = (7, 6, 5)[: spec.rank] if spec.rank < 3 else (4, 3, 5)
    x = np.maximum(rng.standard_normal((batch, *size, spec.channels)), 0.0)
    if spec.channels > 1:
        x[..., 0] = 0.0
    return x

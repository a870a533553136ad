"""Initial values, drawn in NumPy so that one seed gives the same weights in every framework."""

from __future__ import annotations

import math
import zlib

import numpy as np

from cbam_core.architectures import Architecture, network_shapes
from cbam_core.spec import CBAMSpec
from cbam_core.weights import weight_shapes

SCHEMES = ("authors", "kaiming_fan_out", "he_normal", "identity")
_ZERO_OR_ONE = {"bias": 0.0, "mean": 0.0, "scale": 1.0, "var": 1.0}
# Standard deviation of a standard normal cut off at two deviations, which Keras' he_normal undoes.
_TRUNCATED_DEVIATION = 0.87962566103423978


def initial_weights(
    spec: CBAMSpec, scheme: str = "authors", *, seed: int = 0
) -> dict[str, np.ndarray]:
    """Canonical float32 weights for `spec`, equal bit for bit wherever they are drawn.

    Args:
        scheme: "authors", as the released training code leaves the block: MLP kernels uniform in
            +-1/sqrt(fan_in), convolutions kaiming normal over fan_out, the norm's scale 0, so
            that the spatial gate starts at exactly 0.5.
            "kaiming_fan_out", normal with deviation sqrt(2 / fan_out) everywhere, as many
            PyTorch copies do.
            "he_normal", a normal cut off at two deviations, sqrt(2 / fan_in) wide (Keras).
            "identity", as the authors', with zero last layers: where the gate is
            "double_sigmoid" the block returns its input bit for bit.
        seed: each array is drawn from its own generator, seeded by this number and its name's
            place in the table.

    Raises:
        ValueError: an unknown scheme, or "identity" for a spec that can't be the identity.

    Example:
        >>> weights = initial_weights(CBAMSpec(64), seed=1)
        >>> weights["channel.reduce.kernel"].shape
        (64, 4)
    """
    _check_scheme(scheme)
    if scheme == "identity" and (spec.gate != "double_sigmoid" or spec.residual):
        raise ValueError(
            f"scheme='identity' needs gate='double_sigmoid' and residual=False, and the spec has "
            f"gate={spec.gate!r} and residual={spec.residual}; use spec.replace(...)"
        )
    return {
        name: _draw(scheme, name, shape, np.random.default_rng([seed, place])).astype(np.float32)
        if not _is_zeroed(spec, scheme, name)
        else np.zeros(shape, np.float32)
        for place, (name, shape) in enumerate(weight_shapes(spec).items())
    }


def initial_network(
    architecture: Architecture, scheme: str = "authors", *, seed: int = 0
) -> dict[str, np.ndarray]:
    """Canonical float32 weights for a network, equal bit for bit wherever they are drawn.

    Args:
        scheme: as for `initial_weights`, which draws the attentions. With "authors" the other
            convolutions are kaiming normal over fan_out and the head over fan_in. Norms are the
            identity, and biases 0.
        seed: each array is drawn from its own generator, seeded by this number and its name.

    Raises:
        ValueError: as `initial_weights`.

    Example:
        >>> network = Architecture.named("resnet18", attention="cbam")
        >>> initial_network(network)["stage1.block0.attention.spatial.norm.scale"]
        array([0.], dtype=float32)
    """
    _check_scheme(scheme)
    weights = {
        name: _draw(scheme, name, shape, _generator(seed, name)).astype(np.float32)
        for name, shape in network_shapes(architecture).items()
    }
    for path, spec in architecture.attentions():
        drawn = initial_at(path, spec, scheme, seed=seed)
        weights |= {f"{path}.{name}": array for name, array in drawn.items()}
    return weights


def initial_at(
    path: str, spec: CBAMSpec, scheme: str = "authors", *, seed: int = 0
) -> dict[str, np.ndarray]:
    """The `initial_weights` of an attention in a network, whose path has a part in the seed."""
    own = int(_generator(seed, path).integers(2**31))
    return initial_weights(spec, scheme, seed=own)


def _check_scheme(scheme: str) -> None:
    if scheme not in SCHEMES:
        raise ValueError(f"scheme={scheme!r} is unknown; choose from {', '.join(SCHEMES)}")


def _generator(seed: int, name: str) -> np.random.Generator:
    return np.random.default_rng([seed, zlib.crc32(name.encode())])


def _is_zeroed(spec: CBAMSpec, scheme: str, name: str) -> bool:
    if scheme == "identity" and not spec.spatial_norm and name == "spatial.conv.kernel":
        return True
    if scheme == "identity" and name == "channel.expand.kernel":
        return True
    return scheme in ("authors", "identity") and name == "spatial.norm.scale"


def _draw(scheme: str, name: str, shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
    leaf = name.rpartition(".")[2]
    if leaf in _ZERO_OR_ONE:
        return np.full(shape, _ZERO_OR_ONE[leaf])
    fan_in, fan_out = math.prod(shape[:-1]), math.prod(shape[:-2]) * shape[-1]
    if scheme == "he_normal":
        deviation = math.sqrt(2 / fan_in) / _TRUNCATED_DEVIATION
        return deviation * _truncated_normal(shape, rng)
    if scheme in ("authors", "identity") and name.startswith("head."):
        return math.sqrt(2 / fan_in) * rng.standard_normal(shape)
    if scheme != "kaiming_fan_out" and name.startswith("channel."):
        return rng.uniform(-1 / math.sqrt(fan_in), 1 / math.sqrt(fan_in), shape)
    return math.sqrt(2 / fan_out) * rng.standard_normal(shape)


def _truncated_normal(shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
    values = rng.standard_normal(shape)
    while (outside := np.abs(values) > 2).any():
        values[outside] = rng.standard_normal(int(outside.sum()))
    return values

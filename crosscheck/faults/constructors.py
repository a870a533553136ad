"""Faults in how a block is made: a constructor hands on another argument than it was given."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from cbam_core import CBAMSpec
from crosscheck.faults.fault import Fault, Target
from crosscheck.faults.places import method

_BLOCK = method("CBAM", "from_spec")
_CHANNEL = method("ChannelAttention", "from_spec")
_SPATIAL = method("SpatialAttention", "from_spec")


def _with(**changes: Any) -> Callable[..., Any]:
    def from_spec(target: Target, right: Any, spec: CBAMSpec, **options: Any) -> Any:
        return right(spec.replace(**changes), **options)

    return from_spec


CONSTRUCTORS = [
    Fault(
        "eps-1e-3", "Keras' epsilon for torch's", "official-relu", _SPATIAL, _with(norm_eps=1e-3)
    ),
    Fault("eps-0", "no epsilon", "official-relu", _SPATIAL, _with(norm_eps=0.0)),
    Fault(
        "momentum-complement",
        "Keras' momentum taken for torch's",
        "official-relu",
        _SPATIAL,
        _with(norm_momentum=0.99),
        mode="train",
    ),
    Fault(
        "default-momentum",
        "torch's default for the authors' 0.01",
        "official-relu",
        _SPATIAL,
        _with(norm_momentum=0.1),
        mode="train",
    ),
    Fault(
        "light-pooling",
        "pools averaged before the MLP",
        "paper-relu",
        _CHANNEL,
        _with(pooling="light"),
    ),
    Fault(
        "separate-pooling",
        "timm's light channel gate read as its other one",
        "timm_light-relu",
        _CHANNEL,
        _with(pooling="separate"),
    ),
    Fault("missing-residual", "the input not added", "xmu-relu", _BLOCK, _with(residual=False)),
]

"""Faults in the MLP of the channel gate."""

from __future__ import annotations

from typing import Any

import numpy as np

from crosscheck.faults.fault import Fault, Target
from crosscheck.faults.places import method

_MLP = method("ChannelAttention", "mlp")


def _relu(x: Any) -> Any:
    return (x + abs(x)) / 2


def _without_biases(target: Target, right: Any, self: Any, v: Any) -> Any:
    def linear(layer: Any, v: Any) -> Any:
        return layer(v) - layer(0 * v)

    return linear(self.expand, _relu(linear(self.reduce, v)))


def _without_ratio(target: Target, right: Any, self: Any, v: Any) -> Any:
    """The MLP of as many hidden units as a ratio of 16 gives."""
    units = max(1, self.spec.channels // 16)
    used = np.arange(self.spec.hidden_channels) < units
    return self.expand(_relu(self.reduce(v)) * target.as_tensor(used.astype(np.float64)))


MLP = [
    Fault("missing-mlp-bias", "the MLP has no biases", "official-relu", _MLP, _without_biases),
    Fault(
        "ignored-ratio", "channels // 16 whatever the ratio", "official-odd", _MLP, _without_ratio
    ),
    Fault(
        "averaged-logits",
        "the mean of both logits for their sum",
        "paper-relu",
        _MLP,
        lambda target, right, self, v: right(self, v) / 2,
    ),
    Fault(
        "missing-relu",
        "no relu between the layers of the MLP",
        "paper-relu",
        _MLP,
        lambda target, right, self, v: self.expand(self.reduce(v)),
    ),
    Fault(
        "relu-behind-the-mlp",
        "a relu more, behind the MLP",
        "paper-relu",
        _MLP,
        lambda target, right, self, v: _relu(right(self, v)),
    ),
]

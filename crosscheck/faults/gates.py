"""Faults in the gates: their functions, their order, and how they are applied."""

from __future__ import annotations

from typing import Any

from crosscheck.faults.fault import Fault
from crosscheck.faults.places import function, gate, method

# Each: (self, x, and the mode where that is an argument) -> x, Mc and Ms.
_GATES = method("CBAM", "gates")


def _spatial_first(target: Any, right: Any, self: Any, x: Any, *mode: Any, **options: Any) -> Any:
    x, spatial = self.spatial.attend(x, None, *mode, **options)
    x, channel = self.channel.attend(x, spatial)
    return x, channel, spatial


def _parallel(target: Any, right: Any, self: Any, x: Any, *mode: Any, **options: Any) -> Any:
    x, channel = self.channel.attend(x)
    x, spatial = self.spatial.attend(x, None, *mode, **options)
    return x, channel, spatial


GATES = [
    Fault(
        "gates-in-the-wrong-order",
        "spatial before channel",
        "paper-relu",
        _GATES,
        _spatial_first,
    ),
    Fault("gates-in-parallel", "the spatial gate reads x, not x'", "paper-relu", _GATES, _parallel),
    Fault(
        "no-spatial-gate",
        "the channel gate alone",
        "paper-relu",
        _GATES,
        lambda target, right, self, x, *mode, **options: (*self.channel.attend(x), None),
    ),
    Fault(
        "no-channel-gate",
        "the spatial gate alone",
        "paper-relu",
        _GATES,
        lambda target, right, self, x, *mode, **options: (
            x,
            None,
            self.spatial.attend(x, None, *mode, **options)[1],
        ),
    ),
    Fault(
        "added-residual",
        "the input added once more",
        "paper-relu",
        function("scale"),
        lambda target, right, x, *gates, **options: x + right(x, *gates, **options),
    ),
    Fault(
        "gate-never-applied",
        "the gate is computed and dropped",
        "paper-relu",
        method("SpatialAttention", "attend"),
        lambda target, right, self, x, *others, **options: (
            x,
            right(self, x, *others, **options)[1] * 0 + 1,
        ),
    ),
    Fault(
        "other-hard-sigmoid",
        "today's hard sigmoid for Keras 2's",
        "keras-relu",
        gate("hard_sigmoid_keras2"),
        lambda target, right, logits: target.ops.hard_sigmoid(logits),
    ),
    Fault(
        "hard-sigmoid",
        "a hard sigmoid for the sigmoid",
        "paper-relu",
        gate("sigmoid"),
        lambda target, right, logits: target.ops.hard_sigmoid(logits),
    ),
    Fault(
        "single-sigmoid",
        "sigmoid for 2 sigmoid",
        "identity-relu",
        gate("double_sigmoid"),
        lambda target, right, logits: target.ops.GATES["sigmoid"](logits),
    ),
    Fault(
        "logits-for-gate",
        "the sigmoid is missing",
        "paper-relu",
        gate("sigmoid"),
        lambda target, right, logits: logits,
    ),
    Fault(
        "gate-applied-twice",
        "the gate squared",
        "paper-relu",
        gate("sigmoid"),
        lambda target, right, logits: right(logits) * right(logits),
    ),
    Fault(
        "gate-of-the-gate",
        "a second sigmoid",
        "paper-relu",
        gate("sigmoid"),
        lambda target, right, logits: right(right(logits)),
    ),
]

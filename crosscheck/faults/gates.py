"""Faults in the gates: their functions, their order, and how they are applied."""

from __future__ import annotations

from typing import Any

from crosscheck.faults.fault import Fault, Target
from crosscheck.faults.places import gate, gate_method, method

# Its arguments are x and, in some packages, the mode.
_REFINE = method("CBAM", "refine")


def _parallel(target: Target, right: Any, self: Any, x: Any, *mode: Any, **options: Any) -> Any:
    spatial_gate = getattr(self.spatial, gate_method(self.spatial))
    return spatial_gate(x, *mode, **options) * self.channel(x)


GATES = [
    Fault(
        "gates-in-the-wrong-order",
        "spatial before channel",
        "paper-relu",
        _REFINE,
        lambda target, right, self, x, *mode, **options: self.channel(
            self.spatial(x, *mode, **options)
        ),
    ),
    Fault(
        "gates-in-parallel", "the spatial gate reads x, not x'", "paper-relu", _REFINE, _parallel
    ),
    Fault(
        "no-spatial-gate",
        "the channel gate alone",
        "paper-relu",
        _REFINE,
        lambda target, right, self, x, *mode, **options: self.channel(x),
    ),
    Fault(
        "no-channel-gate",
        "the spatial gate alone",
        "paper-relu",
        _REFINE,
        lambda target, right, self, x, *mode, **options: self.spatial(x, *mode, **options),
    ),
    Fault(
        "added-residual",
        "the input added once more",
        "paper-relu",
        _REFINE,
        lambda target, right, self, x, *mode, **options: x + right(self, x, *mode, **options),
    ),
    Fault(
        "gate-never-applied",
        "the gate is computed and dropped",
        "paper-relu",
        method("SpatialAttention", "gate"),
        lambda target, right, self, x, **options: right(self, x, **options) * 0 + 1,
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

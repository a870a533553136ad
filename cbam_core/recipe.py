"""How a network is trained, as data: what every package's own optimizer and schedule are made of.

One step of each optimizer, for a parameter p with gradient g, learning rate a and weight decay d:

    sgd     g += d p;  v = mu v + g;  p -= a v                (nesterov: p -= a (g + mu v))
    adam    g += d p;  m = b1 m + (1 - b1) g;  s = b2 s + (1 - b2) g^2
            p -= a m' / (sqrt(s') + eps),  m' = m / (1 - b1^t),  s' = s / (1 - b2^t)
    adamw   p -= a d p;  then as adam without the first term

They are PyTorch's conventions, which optax shares; where Keras differs, `cbam_keras.train` says so.

- Nesterov's form: Sutskever et al., http://proceedings.mlr.press/v28/sutskever13.html.
- Adam: Kingma and Ba, https://arxiv.org/abs/1412.6980; AdamW and the cosine: Loshchilov and
  Hutter, https://arxiv.org/abs/1711.05101 and https://arxiv.org/abs/1608.03983.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

# Optimizer -> its slots, the arrays that it keeps for every parameter.
SLOTS = {"sgd": ("momentum",), "adam": ("first", "second"), "adamw": ("first", "second")}
SCHEDULES = ("constant", "cosine")
DECAYED = ("kernels", "all")
LOSSES = ("cross_entropy", "squared_error")


@dataclass(frozen=True)
class Recipe:
    """Optimizer, schedule and loss of a training run; validated.

    Args:
        optimizer: "sgd", "adam" or "adamw".
        learning_rate: of the first step.
        steps: of the whole run, at whose end a cosine has come down to 0.
        schedule: "constant" or "cosine".
        weight_decay: of what `decayed` names.
        decayed: "kernels", and no bias or norm; or "all", what torch makes of one weight_decay for
            all parameters.
        momentum, nesterov: of sgd.
        betas, epsilon: of adam and adamw.
        loss: "cross_entropy", of logits (N, K) and labels (N,), or "squared_error", of two arrays
            (N, K); the mean over the batch, or over all numbers.

    Raises:
        ValueError: a value that no run can have; the message names it.

    Example:
        >>> recipe = Recipe("sgd", 0.1, steps=200, schedule="cosine", momentum=0.9)
        >>> [recipe.rate(step) for step in (0, 100, 200)]
        [0.1, 0.05, 0.0]
    """

    optimizer: str
    learning_rate: float
    steps: int
    schedule: str = "constant"
    weight_decay: float = 0.0
    decayed: str = "kernels"
    momentum: float = 0.0
    nesterov: bool = False
    betas: tuple[float, float] = (0.9, 0.999)
    epsilon: float = 1e-8
    loss: str = "cross_entropy"

    def __post_init__(self) -> None:
        for field, known in (
            ("optimizer", SLOTS),
            ("schedule", SCHEDULES),
            ("decayed", DECAYED),
            ("loss", LOSSES),
        ):
            if getattr(self, field) not in known:
                names = ", ".join(map(repr, known))
                raise ValueError(
                    f"{field}={getattr(self, field)!r} is unknown; choose from {names}"
                )
        if self.steps < 1:
            raise ValueError(f"steps={self.steps} is below 1; pass a positive integer")
        for field in ("learning_rate", "epsilon"):
            if not getattr(self, field) > 0:
                raise ValueError(
                    f"{field}={getattr(self, field)} is not positive; pass one above 0"
                )
        object.__setattr__(self, "betas", tuple(self.betas))
        for field, value in (
            ("weight_decay", self.weight_decay),
            ("momentum", self.momentum),
            ("betas", min(self.betas)),
            ("betas", max(self.betas)),
        ):
            if not 0 <= value < 1:
                raise ValueError(
                    f"{field}={getattr(self, field)} is out of range; pass at least 0 and below 1"
                )
        if self.optimizer != "sgd" and (self.momentum or self.nesterov):
            raise ValueError(
                f"momentum={self.momentum} and nesterov={self.nesterov} belong to sgd, and "
                f"optimizer={self.optimizer!r}; leave them out"
            )
        if self.nesterov and not self.momentum:
            raise ValueError("nesterov=True needs a momentum above 0; pass momentum=0.9, say")

    @property
    def slots(self) -> tuple[str, ...]:
        """Kinds of the arrays that the optimizer keeps for every parameter."""
        return () if self.optimizer == "sgd" and not self.momentum else SLOTS[self.optimizer]

    def rate(self, step: int) -> float:
        """The learning rate of the step with this number, counted from 0."""
        if self.schedule == "constant":
            return self.learning_rate
        return self.learning_rate * (1 + math.cos(math.pi * min(step / self.steps, 1))) / 2

    def decays(self, name: str) -> bool:
        """Whether the parameter with this canonical name has weight decay.

        >>> recipe = Recipe("adamw", 1e-3, steps=200, weight_decay=0.05)
        >>> recipe.decays("head.linear.kernel"), recipe.decays("stem.norm.scale")
        (True, False)
        """
        return self.weight_decay > 0 and (self.decayed == "all" or name.endswith(".kernel"))

    def to_dict(self) -> dict[str, Any]:
        """All fields, as JSON takes them."""
        return {**dataclasses.asdict(self), "betas": list(self.betas)}

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> Recipe:
        """The recipe that `to_dict` gave.

        Raises:
            ValueError: a field is unknown, or a value is.
        """
        unknown = set(fields) - {field.name for field in dataclasses.fields(cls)}
        if unknown:
            raise ValueError(f"{', '.join(sorted(unknown))}: no field of a recipe; leave it out")
        return cls(**fields)

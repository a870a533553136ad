"""What a network looks at in one picture: its gates, and Grad-CAM with them and without."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from cbam_core import Architecture

# Channels that are named, the strongest first.
NAMED = 10


@dataclass(frozen=True)
class Explanation:
    """Of one picture.

    Attributes:
        architecture: of the network.
        picture: (H, W, 3) in [0, 1].
        layer: whose map Grad-CAM explains.
        target: the class that it explains.
        logits: (num_classes,).
        maps: "PATH.channel" (1, 1, C) and "PATH.spatial" (H', W', 1) of every attention.
        cam: (H', W').
        plain_layer: the same layer where every gate is left out; the last stage if it is left out
            with them.
        plain_logits, plain_cam: of the same weights with every gate left out.
    """

    architecture: Architecture
    picture: np.ndarray
    layer: str
    target: int
    logits: np.ndarray
    maps: dict[str, np.ndarray]
    cam: np.ndarray
    plain_layer: str
    plain_logits: np.ndarray
    plain_cam: np.ndarray

    @property
    def shown(self) -> list[str]:
        """The paths that stand for all: the last attention of the stem, each stage and the tail."""
        paths = [path for path, _ in self.architecture.attentions()]
        return list({path.partition(".")[0]: path for path in paths}.values())

    @property
    def verdict(self) -> str:
        """What the network says, and what it says without its gates."""
        predicted, plain = int(self.logits.argmax()), int(self.plain_logits.argmax())
        explained = "" if predicted == self.target else f", and {self.target} is explained"
        return (
            f"class {predicted}: {percent(self.logits, predicted)}{explained}; without its gates "
            f"class {plain}: {percent(self.plain_logits, plain)}"
        )

    @property
    def is_finite(self) -> bool:
        """Whether all of it are numbers that can be drawn."""
        found = (self.logits, self.cam, self.plain_logits, self.plain_cam, *self.maps.values())
        return all(np.isfinite(array).all() for array in found)

    def spatial(self, path: str) -> np.ndarray | None:
        """Ms of an attention, (H', W'); None where it has none."""
        gate = self.maps.get(f"{path}.spatial")
        return None if gate is None else gate[..., 0]

    def channel(self, path: str) -> np.ndarray | None:
        """Mc of an attention, (C,); None where it has none."""
        gate = self.maps.get(f"{path}.channel")
        return None if gate is None else gate.ravel()

    def strongest(self, path: str, count: int = NAMED) -> list[int]:
        """The channels with the largest Mc, the largest first."""
        channel = self.channel(path)
        return [] if channel is None else np.argsort(-channel, kind="stable")[:count].tolist()

    def row(self, path: str) -> tuple[str, str]:
        """Of an attention: the least and the most of Ms, and the strongest channels."""
        spatial, channel = self.spatial(path), self.channel(path)
        range_of = "-" if spatial is None else f"{spatial.min():.2f} to {spatial.max():.2f}"
        if channel is None:
            return range_of, "-"
        named = self.strongest(path, 3)
        return range_of, ", ".join(f"{number}: {channel[number]:.2f}" for number in named)

    def facts(self) -> dict[str, Any]:
        """What `--json` writes of it."""
        attentions: dict[str, Any] = {}
        for path in self.shown:
            spatial, channel = self.spatial(path), self.channel(path)
            attentions[path] = {}
            if channel is not None:
                attentions[path]["channel"] = channel.round(4).tolist()
                attentions[path]["strongest"] = self.strongest(path)
            if spatial is not None:
                attentions[path]["spatial"] = spatial.round(4).tolist()
        return {
            "architecture": self.architecture.to_dict(),
            "layer": self.layer,
            "target": self.target,
            "predicted": int(self.logits.argmax()),
            "probability": probability(self.logits, self.target),
            "without": {
                "layer": self.plain_layer,
                "predicted": int(self.plain_logits.argmax()),
                "probability": probability(self.plain_logits, self.target),
                "grad_cam": self.plain_cam.tolist(),
            },
            "grad_cam": self.cam.tolist(),
            "attentions": attentions,
        }


def probability(logits: np.ndarray, number: int) -> float:
    """That of a class.

    >>> round(probability(np.array([0.0, 0.0]), 1), 3)
    0.5
    """
    exponentials = np.exp(logits.astype(np.float64) - logits.max())
    return float(exponentials[number] / exponentials.sum())


def percent(logits: np.ndarray, number: int) -> str:
    """The probability of a class, to be read.

    >>> percent(np.array([0.0, 0.0]), 1)
    '50.0 %'
    """
    return f"{100 * probability(logits, number):.1f} %"

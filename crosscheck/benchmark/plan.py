"""What one run of `cbam bench` measures."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

from cbam_core import Architecture
from crosscheck.frameworks import FRAMEWORKS, Framework

# Batches of the maps behind ResNet50's stages and of a stem's, single ones, and a tiny one.
SHAPES = (
    (32, 256, 56, 56),
    (32, 512, 28, 28),
    (32, 1024, 14, 14),
    (32, 2048, 7, 7),
    (8, 64, 112, 112),
    (1, 256, 56, 56),
    (1, 2048, 7, 7),
    (1, 64, 8, 8),
)
# Rounds that are timed; a network's takes seconds.
ROUNDS = 21
NETWORK_ROUNDS = 7
BATCH, SIZE = 16, 224
# With fewer channels the public structures have no hidden unit.
FEWEST_CHANNELS = 16
ITEM_SIZES = {"float32": 4, "float64": 8, "bfloat16": 2, "float16": 2}
PASSES = ("forward", "training")

# Framework -> the ways in which its users run a block, the first of which is the plainest.
MODES = {
    "torch": ("eager", "compiled"),
    "tf": ("eager", "function", "xla"),
    "keras-tensorflow": ("function", "xla"),
    "keras-jax": ("jit",),
    "keras-torch": ("eager",),
    "flax": ("jit",),
    "linen": ("jit",),
}
# Ours with kernels and without, the public structures, what installs, and the floor.
CANDIDATES = ("ours", "plain", "official", "luuuyi", "timm", "pytorchcv", "copy", "scale")
NETWORK_CANDIDATES = ("none", "ours", "plain", "official")
TORCH_ONLY = ("official", "luuuyi", "timm", "pytorchcv")


@dataclass(frozen=True)
class Plan:
    """What is measured, and how.

    Attributes:
        framework: a key of `MODES`.
        shapes: of the maps, (N, C, H, W), or of the network's pictures, (N, 3, H, W).
        network: a key of `cbam_core.ARCHITECTURES`, or None where blocks are measured.
        candidates: of `CANDIDATES`, or of `NETWORK_CANDIDATES`.
        modes: of the framework's `MODES`.
        passes: of `PASSES`; training is forward and backward.
        dtype, device: of the maps and weights; device is "cpu" or "gpu".
        threads: of the framework.
        rounds: how often each candidate is timed.
    """

    framework: str
    shapes: tuple[tuple[int, ...], ...]
    network: str | None
    candidates: tuple[str, ...]
    modes: tuple[str, ...]
    passes: tuple[str, ...]
    dtype: str
    device: str
    threads: int
    rounds: int

    def to_dict(self) -> dict[str, Any]:
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, fields: dict[str, Any]) -> Plan:
        """The inverse of `to_dict`, from JSON."""
        lists = ("candidates", "modes", "passes")
        tuples = {name: tuple(fields[name]) for name in lists}
        return cls(**{**fields, **tuples, "shapes": tuple(map(tuple, fields["shapes"]))})

    @property
    def registered(self) -> Framework:
        return FRAMEWORKS[self.framework]

    @property
    def item_size(self) -> int:
        return ITEM_SIZES[self.dtype]

    def architecture(self, attention: str | None) -> Architecture:
        assert self.network is not None
        return Architecture.named(self.network, attention=attention)


def label(shape: tuple[int, ...]) -> str:
    """As `--shape` takes it.

    >>> label((32, 256, 56, 56))
    '32,256,56,56'
    """
    return ",".join(map(str, shape))

"""Recorded networks of public implementations: their arrays, drawn again, and their logits."""

from __future__ import annotations

import json
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

FOLDER = Path(__file__).parent / "data" / "networks"


@dataclass(frozen=True)
class RecordedNetwork:
    """What a public network computed in evaluation, in float64.

    Attributes:
        name: of the files in tests/data/networks.
        factory: of the package, which builds such a network.
        nesting: what its owner's training script puts around the names of its weights.
    """

    name: str
    factory: str
    nesting: str = ""

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """The owner's name -> shape."""
        return {name: tuple(shape) for name, shape in self._facts["parameters"].items()}

    def arrays(self) -> dict[str, np.ndarray]:
        """The float32 weights, by the names that they have in a file of their owner."""
        return {self.nesting + name: _drawn(name, shape) for name, shape in self.shapes.items()}

    def pictures(self) -> np.ndarray:
        """The float32 input (N, H, W, 3)."""
        rng = np.random.default_rng(self._facts["input_seed"])
        x = rng.standard_normal(self._facts["input_shape"]).astype(np.float32)
        return np.moveaxis(x, 1, -1)

    def results(self) -> dict[str, np.ndarray]:
        """The logits (N, num_classes), and perhaps the mean of each stage's maps (N, C)."""
        with np.load(FOLDER / f"{self.name}.npz") as file:
            return dict(file)

    @property
    def _facts(self) -> dict:
        return json.loads((FOLDER / f"{self.name}.json").read_text())


def _drawn(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """The array of a PyTorch name, by the rule that its recording followed."""
    rng = np.random.default_rng(zlib.crc32(name.encode()))
    leaf = name.rpartition(".")[2]
    if leaf == "num_batches_tracked":
        return np.zeros(shape, np.int64)
    if leaf == "running_var" or (leaf == "weight" and len(shape) == 1):
        return rng.uniform(0.5, 1.5, shape).astype(np.float32)
    if len(shape) == 1:
        return (0.1 * rng.standard_normal(shape)).astype(np.float32)
    deviation = np.sqrt(2 / int(np.prod(shape[1:])))
    return (rng.standard_normal(shape) * deviation).astype(np.float32)


# The authors' script saves what DataParallel wraps, with the epoch and more beside it.
NETWORKS = {
    network.name: network
    for network in (
        RecordedNetwork("official_resnet50_imagenet", "resnet50", "state_dict/module."),
        RecordedNetwork("official_resnet18_cifar100", "resnet18", "state_dict/module."),
        RecordedNetwork("luuuyi_resnet18_cbam", "resnet18"),
        RecordedNetwork("luuuyi_resnet50_cbam", "resnet50"),
        RecordedNetwork("osmr_cbam_resnet18", "resnet18"),
    )
}

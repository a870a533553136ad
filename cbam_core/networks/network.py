"""A whole network of a weight file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from cbam_core.architectures import Architecture, network_shapes
from cbam_core.finding.blocks import Block, check_values
from cbam_core.weights import check_weights, weight_shapes

# Far more than anybody trains, and few enough to be described in a moment.
_MOST_BLOCKS = 1000


@dataclass(frozen=True)
class Network:
    """A whole network of a file.

    Attributes:
        dialect: of its layers' names, a key of `NETWORK_DIALECTS`, or "canonical".
        weights: canonical weights; without the head's if the file has no head.
        names: canonical name -> name in the file.
        places: canonical path of an attention -> path of the block in the file.
        counters: name in the file -> array, of what belongs to the network and is no weight.
        batches: canonical path of a norm, or of an attention that has one -> how many batches it
            has seen, which PyTorch counts.
        around: what the file has in front of its names, such as "state_dict/module.".
    """

    dialect: str
    architecture: Architecture
    weights: dict[str, np.ndarray]
    names: dict[str, str]
    places: dict[str, str]
    counters: dict[str, np.ndarray] = field(default_factory=dict)
    batches: dict[str, np.ndarray] = field(default_factory=dict)
    around: str = ""


def canonical_network(
    architecture: Architecture, arrays: Mapping[str, np.ndarray]
) -> tuple[Network, dict[str, Block]]:
    """The network of a file with its architecture in its metadata, and its blocks by path.

    Raises:
        ValueError: its weights are not all there.
    """
    check_depth(architecture.depths)
    shapes = network_shapes(architecture)
    own = {name: arrays[name] for name in shapes if name in arrays}
    headless = {name: shape for name, shape in shapes.items() if not is_head(name)}
    check_weights(shapes if any(map(is_head, own)) else headless, own)
    for name, array in own.items():
        check_values(name, array)
    blocks = {}
    for path, spec in architecture.attentions():
        names = {leaf: f"{path}.{leaf}" for leaf in weight_shapes(spec)}
        weights = {leaf: own[name] for leaf, name in names.items()}
        blocks[path] = Block("canonical", spec, weights, names, {}, {})
    places = {path: path for path in blocks}
    return Network("canonical", architecture, own, {n: n for n in own}, places), blocks


def check_depth(depths: Sequence[int]) -> None:
    if not 0 < sum(depths) <= _MOST_BLOCKS:
        raise ValueError(f"it has {sum(depths)} blocks, and a network has 1 to {_MOST_BLOCKS}")


def is_head(name: str) -> bool:
    return name.startswith("head.")

"""A whole network under the names, and in the layouts, of a dialect."""

from __future__ import annotations

import numpy as np

from cbam_core.architectures import Architecture
from cbam_core.dialects import DIALECTS
from cbam_core.expression import express, spell
from cbam_core.networks.dialects import NetworkDialect
from cbam_core.networks.naming import ENDS, attention_path, counters_of, leaves_of
from cbam_core.networks.network import Network, is_head
from cbam_core.spec import CBAMSpec
from cbam_core.weights import weight_shapes


def spell_network(
    network: Network, dialect: NetworkDialect, *, fold: bool = False, fill: bool = False
) -> tuple[dict[str, np.ndarray], dict[str, CBAMSpec]]:
    """The arrays of a network as `dialect` has them, and canonical path -> spec written.

    Args:
        fold, fill: see `cbam_core.convert`.

    Raises:
        ValueError: it can't express it; the message lists why.
    """
    architecture = network.architecture
    problems = _problems(architecture, dialect)
    if problems:
        raise ValueError(f"{dialect.name} can't express it:\n  " + "\n  ".join(problems))
    has_head = any(map(is_head, network.weights))
    leaves = leaves_of(dialect, architecture, has_head=has_head)
    arrays = {
        name: layout.write(network.weights[canonical], 2)
        for canonical, (name, layout) in leaves.items()
    }
    none = np.zeros((), np.int64)
    arrays |= {name: network.batches.get(path, none) for path, name in counters_of(leaves).items()}
    ends = architecture.placement == "stem_and_tail"
    goal = DIALECTS["luuuyi" if ends else dialect.name] if architecture.attention else None
    blocks, specs = {}, {}
    batches: dict[str, np.ndarray] = {}
    for path, spec in architecture.attentions():
        assert goal is not None
        own = {leaf: network.weights[f"{path}.{leaf}"] for leaf in weight_shapes(spec)}
        try:
            specs[path], weights = express(spec, own, goal, fold=fold, fill=fill)
        except ValueError as error:
            raise ValueError(f"the attention at {path!r}: {error}") from error
        at = ENDS[path] if ends else attention_path(dialect, path)
        blocks[at] = (specs[path], weights)
        batches |= {at: network.batches[path]} if path in network.batches else {}
    return arrays | (spell(blocks, goal, batches) if goal else {}), specs


def _problems(architecture: Architecture, dialect: NetworkDialect) -> list[str]:
    """Why a dialect can't express a network, whatever its attentions are."""
    problems = []
    if architecture.kind == "separable":
        problems.append(f"kind='separable': {dialect.name} has residual networks")
    if architecture.head != "plain":
        problems.append(f"head={architecture.head!r}: {dialect.name} has a plain one")
    if architecture.kind == "bottleneck" and architecture.stride_on != dialect.stride_on:
        problems.append(
            f"stride_on={architecture.stride_on!r}: {dialect.name} has it on {dialect.stride_on}"
        )
    if architecture.attention and architecture.placement == "block" and dialect.attention is None:
        problems.append(
            f"attention={architecture.attention!r}: the networks of {dialect.name} have none in "
            f"their blocks"
        )
    if architecture.placement == "stem_and_tail" and dialect.attention is not None:
        problems.append(
            "placement='stem_and_tail': "
            f"{dialect.name} has its attention in the blocks; torchvision's names take it"
        )
    if dialect.name == "osmr" and not architecture.attention:
        problems.append("attention=None: osmr's names do not tell where it has its stride")
    return problems

"""What the layers of a network are called in a dialect, and how their arrays lie."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from cbam_core.architectures import Architecture
from cbam_core.dialects.layouts import OUT_IN, OUT_IN_SPACE, VECTOR, Layout
from cbam_core.networks.dialects import NetworkDialect

# The attentions behind the stem and behind the last stage, as the first seed calls them.
ENDS = {"stem.attention": "#0", "tail": "#1"}
_CONV = {"kernel": ("weight", OUT_IN_SPACE)}
_NORM = {
    "scale": ("weight", VECTOR),
    "bias": ("bias", VECTOR),
    "mean": ("running_mean", VECTOR),
    "var": ("running_var", VECTOR),
}
_LINEAR = {"kernel": ("weight", OUT_IN), "bias": ("bias", VECTOR)}


def leaves_of(
    dialect: NetworkDialect, architecture: Architecture, *, has_head: bool
) -> dict[str, tuple[str, Layout]]:
    """Canonical name -> name and layout in the file, of all but the attentions."""
    leaves = {}
    for canonical, name, kinds in _layers(dialect, architecture):
        for leaf, (theirs, layout) in kinds.items():
            leaves[f"{canonical}.{leaf}"] = (f"{name}.{theirs}", layout)
    if has_head:
        for leaf, (theirs, layout) in _LINEAR.items():
            leaves[f"head.linear.{leaf}"] = (f"{dialect.head}.{theirs}", layout)
    return leaves


def _layers(
    dialect: NetworkDialect, architecture: Architecture
) -> Iterator[tuple[str, str, Mapping[str, tuple[str, Layout]]]]:
    """Canonical path, path in the file, and leaves of every convolution and norm."""
    units = [(architecture.stem_unit, dialect.stem)]
    for stage, blocks in enumerate(architecture.stages, 1):
        for place, block in enumerate(blocks):
            path = dialect.block_path(stage, place)
            for number, unit in enumerate(block.units, 1):
                conv, norm = (f"{path}.{name.format(unit=number)}" for name in dialect.unit)
                units.append((unit, (conv, norm)))
            if block.projection:
                conv, norm = (f"{path}.{name}" for name in dialect.projection)
                units.append((block.projection, (conv, norm)))
    for unit, (conv, norm) in units:
        yield unit.conv, conv, _CONV
        yield unit.norm, norm, _NORM


def counters_of(leaves: Mapping[str, tuple[str, Layout]]) -> dict[str, str]:
    """Canonical path of a norm -> name of what PyTorch's norms count."""
    return {
        canonical.removesuffix(".mean"): name.replace("running_mean", "num_batches_tracked")
        for canonical, (name, _) in leaves.items()
        if canonical.endswith(".mean")
    }


def attention_path(dialect: NetworkDialect, canonical: str) -> str:
    """Where the attention of a canonical path, "stage1.block0.attention", stands."""
    stage, block, _ = canonical.split(".")
    path = dialect.block_path(int(stage.removeprefix("stage")), int(block.removeprefix("block")))
    return f"{path}.{dialect.attention}" if dialect.attention else path

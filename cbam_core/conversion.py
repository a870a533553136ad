"""From one dialect and container to another."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from cbam_core import containers
from cbam_core.checkpoints import FORMAT, read
from cbam_core.contents import CheckpointError, Contents
from cbam_core.dialects import DIALECTS, Dialect
from cbam_core.spec import CBAMSpec
from cbam_core.weights import weight_shapes


@dataclass(frozen=True)
class Conversion:
    """What became of a file.

    Attributes:
        container, dialect: of the target.
        blocks: path -> (dialect it was read in, spec it was written with).
        carried, dropped: names in the source of what belongs to no block.
    """

    container: str
    dialect: str
    blocks: dict[str, tuple[str, CBAMSpec]]
    carried: list[str] = field(default_factory=list)
    dropped: list[str] = field(default_factory=list)


def convert(
    source: os.PathLike[str] | str,
    target: os.PathLike[str] | str,
    *,
    dialect: str | None = None,
    to: str | None = None,
    container: str | None = None,
    fold: bool = False,
    fill: bool = False,
    keep_rest: bool = False,
    on_step: Callable[[str], None] = lambda step: None,
    **fields: Any,
) -> Conversion:
    """Read `source`, write its blocks to `target`, whole or not at all.

    Args:
        dialect: of the source, where its names do not tell.
        to: the dialect of the target; that of its container if None.
        container: of the target; by its ending if None.
        fold: whether a norm that the target's dialect has not is folded into the convolution,
            which is exact in evaluation.
        fill: whether biases that the target's dialect always has are written as zeros.
        keep_rest: whether what belongs to no block goes along, under its own names.
        on_step: called with what is done next, for progress.
        fields: of the source's spec, what no array shows.

    Raises:
        CheckpointError: the source can't be read, or the target's dialect can't express a block;
            the message lists every reason.
        ValueError: an unknown dialect or container, or one that can't be written.
    """
    kind = _container(Path(target), container)
    name = to or kind.dialect
    if name not in DIALECTS:
        raise ValueError(f"to={name!r} is unknown; choose from {', '.join(DIALECTS)}")
    on_step(f"reading {os.fspath(source)}")
    found = read(source, dialect, **fields)
    arrays: dict[str, np.ndarray] = {}
    specs: dict[str, CBAMSpec] = {}
    for path, block in found.blocks.items():
        try:
            spec, weights = express(block.spec, block.weights, DIALECTS[name], fold=fold, fill=fill)
        except ValueError as error:
            raise CheckpointError(source, f"the block at {path!r}: {error}") from error
        specs[path] = spec
        arrays |= spell(spec, weights, DIALECTS[name], path)
    rest = dict(found.rest) if keep_rest else {}
    twice = sorted(arrays.keys() & rest.keys())
    if twice:
        raise CheckpointError(source, f"holds {', '.join(twice)} besides a block of that name")
    metadata = _metadata(specs, alone=not rest) if name == "canonical" else {}
    facts = found.facts if keep_rest else {}
    on_step(f"writing {os.fspath(target)}")
    containers.write(target, Contents(arrays | rest, facts, metadata), kind)
    dropped = [] if keep_rest else [*found.rest, *found.facts]
    blocks = {path: (block.dialect, specs[path]) for path, block in found.blocks.items()}
    return Conversion(kind.name, name, blocks, [*rest, *facts], dropped)


def express(
    spec: CBAMSpec,
    weights: Mapping[str, np.ndarray],
    dialect: Dialect,
    *,
    fold: bool = False,
    fill: bool = False,
) -> tuple[CBAMSpec, dict[str, np.ndarray]]:
    """A spec and weights of the same meaning that `dialect` can express.

    Raises:
        ValueError: it can't; the message lists why, and what would help.
    """
    weights = dict(weights)
    has = {_leaf_field(name) for name in dialect.spellings[0]}
    if fold and spec.spatial_norm and "spatial_norm" not in has:
        spec, weights = fold_norm(spec, weights)
    problems = []
    if dialect.lookalike:
        problems.append(f"{dialect.name} is not the paper's CBAM: {dialect.lookalike}")
    for flag in ("mlp_bias", "spatial_bias", "spatial_norm"):
        gate = spec.has_channel_gate if flag == "mlp_bias" else spec.has_spatial_gate
        if not gate:
            continue
        if getattr(spec, flag) and flag not in has:
            offer = "; --fold folds it into a biased convolution, exact in evaluation"
            foldable = flag == "spatial_norm" and "spatial_bias" in has
            problems.append(f"{flag}: {dialect.name} has none{offer if foldable else ''}")
        if not getattr(spec, flag) and flag in has and flag not in dialect.optional:
            if fill and flag != "spatial_norm":
                spec = spec.replace(**{flag: True})
                weights |= {
                    n: np.zeros(s, _dtype(weights))
                    for n, s in weight_shapes(spec).items()
                    if n not in weights
                }
            else:
                offer = "" if flag == "spatial_norm" else "; --fill writes zeros, which is exact"
                problems.append(f"{flag}: {dialect.name} always has one{offer}")
    problems += _fixed(spec, dialect)
    if problems:
        raise ValueError(f"{dialect.name} can't express it:\n  " + "\n  ".join(problems))
    return spec, weights


def _fixed(spec: CBAMSpec, dialect: Dialect) -> list[str]:
    """Fields in which the code of `dialect` always is another block than `spec`."""
    default = CBAMSpec(1, **dialect.fields)
    fields = ["gate", "pooling", "residual", "channel_pools", "order", "norm_eps", "norm_momentum"]
    if not spec.has_channel_gate or not spec.has_spatial_gate:
        fields.remove("order")
    if not spec.has_channel_gate:
        fields.remove("channel_pools")
    if not (spec.has_spatial_gate and spec.spatial_norm):
        fields = [field for field in fields if not field.startswith("norm_")]
    problems = []
    for name in fields:
        own, theirs = getattr(spec, name), getattr(default, name)
        if own != theirs and name not in dialect.settable:
            problems.append(f"{name}={own!r}: {dialect.name} has {theirs!r}")
    for gate in ("channel", "spatial"):
        has_leaves = any(leaf.startswith(gate) for leaf in dialect.spellings[0])
        if getattr(spec, f"has_{gate}_gate") and not has_leaves:
            problems.append(f"order={spec.order!r}: {dialect.name} has no {gate} gate")
    if spec.spatial_descriptor == "conv" and "spatial.squeeze.kernel" not in dialect.spellings[0]:
        problems.append(f"spatial_descriptor='conv': {dialect.name} pools")
    return problems


def fold_norm(
    spec: CBAMSpec, weights: Mapping[str, np.ndarray]
) -> tuple[CBAMSpec, dict[str, np.ndarray]]:
    """The block without its norm, whose running statistics go into a biased convolution.

    Exact in evaluation, up to one rounding of each weight; a block in training needs its norm.
    """
    wide = {name: array.astype(np.float64) for name, array in weights.items()}
    factor = wide["spatial.norm.scale"] / np.sqrt(wide["spatial.norm.var"] + spec.norm_eps)
    bias = wide.get("spatial.conv.bias", np.zeros(1))
    folded = {
        "spatial.conv.kernel": wide["spatial.conv.kernel"] * factor,
        "spatial.conv.bias": (bias - wide["spatial.norm.mean"]) * factor
        + wide["spatial.norm.bias"],
    }
    kept = {name: w for name, w in weights.items() if not name.startswith("spatial.norm.")}
    dtype = weights["spatial.conv.kernel"].dtype
    kept |= {name: array.astype(dtype) for name, array in folded.items()}
    return spec.replace(spatial_norm=False, spatial_bias=True), kept


def spell(
    spec: CBAMSpec, weights: Mapping[str, np.ndarray], dialect: Dialect, path: str = ""
) -> dict[str, np.ndarray]:
    """Canonical weights under the names and in the layouts of `dialect`, below `path`."""
    prefix, _, number = path.partition("#")
    prefix = f"{prefix}{dialect.separator}" if prefix else ""
    arrays = {}
    for canonical, array in weights.items():
        name, layout = dialect.spellings[0][canonical]
        if canonical == "spatial.conv.kernel" and dialect.maps == ("max", "avg"):
            array = array[..., ::-1, :] if array.shape[-2] == 2 else array
        arrays[prefix + name.replace("{n}", number)] = layout.write(array, spec.rank)
    if spec.has_spatial_gate and spec.spatial_norm:
        for counter in dialect.counters:
            arrays[prefix + counter.replace("{n}", number)] = np.zeros((), np.int64)
    return arrays


def _container(target: Path, name: str | None) -> containers.Container:
    if name is None:
        return containers.by_name(target)
    if name not in containers.CONTAINERS:
        raise ValueError(
            f"container={name!r} is unknown; choose from {', '.join(containers.CONTAINERS)}"
        )
    return containers.CONTAINERS[name]


def _metadata(specs: Mapping[str, CBAMSpec], *, alone: bool) -> dict[str, str]:
    """What makes a canonical file of arrays; a file of one block and nothing else is strict."""
    fields = {path: spec.to_dict() for path, spec in specs.items()}
    if list(specs) == [""] and alone:
        return {"cbam_format": FORMAT, "spec": json.dumps(fields[""])}
    return {"cbam_format": FORMAT, "specs": json.dumps(fields)}


def _leaf_field(canonical: str) -> str:
    if canonical.startswith("spatial.norm."):
        return "spatial_norm"
    return {"channel.reduce.bias": "mlp_bias", "spatial.conv.bias": "spatial_bias"}.get(
        canonical, ""
    )


def _dtype(weights: Mapping[str, np.ndarray]) -> np.dtype:
    return next(iter(weights.values())).dtype

"""Finding CBAMs among the arrays of a file: by names first, by shapes second, never by a guess."""

from __future__ import annotations

import functools
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from cbam_core.dialects import DIALECTS, Dialect
from cbam_core.dialects.dialect import Leaves, pattern
from cbam_core.spec import CBAMSpec
from cbam_core.weights import as_canonical, check_weights

Arrays = Mapping[str, np.ndarray]


class UnreadableError(ValueError):
    """No block, an incomplete one, or one that several dialects write alike."""


@dataclass(frozen=True)
class Block:
    """One CBAM or squeeze-and-excitation block of a file.

    Attributes:
        dialect: the name of the dialect in which it is written.
        spec, weights: what it is, and its canonical weights.
        names: canonical name -> the name in the file.
        counters: names in the file that belong to the block and are no weights.
        unseen: fields of the spec that no array shows; they are the dialect's, or the caller's.
    """

    dialect: str
    spec: CBAMSpec
    weights: dict[str, np.ndarray]
    names: dict[str, str]
    counters: tuple[str, ...]
    unseen: tuple[str, ...]


def find(
    arrays: Arrays, dialect: str | None = None, fields: Mapping[str, Any] | None = None
) -> tuple[dict[str, Block], dict[str, Dialect]]:
    """The blocks by their paths, and what looks like one and is not, by its path.

    Args:
        arrays: name -> array, without the wrappers that `unwrap` takes off.
        dialect: the one to read; all if None.
        fields: of the spec, what no array shows and the caller knows.

    Raises:
        UnreadableError: several dialects write a block alike, or the arrays of one do not fit.
    """
    tried = [DIALECTS[dialect]] if dialect else list(DIALECTS.values())
    candidates = _largest([c for one in tried for c in _candidates(arrays, one)])
    blocks: dict[str, Block] = {}
    lookalikes: dict[str, Dialect] = {}
    for path, alike in _by_arrays(candidates):
        named = [c for c in alike if c.dialect.lookalike]
        if named:
            lookalikes[path] = named[0].dialect
            continue
        blocks[path] = _only(path, [_block(c, arrays, fields or {}) for c in alike])
    return blocks, lookalikes


@dataclass(frozen=True)
class _Candidate:
    """Arrays that have the names of one block in one dialect."""

    dialect: Dialect
    leaves: Leaves
    path: str
    names: dict[str, str]
    counters: tuple[str, ...]

    @property
    def arrays(self) -> frozenset[str]:
        return frozenset(self.names.values())


def _candidates(arrays: Arrays, dialect: Dialect) -> Iterator[_Candidate]:
    for leaves in dialect.spellings:
        groups: dict[tuple[str, str], dict[str, str]] = defaultdict(dict)
        index = _index(leaves)
        for name, array in arrays.items():
            for canonical, expression in index.get(_ending(name), ()):
                match = expression.fullmatch(name)
                if match and _fits(canonical, leaves, array):
                    groups[match["prefix"], match["n"]][canonical] = name
        for (prefix, number), names in groups.items():
            if _is_whole(names, leaves, dialect):
                counters = [prefix + c.replace("{n}", number) for c in dialect.counters]
                path = (prefix.rstrip("./") + (f"#{number}" if number else "")).strip()
                yield _Candidate(
                    dialect, leaves, path, names, tuple(c for c in counters if c in arrays)
                )


def _index(leaves: Leaves) -> dict[tuple[str, str], list[tuple[str, re.Pattern[str]]]]:
    """Canonical names and patterns by the ending that a name has to have."""
    index = defaultdict(list)
    for canonical, (name, _) in leaves.items():
        index[_ending(name.replace("{n}", ""))].append((canonical, _pattern(name)))
    return index


_pattern = functools.cache(pattern)


def _ending(name: str) -> tuple[str, str]:
    """The last two parts, without the number of the first of them."""
    parts = re.split("[./]", name)
    return (parts[-2].rstrip("0123456789_") if len(parts) > 1 else "", parts[-1])


def _fits(canonical: str, leaves: Leaves, array: np.ndarray) -> bool:
    layout = leaves[canonical][1]
    if not layout.fits(array.shape) or array.dtype.kind not in "fV":
        return False
    # Any network has a conv1.weight; only a spatial gate's reads one or two maps and gives one.
    shape = layout.read(array).shape
    return canonical != "spatial.conv.kernel" or (shape[-2] <= 2 and shape[-1] == 1)


def _is_whole(names: Mapping[str, str], leaves: Leaves, dialect: Dialect) -> bool:
    """Whether all leaves of a gate are there, or none; optional ones are there together."""
    for gate in ("channel.", "spatial."):
        present = {name for name in names if name.startswith(gate)}
        optional = (*dialect.optional, "spatial_descriptor")
        required = {
            name for name in leaves if name.startswith(gate) and _group(name) not in optional
        }
        if present and not required <= present:
            return False
        for group in dialect.optional:
            own = {name for name in leaves if _group(name) == group and name.startswith(gate)}
            if present & own and not own <= present:
                return False
    return bool(names)


def _group(canonical: str) -> str:
    """The field of a spec that says whether there is such a weight; "" if there always is."""
    if canonical.startswith("spatial.norm."):
        return "spatial_norm"
    return {
        "channel.reduce.bias": "mlp_bias",
        "channel.expand.bias": "mlp_bias",
        "spatial.conv.bias": "spatial_bias",
        "spatial.squeeze.kernel": "spatial_descriptor",
    }.get(canonical, "")


def _largest(candidates: Sequence[_Candidate]) -> list[_Candidate]:
    """Those that are not a part of another: a pair fc1, fc2 may belong to a bigger block."""
    owners: dict[str, list[_Candidate]] = defaultdict(list)
    for candidate in candidates:
        for name in candidate.arrays:
            owners[name].append(candidate)
    return [
        c for c in candidates
        if not any(c.arrays < other.arrays for other in owners[next(iter(c.arrays))])
    ]  # fmt: skip


def _by_arrays(candidates: Iterable[_Candidate]) -> Iterator[tuple[str, list[_Candidate]]]:
    """Candidates that claim the same arrays, with the path of the first."""
    alike: dict[frozenset[str], list[_Candidate]] = defaultdict(list)
    for candidate in candidates:
        alike[candidate.arrays].append(candidate)
    for group in alike.values():
        yield group[0].path, group


def _block(candidate: _Candidate, arrays: Arrays, fields: Mapping[str, Any]) -> Block:
    weights = {
        canonical: as_canonical(candidate.leaves[canonical][1].read(arrays[name]))
        for canonical, name in candidate.names.items()
    }
    dialect = candidate.dialect
    kernel = weights.get("spatial.conv.kernel")
    if kernel is not None and dialect.maps == ("max", "avg") and kernel.shape[-2] == 2:
        weights["spatial.conv.kernel"] = kernel[..., ::-1, :]
    spec = _spec(candidate.path, weights, {**dialect.fields, **fields})
    ordered = {name: weights[name] for name in canonical_order(weights)}
    check_weights(spec, ordered)
    for name, array in ordered.items():
        if not np.isfinite(array).all():
            raise UnreadableError(f"{candidate.names[name]} holds values that are not finite")
    unseen = tuple(sorted({*dialect.fields, *dialect.settable, "gate"}))
    return Block(dialect.name, spec, ordered, candidate.names, candidate.counters, unseen)


def canonical_order(weights: Iterable[str]) -> list[str]:
    """Canonical names in the order of `weight_shapes`."""
    order = [
        "channel.reduce.kernel", "channel.reduce.bias", "channel.expand.kernel",
        "channel.expand.bias", "spatial.squeeze.kernel", "spatial.conv.kernel",
        "spatial.conv.bias", "spatial.norm.scale", "spatial.norm.bias", "spatial.norm.mean",
        "spatial.norm.var",
    ]  # fmt: skip
    present = set(weights)
    return [name for name in order if name in present]


def _spec(path: str, weights: Arrays, fields: Mapping[str, Any]) -> CBAMSpec:
    """What the arrays show, and for the rest `fields`."""
    shown: dict[str, Any] = {}
    if "channel.reduce.kernel" in weights:
        channels, hidden = weights["channel.reduce.kernel"].shape
        reduction = fields.get("reduction", 16)
        shown |= {"channels": channels, "mlp_bias": "channel.reduce.bias" in weights}
        shown |= {} if hidden == max(1, channels // reduction) else {"hidden": hidden}
    if "spatial.conv.kernel" in weights:
        kernel = weights["spatial.conv.kernel"]
        shown |= {
            "kernel_size": kernel.shape[0],
            "rank": kernel.ndim - 2,
            "spatial_bias": "spatial.conv.bias" in weights,
            "spatial_norm": "spatial.norm.scale" in weights,
        }
        if "spatial.squeeze.kernel" in weights:
            shown["spatial_descriptor"] = "conv"
            shown["channels"] = len(weights["spatial.squeeze.kernel"])
    if "spatial.conv.kernel" not in weights:
        shown["order"] = "channel"
    elif "channel.reduce.kernel" not in weights:
        shown["order"] = "spatial"
    known = {**fields, **shown}
    if "channels" not in known:
        raise UnreadableError(
            f"holds a spatial gate alone at {path!r}, whose arrays do not show the channels of the "
            f"map; pass channels="
        )
    return CBAMSpec.from_dict(known)


def _only(path: str, blocks: Sequence[Block]) -> Block:
    """The block that all candidates agree on."""
    first = blocks[0]
    if all(_mean_the_same(first, other) for other in blocks[1:]):
        return first
    width = max(len(block.dialect) for block in blocks)
    lines = [f"  --from {b.dialect:{width}}  {_what_differs(b, blocks)}" for b in blocks]
    raise UnreadableError(
        f"holds a block at {path!r} that several implementations write alike, and no array tells "
        f"which it is:\n" + "\n".join(lines) + "\npass the one whose code trained it"
    )


def _mean_the_same(one: Block, other: Block) -> bool:
    return one.spec == other.spec and all(
        np.array_equal(one.weights[name], other.weights[name]) for name in one.weights
    )


def _what_differs(block: Block, blocks: Sequence[Block]) -> str:
    every = [b.spec.to_dict() for b in blocks]
    own = block.spec.to_dict()
    parts = [f"{f}={getattr(block.spec, f)!r}" for f in own if any(e[f] != own[f] for e in every)]
    maps = {b.dialect: DIALECTS[b.dialect].maps for b in blocks}
    if len(set(maps.values())) > 1:
        parts.append(f"kernel reads [{', '.join(maps[block.dialect])}]")
    return ", ".join([*parts, DIALECTS[block.dialect].about])


# Where people put weights beside other things. An average of the weights is taken only where the
# file has nothing else under the same names.
_AVERAGES = ("ema", "model_ema", "state_dict_ema", "ema_state_dict")
_NESTINGS = (
    "state_dict", "model_state_dict", "model", "net", "network", "params", "batch_stats",
    "variables", *_AVERAGES,
)  # fmt: skip
_OPTIMIZERS = (
    "optimizer", "optimizer_state_dict", "optimizer_state", "opt_state", "optim",
    "optimizer_weights",
)  # fmt: skip
_PREFIXES = ("module.", "_orig_mod.")


def unwrap(names: Iterable[str]) -> dict[str, str]:
    """The name that a weight has in its model -> its name in the file.

    Nestings ("state_dict/") and the prefixes of DataParallel and torch.compile are taken off, and
    what an optimizer keeps is left out.

    >>> unwrap(["state_dict/module.ca.fc1.weight", "optimizer/state/0/momentum_buffer"])
    {'ca.fc1.weight': 'state_dict/module.ca.fc1.weight'}
    """
    ranked: list[tuple[int, str, str]] = []
    for name in names:
        bare, averaged = name, False
        while True:
            first, slash, rest = bare.partition("/")
            if slash and first in _NESTINGS:
                averaged |= first in _AVERAGES
                bare = rest
            elif bare.startswith(_PREFIXES):
                bare = bare.partition(".")[2]
            else:
                break
        if bare.partition("/")[0] not in _OPTIMIZERS:
            ranked.append((int(averaged), bare, name))
    bare_names: dict[str, str] = {}
    for _, bare, name in sorted(ranked, key=lambda one: one[0]):
        bare_names.setdefault(bare, name)
    return bare_names

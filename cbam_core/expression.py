"""What a dialect can say of a block, and how it says it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping

import numpy as np

from cbam_core.dialects import Dialect
from cbam_core.dialects.dialect import GATES, Leaves, counters, gates_of
from cbam_core.spec import CBAMSpec, fields_read
from cbam_core.weights import SWITCHES, weight_shapes

Weights = Mapping[str, np.ndarray]

# Ways out of a refusal, by what they mean.
_FOLD = "; --fold folds it into the biased convolution, which is exact in evaluation"
_FILL = "; --fill writes zeros, which is exact"
_SET = {
    "norm_momentum": ", which matters in training alone; pass norm_momentum={0} (--set "
    "norm_momentum={0}) to read it so"
}


def express(
    spec: CBAMSpec, weights: Weights, dialect: Dialect, *, fold: bool = False, fill: bool = False
) -> tuple[CBAMSpec, dict[str, np.ndarray]]:
    """A spec and weights of the same meaning that `dialect` can express.

    Args:
        fold: whether a norm that the dialect has not is folded into the convolution.
        fill: whether biases that the dialect always has are written as zeros.

    Raises:
        ValueError: it can't; the message lists why, and what would help.
    """
    has = _switches(dialect.spelling(gates_of(weights)) or {}, gates_of(weights))
    if fold and spec.spatial_norm and "spatial_norm" not in has and "spatial_bias" in has:
        spec, weights = fold_norm(spec, weights)
    if fill:
        spec, weights = _fill(spec, weights, has - {*dialect.optional})
    problems = _problems(spec, weights, dialect, has)
    if problems:
        raise ValueError(f"{dialect.name} can't express it:\n  " + "\n  ".join(problems))
    return spec, dict(weights)


def _switches(names: Iterable[str], gates: tuple[str, ...]) -> set[str]:
    """The fields of a spec that say whether these weights are there, of some gates."""
    return {SWITCHES[name] for name in names if name in SWITCHES and name.startswith(gates)}


def _problems(spec: CBAMSpec, weights: Weights, dialect: Dialect, has: set[str]) -> list[str]:
    """Why a dialect can't express a block."""
    if dialect.lookalike:
        return [f"it is not the paper's CBAM: {dialect.lookalike}"]
    leaves = dialect.spelling(gates_of(weights))
    if leaves is None:
        theirs = max(map(gates_of, (*dialect.spellings, *dialect.bare)), key=len)
        return [f"order={spec.order!r}: {dialect.name} has the {' and the '.join(theirs)} gate"]
    own = _switches(weights, gates_of(weights)) - {"spatial_descriptor"}
    folds = "spatial_norm" in own - has and "spatial_bias" in has
    always = has - own - {"spatial_descriptor", *dialect.optional}
    always -= {"spatial_bias"} if folds else set()
    offers = {"spatial_norm": _FOLD} if folds else {}
    problems = [f"{f}=True: {dialect.name} has none{offers.get(f, '')}" for f in sorted(own - has)]
    offers = {"mlp_bias": _FILL, "spatial_bias": _FILL}
    problems += [
        f"{f}=False: {dialect.name} always has one{offers.get(f, '')}" for f in sorted(always)
    ]
    if _is_unnamed(leaves) and spec.hidden_channels > spec.channels:
        problems.append(
            f"hidden={spec.hidden_channels}: {dialect.name} has layers without names, and only "
            f"one that narrows the {spec.channels} channels tells an MLP"
        )
    return problems + _fixed(spec, dialect, has)


def _is_unnamed(leaves: Leaves) -> bool:
    """Whether the framework has named every layer."""
    return all("{_}" in name for name, _ in leaves.values())


def _fixed(spec: CBAMSpec, dialect: Dialect, has: set[str]) -> list[str]:
    """Fields in which the code of `dialect` always is another block than `spec`."""
    read = fields_read(
        channel=spec.has_channel_gate,
        spatial=spec.has_spatial_gate,
        norm=spec.has_spatial_gate and spec.spatial_norm and "spatial_norm" in has,
    )
    # What the shapes of the weights show.
    free = {"channels", "reduction", "hidden", "kernel_size", "rank", *SWITCHES.values()}
    free = (free - ({"spatial_descriptor"} - has)) | {*dialect.settable}
    free |= {"order"} if spec.order in GATES else set()
    theirs = CBAMSpec(1, **dialect.fields)
    differ = [f for f in sorted(read - free) if getattr(spec, f) != getattr(theirs, f)]
    return [
        f"{field}={getattr(spec, field)!r}: {dialect.name} has {getattr(theirs, field)!r}"
        + _SET.get(field, "").format(getattr(theirs, field))
        for field in differ
    ]


def _fill(
    spec: CBAMSpec, weights: Weights, needed: set[str]
) -> tuple[CBAMSpec, dict[str, np.ndarray]]:
    """The block with biases of zeros where it has none and they are needed."""
    filled = spec.replace(**dict.fromkeys(needed & {"mlp_bias", "spatial_bias"}, True))
    dtype = next(iter(weights.values())).dtype
    zeros = {
        name: np.zeros(shape, dtype)
        for name, shape in weight_shapes(filled).items()
        if name not in weights
    }
    return filled, {**weights, **zeros}


def fold_norm(spec: CBAMSpec, weights: Weights) -> tuple[CBAMSpec, dict[str, np.ndarray]]:
    """The block without its norm, whose running statistics go into a biased convolution.

    Exact in evaluation, up to one rounding of each weight; a block in training needs its norm.
    """
    wide = {name: array.astype(np.float64) for name, array in weights.items()}
    factor = wide["spatial.norm.scale"] / np.sqrt(wide["spatial.norm.var"] + spec.norm_eps)
    bias = wide.get("spatial.conv.bias", np.zeros(1)) - wide["spatial.norm.mean"]
    folded = {
        "spatial.conv.kernel": wide["spatial.conv.kernel"] * factor,
        "spatial.conv.bias": bias * factor + wide["spatial.norm.bias"],
    }
    kept = {name: w for name, w in weights.items() if not name.startswith("spatial.norm.")}
    dtype = weights["spatial.conv.kernel"].dtype
    kept |= {name: array.astype(dtype) for name, array in folded.items()}
    # What a block without a norm does not read, a reader can't find.
    plain = {field: getattr(CBAMSpec(1), field) for field in ("norm_eps", "norm_momentum")}
    return spec.replace(spatial_norm=False, spatial_bias=True, **plain), kept


def spell(
    blocks: Mapping[str, tuple[CBAMSpec, Weights]],
    dialect: Dialect,
    batches: Mapping[str, np.ndarray] | None = None,
) -> dict[str, np.ndarray]:
    """The blocks, by their paths, under the names and in the layouts of `dialect`.

    Where its layers have no names but those of the framework (dense, dense_1, conv2d, dense_2),
    the blocks follow each other, and the paths are left out.

    Args:
        batches: path -> how many batches the block's norm has seen, which PyTorch counts; else 0.
    """
    arrays: dict[str, np.ndarray] = {}
    numbers: Counter[str] = Counter()
    for path, (spec, weights) in blocks.items():
        leaves = dialect.spelling(gates_of(weights)) or {}
        names = _names(path, leaves, weights, numbers)
        for canonical, array in weights.items():
            if canonical == "spatial.conv.kernel" and dialect.maps == ("max", "avg"):
                array = array[..., ::-1, :] if array.shape[-2] == 2 else array
            arrays[names[canonical]] = leaves[canonical][1].write(array, spec.rank)
        if "spatial.norm.mean" in weights:
            for counter in counters(leaves):
                seen = (batches or {}).get(path, np.zeros((), np.int64))
                arrays[_placed(path, counter)] = seen
    return arrays


def _names(path: str, leaves: Leaves, weights: Weights, numbers: Counter[str]) -> dict[str, str]:
    """Canonical name -> name in the file, with the numbers that the framework would give."""
    names, given = {}, {}
    for canonical in weights:
        name = leaves[canonical][0] if _is_unnamed(leaves) else _placed(path, leaves[canonical][0])
        layer, numbered, _ = name.partition("{_}")
        role = canonical.rpartition(".")[0]
        if numbered and role not in given:
            given[role] = f"_{numbers[layer]}" if numbers[layer] else ""
            numbers[layer] += 1
        names[canonical] = name.replace("{_}", given.get(role, ""))
    return names


def _placed(path: str, name: str) -> str:
    """A name below a path, whose number the gates take if they can have one."""
    separator = "/" if "/" in name else "."
    prefix, _, number = path.partition("#") if "{n}" in name else (path, "", "")
    prefix = prefix.replace(".", separator) + separator if prefix else ""
    return prefix + name.replace("{n}", number)

"""What is run: specs, weights and inputs, as NumPy arrays in canonical layout."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from cbam_core import PRESETS, CBAMSpec, initial_weights, spatial_maps
from crosscheck import photograph, trained
from crosscheck.case import DRAWS, Case, made

DTYPES = ("float64", "float32", "bfloat16", "float16")
MODES = ("eval", "train")

# A block with the authors' code's fields, on the photograph.
PHOTOGRAPH = "official-photo"

# Cases for a framework that runs a selection: trained weights, the photograph, one of each kind.
SELECTION = frozenset(
    [
        trained.ATTENTION,
        PHOTOGRAPH,
        "keras-relu",
        "identity-relu",
        "timm_light-relu",
        "official-one-position",
        "all-pools-avg-max-lp-lse-relu",
        "all-parallel-relu",
        "all-rank3-relu",
        "ties-nearly",
    ]
)

# A case to be: the spec's name, the input's, and the spec.
Plan = tuple[str, str, CBAMSpec]


def default_cases(image: Path | None = None) -> list[Case]:
    """The cases of `cbam check`: trained weights on digits; each preset, input and field's value.

    Args:
        image: a picture to take instead of scikit-image's astronaut.
    """
    return [*trained.cases(), *build(_default_plans(), image)]


def full_cases(image: Path | None = None) -> list[Case]:
    """The whole grid: trained weights, every preset on every input, and its every variation."""
    plans = _default_plans()
    for name, preset in _presets(16):
        # Where a tap of a large kernel only ever meets padding, the gradient by it is 0 or, of a
        # map with NaN, 0 times NaN: float32 and float64 kernels of one framework disagree on it.
        meets_padding = preset.kernel_size // 2 >= min(SIZE)
        kinds = [kind for kind in INPUTS if not (kind in ("nan", "infinity") and meets_padding)]
        plans += [_on(kind, name, preset) for kind in kinds]
        plans += [(variation, "relu", spec) for variation, spec in _variations(name, preset)]
    plans += [(name, "photo", spec) for name, spec in _presets(32)]
    return [*trained.cases(), *build(plans, image)]


def _default_plans() -> list[Plan]:
    official = CBAMSpec.preset("official", 16, hidden=4)
    everything = CBAMSpec(16, hidden=4, mlp_bias=True, spatial_bias=True, spatial_norm=True)
    return [
        *((name, "photo", spec) for name, spec in _presets(32) if name in ("official", "paper")),
        *((name, "relu", spec) for name, spec in _presets(16)),
        *(_on(kind, "official", official) for kind in INPUTS),
        *((name, "relu", spec) for name, spec in _variations("all", everything)),
        ("lp", "large", CBAMSpec(16, hidden=4, channel_pools=("avg", "max", "lp"))),
        # The spatial gate of this order reads x itself, whose channels tie.
        ("ties", "integers", CBAMSpec(16, hidden=4, order="parallel")),
        ("ties", "nearly", CBAMSpec(16, hidden=4, order="parallel")),
    ]


def _on(kind: str, name: str, spec: CBAMSpec) -> Plan:
    return name, kind, spec.replace(channels=1, hidden=1) if kind == "one-channel" else spec


def build(plans: list[Plan], image: Path | None = None) -> list[Case]:
    """The cases of `plans`, of those that run the same spec on the same input the first."""
    photo = photograph.feature_map(image, channels=32)
    distinct: dict[tuple[CBAMSpec, str], str] = {}
    for name, kind, spec in plans:
        distinct.setdefault((spec, kind), f"{name}-{kind}")
    return [
        _case(name, spec, kind, photo if kind == "photo" else INPUTS[kind](spec))
        for (spec, kind), name in distinct.items()
    ]


# Every other value of every field, for single-field variations of a spec.
VARIATIONS: tuple[tuple[str, dict], ...] = (
    ("r2", {"reduction": 2, "hidden": None}),
    ("hidden1", {"hidden": 1}),
    ("mlp-bias", {"mlp_bias": True}),
    ("no-mlp-bias", {"mlp_bias": False}),
    *((f"pools-{'-'.join(pools)}", {"channel_pools": pools}) for pools in (
        ("avg",), ("max",), ("lp",), ("lse",), ("max", "avg"), ("avg", "max", "lp", "lse"),
    )),
    *((f"k{size}", {"kernel_size": size}) for size in (1, 3, 5)),
    ("spatial-bias", {"spatial_bias": True}),
    ("no-spatial-bias", {"spatial_bias": False}),
    ("norm", {"spatial_norm": True}),
    ("no-norm", {"spatial_norm": False}),
    *((gate, {"gate": gate}) for gate in (
        "sigmoid", "hard_sigmoid", "hard_sigmoid_keras2", "double_sigmoid",
    )),
    *((order, {"order": order}) for order in (
        "channel_spatial", "spatial_channel", "parallel", "channel", "spatial",
    )),
    ("light", {"pooling": "light"}),
    ("conv-descriptor", {"spatial_descriptor": "conv"}),
    ("residual", {"residual": True}),
    ("eps", {"norm_eps": 1e-3}),
    ("momentum", {"norm_momentum": 0.3}),
    ("rank1", {"rank": 1, "kernel_size": 7}),
    ("rank3", {"rank": 3, "kernel_size": 3}),
)  # fmt: skip


def _presets(channels: int) -> Iterator[tuple[str, CBAMSpec]]:
    """The presets, at a width at which their MLP still has several hidden units."""
    for name in PRESETS:
        yield name, CBAMSpec.preset(name, channels, hidden=channels // 4)


def _variations(name: str, spec: CBAMSpec) -> Iterator[tuple[str, CBAMSpec]]:
    for variation, change in VARIATIONS:
        changed = spec.replace(**change)
        # A norm undoes the factor that a 1x1 kernel of one map is: a gradient of 0 but for eps.
        is_undone = changed.spatial_norm and changed.kernel_size * spatial_maps(changed) == 1
        if changed != spec and not is_undone:
            yield f"{name}-{variation}", changed


def _drawn(batch: int, *size: int, scale: float = 1.0) -> Callable[[CBAMSpec], np.ndarray]:
    def draw(spec: CBAMSpec) -> np.ndarray:
        shape = (batch, *size[: spec.rank], spec.channels)
        return scale * np.random.default_rng(11).standard_normal(shape)

    return draw


def _relu(spec: CBAMSpec) -> np.ndarray:
    """Half of the values tie at 0, and one channel is 0 throughout."""
    x = np.maximum(_drawn(3, *(SIZE if spec.rank < 3 else (4, 3, 5)))(spec), 0.0)
    x[..., 0] = 0.0
    return x


def _nearly(x: np.ndarray) -> np.ndarray:
    """What ties in x differs in float64, by less than float32 can tell."""
    return x * (1 + 1e-9 * np.random.default_rng(19).random(x.shape))


# Of most maps.
SIZE = (9, 11)


def _spoiled(value: float) -> Callable[[CBAMSpec], np.ndarray]:
    def draw(spec: CBAMSpec) -> np.ndarray:
        x = _drawn(3, *SIZE)(spec)
        x[(1, *[2] * spec.rank, 0)] = value
        return x

    return draw


LARGE, TINY = 512.0, 2.0**-8

INPUTS: dict[str, Callable[[CBAMSpec], np.ndarray]] = {
    "relu": _relu,
    "odd": _drawn(2, 7, 7),
    "even": _drawn(2, 8, 6),
    "wide": _drawn(2, 3, 17),
    "one-position": _drawn(4, 1, 1),
    "one-sample": _drawn(1, *SIZE),
    "one-channel": _drawn(2, *SIZE),
    "integers": lambda spec: np.round(2 * _drawn(2, *SIZE)(spec)),
    "nearly": lambda spec: _nearly(np.round(2 * _drawn(2, *SIZE)(spec))),
    "constant": lambda spec: np.ones_like(_drawn(2, *SIZE)(spec)),
    "large": _drawn(2, *SIZE, scale=LARGE),
    "tiny": _drawn(2, *SIZE, scale=TINY),
    "nan": _spoiled(np.nan),
    "infinity": _spoiled(np.inf),
}


def _case(name: str, spec: CBAMSpec, kind: str, x: np.ndarray) -> Case:
    scale = {"large": LARGE, "tiny": TINY}.get(kind, 1.0)
    case = made(name, spec, _weights(spec, scale), x, draws=DRAWS)
    # Gradients by weights grow with the scale, which a half precision could not hold.
    return dataclasses.replace(case, cotangent=case.cotangent / scale)


def _weights(spec: CBAMSpec, scale: float) -> dict[str, np.ndarray]:
    """Weights without a special value: no bias is 0, no scale 1.

    What reads inputs of another `scale` is divided by it, so that the gates stay where their slope
    is not 0 and a fault has something to change.
    """
    rng = np.random.default_rng(17)
    weights = {}
    for name, array in initial_weights(spec, "kaiming_fan_out", seed=3).items():
        noisy = array + 0.2 * rng.standard_normal(array.shape)
        match name:
            case "spatial.norm.var" | "spatial.norm.scale":
                noisy = 0.5 + np.abs(noisy)
            case "spatial.conv.kernel":
                noisy = noisy / np.sqrt(noisy.size / spec.kernel_size)
            case "channel.reduce.kernel":
                noisy = noisy / np.sqrt(len(noisy))
        if name in ("channel.reduce.kernel", "spatial.squeeze.kernel", "spatial.conv.kernel"):
            reads_x = not (name == "spatial.conv.kernel" and "spatial.squeeze.kernel" in weights)
            noisy = noisy / scale if reads_x else noisy
        weights[name] = noisy
    return weights

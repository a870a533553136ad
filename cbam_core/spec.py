"""What tells one CBAM from another, as one validated value.

A CBAM (Woo et al., ECCV 2018, https://arxiv.org/abs/1807.06521) refines a feature map x by two
gates, each in (0, 1) for the paper's sigmoid:

    channel   Mc = gate( MLP(avg over space) + MLP(max over space) ),  MLP(v) = W1 relu(W0 v)
    spatial   Ms = gate( conv_kxk [avg over channels ; max over channels] )
    x' = Mc * x        y = Ms(x') * x'

Public implementations differ from these equations and from each other; every difference known
to this project is one field of `CBAMSpec`, and every public variant is a row of `PRESETS`.
"""

from __future__ import annotations

import dataclasses
import math
import operator
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

POOLS = ("avg", "max", "lp", "lse")
GATES = ("sigmoid", "hard_sigmoid", "hard_sigmoid_keras2", "double_sigmoid")
ORDERS = ("channel_spatial", "spatial_channel", "parallel", "channel", "spatial")
POOLINGS = ("separate", "light")
SPATIAL_DESCRIPTORS = ("pool", "conv")
RANKS = (1, 2, 3)


@dataclass(frozen=True, repr=False)
class CBAMSpec:
    """Every choice that tells one CBAM from another. The defaults are the paper's equations.

    Args:
        channels: C, the channels of the feature map.
        reduction: r; the MLP's hidden layer has max(1, channels // reduction) units.
        hidden: the number of hidden units itself; overrides `reduction`.
        mlp_bias: whether both layers of the MLP have a bias.
        channel_pools: descriptors of the channel gate, any of "avg", "max", "lp" (the square
            root of the sum of squares) and "lse" (the logarithm of the sum of exponentials).
        kernel_size: k of the spatial gate's convolution, odd.
        spatial_bias: whether that convolution has a bias.
        spatial_norm: whether a batch norm follows it.
        gate: "sigmoid"; "hard_sigmoid", clip(x/6 + 0.5, 0, 1); "hard_sigmoid_keras2",
            clip(0.2x + 0.5, 0, 1); "double_sigmoid", 2 sigmoid(x), which is exactly 1 at 0.
        order: "channel_spatial"; "spatial_channel"; "parallel", x * Mc(x) * Ms(x); "channel" or
            "spatial", one gate alone.
        pooling: "separate"; "light" takes the mean of the pools as the one descriptor, before
            the MLP and before the convolution.
        spatial_descriptor: "pool"; "conv" takes a 1x1 convolution to one map in place of the
            pooled maps (the paper's ablation).
        residual: whether the block adds its input to its output.
        norm_eps: added to the variance by the batch norm.
        norm_momentum: weight of the new value in the running statistics (PyTorch's convention).
        rank: spatial axes of the feature map: 1 (signals), 2 (images) or 3 (volumes).

    Raises:
        TypeError, ValueError: an argument that no CBAM can have; the message names it, its
            value and what was expected.

    Example:
        >>> spec = CBAMSpec(64, reduction=8)
        >>> spec.hidden_channels
        8
        >>> spec.replace(gate="hard_sigmoid")
        CBAMSpec(64, reduction=8, gate='hard_sigmoid')
    """

    channels: int
    reduction: int = 16
    hidden: int | None = None
    mlp_bias: bool = False
    channel_pools: tuple[str, ...] = ("avg", "max")
    kernel_size: int = 7
    spatial_bias: bool = False
    spatial_norm: bool = False
    gate: str = "sigmoid"
    order: str = "channel_spatial"
    pooling: str = "separate"
    spatial_descriptor: str = "pool"
    residual: bool = False
    norm_eps: float = 1e-5
    norm_momentum: float = 0.1
    rank: int = 2

    def __post_init__(self) -> None:
        for field in ("channels", "reduction", "kernel_size", "rank"):
            object.__setattr__(self, field, _positive(field, getattr(self, field)))
        if self.hidden is not None:
            object.__setattr__(self, "hidden", _positive("hidden", self.hidden))
        for field in ("mlp_bias", "spatial_bias", "spatial_norm", "residual"):
            object.__setattr__(self, field, _flag(field, getattr(self, field)))
        object.__setattr__(self, "channel_pools", _pools(self.channel_pools))
        for field in ("norm_eps", "norm_momentum"):
            object.__setattr__(self, field, _number(field, getattr(self, field)))
        _choice("gate", self.gate, GATES)
        _choice("order", self.order, ORDERS)
        _choice("pooling", self.pooling, POOLINGS)
        _choice("spatial_descriptor", self.spatial_descriptor, SPATIAL_DESCRIPTORS)
        if self.rank not in RANKS:
            raise ValueError(
                f"rank={self.rank} is not supported; pass 1 for signals, 2 for images or "
                f"3 for volumes"
            )
        if self.kernel_size % 2 == 0:
            raise ValueError(
                f"kernel_size={self.kernel_size} is even, and only an odd kernel keeps the size "
                f"of the map; pass {self.kernel_size - 1} or {self.kernel_size + 1}"
            )
        if self.norm_eps < 0:
            raise ValueError(
                f"norm_eps={self.norm_eps} is negative; pass a small number such as 1e-5"
            )
        if not 0 <= self.norm_momentum <= 1:
            raise ValueError(
                f"norm_momentum={self.norm_momentum} is not between 0 and 1; it is the weight of "
                f"the new value (PyTorch's convention), so Keras' momentum=0.99 is 0.01 here"
            )

    @classmethod
    def preset(cls, name: str, channels: int, **changes: Any) -> CBAMSpec:
        """The spec of the public variant `name` (a key of `PRESETS`), with `changes`.

        >>> CBAMSpec.preset("official", 64).spatial_norm
        True
        """
        _choice("preset", name, tuple(PRESETS))
        return cls(channels, **{**PRESETS[name], **changes})

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> CBAMSpec:
        """The inverse of `to_dict`; a name that is no field is a ValueError."""
        known = [field.name for field in dataclasses.fields(cls)]
        unknown = sorted(set(fields) - set(known))
        if unknown:
            raise ValueError(
                f"a CBAMSpec has no field {', '.join(map(repr, unknown))}; "
                f"its fields are {', '.join(known)}"
            )
        if "channels" not in fields:
            raise ValueError("the fields of a CBAMSpec lack 'channels'; add the number of channels")
        return cls(**fields)

    def to_dict(self) -> dict[str, Any]:
        """All fields as values that JSON can hold (channel_pools is a list)."""
        fields = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        return {**fields, "channel_pools": list(self.channel_pools)}

    def replace(self, **changes: Any) -> CBAMSpec:
        """A copy with some fields changed, validated anew."""
        return CBAMSpec.from_dict({**self.to_dict(), **changes})

    @property
    def hidden_channels(self) -> int:
        """Units in the MLP's hidden layer: `hidden`, or max(1, channels // reduction)."""
        return max(1, self.channels // self.reduction) if self.hidden is None else self.hidden

    @property
    def has_channel_gate(self) -> bool:
        return self.order != "spatial"

    @property
    def has_spatial_gate(self) -> bool:
        return self.order != "channel"

    def channel_arguments(self) -> dict[str, Any]:
        """The fields that `ChannelAttention` takes."""
        return {field: getattr(self, field) for field in CHANNEL_FIELDS}

    def spatial_arguments(self) -> dict[str, Any]:
        """The fields that `SpatialAttention` takes."""
        return {field: getattr(self, field) for field in SPATIAL_FIELDS}

    def squeeze_excitation_arguments(self) -> dict[str, Any]:
        """The fields that `SqueezeExcitation` takes; a ValueError if the spec is another block."""
        required = {"channel_pools": ("avg",), "order": "channel", "residual": False}
        for field, value in required.items():
            if getattr(self, field) != value:
                raise ValueError(
                    f"{field}={getattr(self, field)!r} is no squeeze-and-excitation, which has "
                    f"{field}={value!r}; build a CBAM from this spec"
                )
        return {field: getattr(self, field) for field in SQUEEZE_EXCITATION_FIELDS}

    def arguments(self, *fixed: str) -> str:
        """The constructor arguments that rebuild this spec, defaults and `fixed` ones left out.

        >>> CBAMSpec(64, order="channel").arguments("order")
        '64'
        """
        changed = [
            f"{field.name}={getattr(self, field.name)!r}"
            for field in dataclasses.fields(self)[1:]
            if field.name not in fixed and getattr(self, field.name) != field.default
        ]
        return ", ".join([str(self.channels), *changed])

    def __repr__(self) -> str:
        return f"CBAMSpec({self.arguments()})"


# Which fields each module reads: the arguments of its constructor.
CHANNEL_FIELDS = (
    "channels", "reduction", "hidden", "mlp_bias", "channel_pools", "gate", "pooling", "rank",
)  # fmt: skip
SQUEEZE_EXCITATION_FIELDS = (
    "channels", "reduction", "hidden", "mlp_bias", "gate", "rank",
)  # fmt: skip
SPATIAL_FIELDS = (
    "channels", "kernel_size", "spatial_bias", "spatial_norm", "gate", "pooling",
    "spatial_descriptor", "norm_eps", "norm_momentum", "rank",
)  # fmt: skip


def fields_read(*, channel: bool, spatial: bool, norm: bool) -> set[str]:
    """The fields that a block with these gates reads, and maybe a norm in the spatial one.

    >>> sorted(fields_read(channel=False, spatial=True, norm=False) - set(CHANNEL_FIELDS))
    ['kernel_size', 'order', 'residual', 'spatial_bias', 'spatial_descriptor', 'spatial_norm']
    """
    fields = {"order", "residual"}
    fields |= set(CHANNEL_FIELDS) if channel else set()
    fields |= set(SPATIAL_FIELDS) if spatial else set()
    return fields if norm else fields - {"norm_eps", "norm_momentum"}


# Public variants, by the fields in which they leave the paper's equations. Descriptor order and
# the layouts of a public file are not part of a spec: a reader turns them into the canonical ones.
PRESETS: dict[str, dict[str, Any]] = {
    # The equations, with neither bias nor norm.
    "paper": {},
    # The authors' released PyTorch code.
    "official": {"mlp_bias": True, "spatial_norm": True, "norm_momentum": 0.01},
    "official_no_spatial": {"mlp_bias": True, "order": "channel"},
    # pytorchcv, gluoncv2 and tf2cv.
    "osmr": {"mlp_bias": True, "spatial_norm": True},
    "ugenteraan": {"mlp_bias": True, "spatial_norm": True, "norm_momentum": 0.01},
    "elbuco1": {"mlp_bias": True, "spatial_bias": True},
    # The PyTorch copy that most detectors carry, and many articles under other names.
    "luuuyi": {},
    "timm": {"spatial_norm": True},
    "timm_light": {"spatial_norm": True, "pooling": "light"},
    "timm_se": {"mlp_bias": True, "channel_pools": ("avg",), "order": "channel"},
    "mmyolo": {"mlp_bias": True, "spatial_bias": True},
    "xmu": {"kernel_size": 49, "spatial_bias": True, "residual": True},
    # kobiso's TensorFlow and Keras 2 code, and TF-slim's copies.
    "kobiso": {"reduction": 8, "mlp_bias": True},
    # A Keras 2 copy of kobiso's block, with Keras 2's hard sigmoid as both gates.
    "keras": {"reduction": 8, "mlp_bias": True, "gate": "hard_sigmoid_keras2"},
    "seed_tf1": {"mlp_bias": True, "spatial_bias": True},
    "k3_addons": {"kernel_size": 49, "spatial_bias": True, "residual": True},
    "cbam_flax": {"kernel_size": 3},
    # Squeeze-and-excitation (Hu et al., CVPR 2018), a special case.
    "se": {"channel_pools": ("avg",), "order": "channel"},
    # For insertion into a trained network: exactly the identity where the last layers are zero.
    "identity": {"gate": "double_sigmoid"},
}


def _positive(argument: str, value: Any) -> int:
    try:
        if isinstance(value, bool):
            raise TypeError
        number = operator.index(value)
    except TypeError:
        raise TypeError(f"{argument}={value!r} is not an integer; pass a whole number") from None
    if number < 1:
        raise ValueError(f"{argument}={number} is below 1; pass a positive integer")
    return number


def _number(argument: str, value: Any) -> float:
    try:
        if isinstance(value, (bool, str)):
            raise TypeError
        number = float(value)
    except OverflowError:
        number = math.inf
    except (TypeError, ValueError):
        raise TypeError(f"{argument}={value!r} is not a number; pass a float") from None
    if not math.isfinite(number):
        raise ValueError(f"{argument}={number} is not finite; pass a float such as 1e-5")
    return number


def _flag(argument: str, value: Any) -> bool:
    if not isinstance(value, bool):
        raise TypeError(f"{argument}={value!r} is not a bool; pass True or False")
    return value


def _choice(argument: str, value: Any, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise ValueError(f"{argument}={value!r} is unknown; choose from {', '.join(choices)}")


def _pools(value: Any) -> tuple[str, ...]:
    if isinstance(value, str) or not isinstance(value, Iterable):
        raise TypeError(
            f"channel_pools={value!r} is no sequence of names; pass a tuple such as ('avg', 'max')"
        )
    pools = tuple(value)
    for pool in pools:
        _choice("channel_pools", pool, POOLS)
    if not pools:
        raise ValueError("channel_pools=() is empty; pass at least one of avg, max, lp, lse")
    if len(set(pools)) < len(pools):
        raise ValueError(f"channel_pools={pools!r} names a pool twice; pass each at most once")
    return pools

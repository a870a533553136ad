"""Backbones as data: what layers a network has, at which path, with which widths and strides.

Every package builds its networks from these plans, readers check files against them, and
`cbam summary` counts them. Feature maps and kernels are channels-last in all that is said here.

- ResNet: He et al., https://arxiv.org/abs/1512.03385; ResNeXt: Xie et al.,
  https://arxiv.org/abs/1611.05431; Wide ResNet: Zagoruyko and Komodakis,
  https://arxiv.org/abs/1605.07146; MobileNet: Howard et al., https://arxiv.org/abs/1704.04861.
- Attention in the blocks: Woo et al., https://arxiv.org/abs/1807.06521, figure 3 and tables 3, 4.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from cbam_core.spec import PRESETS, CBAMSpec
from cbam_core.weights import weight_shapes

KINDS = ("basic", "bottleneck", "separable")
ATTENTIONS = (None, "cbam", "se")
PLACEMENTS = ("block", "stem_and_tail")
STEMS = ("imagenet", "cifar")
STRIDES_ON = ("1x1", "3x3")
HEADS = ("plain", "dual_pooling")

# Batch norms of the networks: PyTorch's defaults, which all published ResNets have.
NORM_EPS, NORM_MOMENTUM = 1e-5, 0.1


@dataclass(frozen=True)
class Unit:
    """A convolution without bias and the batch norm behind it.

    Attributes:
        conv, norm: their paths.
        inputs, outputs: channels.
        kernel_size, stride, groups: of the convolution, which pads kernel_size // 2 on each side.
    """

    conv: str
    norm: str
    inputs: int
    outputs: int
    kernel_size: int
    stride: int = 1
    groups: int = 1

    def size_after(self, size: tuple[int, int]) -> tuple[int, int]:
        """Height and width of the map behind it."""
        height, width = ((side - 1) // self.stride + 1 for side in size)
        return height, width


@dataclass(frozen=True)
class Block:
    """A residual block, relu(attention(units(x)) + shortcut(x)); or, of a MobileNet, a depthwise
    and a pointwise unit, each with a relu and an attention behind it.

    Attributes:
        path: where it stands, "stage1.block0".
        units: in the order of the forward pass, a relu between them.
        projection: the shortcut's unit, or None where the shortcut is x itself.
        attentions: path -> spec; of a residual block one, before the sum, or none.
    """

    path: str
    units: tuple[Unit, ...]
    projection: Unit | None
    attentions: Mapping[str, CBAMSpec]

    @property
    def outputs(self) -> int:
        return self.units[-1].outputs


@dataclass(frozen=True, repr=False)
class Architecture:
    """A backbone, as every choice that tells it from others; validated.

    Args:
        kind: of the blocks, "basic", "bottleneck" or "separable" (MobileNet).
        depths: blocks in each stage.
        widths: of each stage: the channels of its 3x3 convolutions at width 1.
        groups, group_width: of a bottleneck's 3x3 convolution (ResNeXt: 32 groups of width 4).
        widen: factor of all widths but the stem's (Wide ResNet); of a MobileNet, of all.
        attention: None, "cbam" or "se".
        spec: fields of the attention's CBAMSpec in which it leaves the default, which is the
            authors' for "cbam" and biased with r=16 for "se", as the paper's tables count them.
            With residual=True the block's sum is x + residual + cbam(residual).
        placement: "block": before the residual sum of every block (MobileNet: behind every relu,
            the stem's included); "stem_and_tail": behind the stem's and behind the last stage.
        stem: "imagenet": 7x7 with stride 2 and a max pool; "cifar": 3x3 with stride 1.
        stride_on: the convolution of a bottleneck that carries the stride, "1x1" as the paper's
            FLOPs have it or "3x3" as all released code has it.
        num_classes: outputs of the head.
        head: "plain": global average, linear; "dual_pooling": see `DualPoolingHead`.

    Raises:
        ValueError: a value that no backbone can have; the message names it.

    Example:
        >>> network = Architecture.named("resnet50", attention="cbam")
        >>> network
        Architecture('bottleneck', (3, 4, 6, 3), attention='cbam')
        >>> network.stages[0][0].path
        'stage1.block0'
    """

    kind: str
    depths: tuple[int, ...]
    widths: tuple[int, ...] = (64, 128, 256, 512)
    groups: int = 1
    group_width: int = 64
    widen: float = 1.0
    attention: str | None = None
    spec: tuple[tuple[str, Any], ...] = ()
    placement: str = "block"
    stem: str = "imagenet"
    stride_on: str = "3x3"
    num_classes: int = 1000
    head: str = "plain"

    def __post_init__(self) -> None:
        for field, known in _CHOICES.items():
            value = getattr(self, field)
            if value not in known:
                names = ", ".join(map(repr, known))
                raise ValueError(f"{field}={value!r} is unknown; choose from {names}")
        if self.num_classes < 1:
            raise ValueError(f"num_classes={self.num_classes} is below 1; pass a positive integer")
        if len(self.depths) != len(self.widths) or min((*self.depths, *self.widths), default=0) < 1:
            raise ValueError(
                f"depths={self.depths} and widths={self.widths} do not fit; pass one positive "
                f"integer each for every stage"
            )
        if self._scaled(min(self.widths)) < 1:
            raise ValueError(
                f"widen={self.widen} leaves no channel of widths={self.widths}; pass a larger one"
            )
        spec = dict(self.spec) if not isinstance(self.spec, Mapping) else self.spec
        fields = ((k, tuple(v) if isinstance(v, list) else v) for k, v in sorted(spec.items()))
        object.__setattr__(self, "spec", tuple(fields))
        object.__setattr__(self, "depths", tuple(self.depths))
        object.__setattr__(self, "widths", tuple(self.widths))
        attention = self.attention_at(self.stem_unit.outputs)
        if attention and attention.rank != 2:
            raise ValueError(f"spec has rank={attention.rank}; pass rank=2, that of pictures")

    def __repr__(self) -> str:
        """As it is called, without the fields that have their default."""
        changed = [
            f"{field.name}={getattr(self, field.name)!r}"
            for field in dataclasses.fields(self)[2:]
            if getattr(self, field.name) != field.default
        ]
        return f"Architecture({', '.join([repr(self.kind), repr(self.depths), *changed])})"

    @classmethod
    def named(cls, name: str, **changes: Any) -> Architecture:
        """The backbone of a factory's name, a key of `ARCHITECTURES`, with `changes`."""
        if name not in ARCHITECTURES:
            raise ValueError(f"name={name!r} is unknown; choose from {', '.join(ARCHITECTURES)}")
        return cls(**{**ARCHITECTURES[name], **changes})

    def to_dict(self) -> dict[str, Any]:
        """All fields as values that JSON can hold."""
        fields = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        lists = {"depths": list(self.depths), "widths": list(self.widths)}
        spec = {k: list(v) if isinstance(v, tuple) else v for k, v in self.spec}
        return {**fields, **lists, "spec": spec}

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> Architecture:
        """The inverse of `to_dict`; a name that is no field is a ValueError."""
        known = [field.name for field in dataclasses.fields(cls)]
        unknown = sorted(set(fields) - set(known))
        if unknown:
            raise ValueError(
                f"an Architecture has no field {', '.join(map(repr, unknown))}; its fields are "
                f"{', '.join(known)}"
            )
        return cls(**fields)

    def attention_at(self, channels: int) -> CBAMSpec | None:
        """The spec of the attention on a map of `channels`."""
        if self.attention is None:
            return None
        default = _SPECS[self.attention]
        return CBAMSpec(channels, **{**default, **dict(self.spec)})

    @property
    def stem_unit(self) -> Unit:
        outputs = self._scaled(32) if self.kind == "separable" else 64
        if self.kind == "separable":
            return Unit("stem.conv", "stem.norm", 3, outputs, 3, 2 if self._is_large else 1)
        size, stride = (7, 2) if self._is_large else (3, 1)
        return Unit("stem.conv", "stem.norm", 3, outputs, size, stride)

    @property
    def has_max_pool(self) -> bool:
        """Whether a 3x3 max pool with stride 2 follows the stem."""
        return self._is_large and self.kind != "separable"

    @property
    def stem_attention(self) -> CBAMSpec | None:
        """What stands at "stem.attention", behind the stem's relu and before the max pool."""
        is_here = self.placement == "stem_and_tail" or self.kind == "separable"
        return self.attention_at(self.stem_unit.outputs) if is_here else None

    @property
    def tail_attention(self) -> CBAMSpec | None:
        """What stands at "tail", behind the last stage."""
        is_here = self.placement == "stem_and_tail"
        return self.attention_at(self.features) if is_here else None

    @property
    def features(self) -> int:
        """Channels behind the last stage."""
        return self.stages[-1][-1].outputs

    @property
    def stages(self) -> tuple[tuple[Block, ...], ...]:
        """The blocks of each stage."""
        stages = []
        inputs = self.stem_unit.outputs
        for number, (depth, width) in enumerate(zip(self.depths, self.widths, strict=True), 1):
            stage = []
            for place in range(depth):
                stride = 2 if place == 0 and number > 1 else 1
                stage.append(self._block(f"stage{number}.block{place}", inputs, width, stride))
                inputs = stage[-1].outputs
            stages.append(tuple(stage))
        return tuple(stages)

    def units(self) -> Iterator[Unit]:
        """Every convolution with its norm, in the order of the forward pass."""
        yield self.stem_unit
        for stage in self.stages:
            for block in stage:
                yield from block.units
                if block.projection:
                    yield block.projection

    def attentions(self) -> Iterator[tuple[str, CBAMSpec]]:
        """Path and spec of every attention, in the order of the forward pass."""
        if self.stem_attention:
            yield "stem.attention", self.stem_attention
        for stage in self.stages:
            for block in stage:
                yield from block.attentions.items()
        if self.tail_attention:
            yield "tail", self.tail_attention

    @property
    def _is_large(self) -> bool:
        return self.stem == "imagenet"

    def _scaled(self, width: int) -> int:
        return int(width * self.widen)

    def _block(self, path: str, inputs: int, width: int, stride: int) -> Block:
        if self.kind == "separable":
            return self._separable(path, inputs, self._scaled(width), stride)
        units = self._bottleneck if self.kind == "bottleneck" else self._basic
        chain = units(path, inputs, self._scaled(width), stride)
        outputs = chain[-1].outputs
        needed = stride > 1 or inputs != outputs
        projection = Unit(
            f"{path}.projection.conv", f"{path}.projection.norm", inputs, outputs, 1, stride
        )
        spec = self.attention_at(outputs) if self.placement == "block" else None
        attentions = {f"{path}.attention": spec} if spec else {}
        return Block(path, chain, projection if needed else None, attentions)

    def _basic(self, path: str, inputs: int, width: int, stride: int) -> tuple[Unit, ...]:
        return (
            _unit(path, 1, inputs, width, 3, stride),
            _unit(path, 2, width, width, 3),
        )

    def _bottleneck(self, path: str, inputs: int, width: int, stride: int) -> tuple[Unit, ...]:
        inner = width * self.group_width // 64 * self.groups
        first, second = (stride, 1) if self.stride_on == "1x1" else (1, stride)
        return (
            _unit(path, 1, inputs, inner, 1, first),
            _unit(path, 2, inner, inner, 3, second, self.groups),
            _unit(path, 3, inner, 4 * width, 1),
        )

    def _separable(self, path: str, inputs: int, width: int, stride: int) -> Block:
        units = (
            _unit(path, 1, inputs, inputs, 3, stride, inputs),
            _unit(path, 2, inputs, width, 1),
        )
        attentions = {}
        if self.attention and self.placement == "block":
            for number, unit in enumerate(units, 1):
                spec = self.attention_at(unit.outputs)
                assert spec is not None
                attentions[f"{path}.attention{number}"] = spec
        return Block(path, units, None, attentions)


def _unit(
    path: str, number: int, inputs: int, outputs: int, size: int, stride: int = 1, groups: int = 1
) -> Unit:
    names = f"{path}.conv{number}", f"{path}.norm{number}"
    return Unit(*names, inputs, outputs, size, stride, groups)


_CHOICES: dict[str, tuple[Any, ...]] = {
    "kind": KINDS,
    "attention": ATTENTIONS,
    "placement": PLACEMENTS,
    "stem": STEMS,
    "stride_on": STRIDES_ON,
    "head": HEADS,
}
_SPECS: dict[str, dict[str, Any]] = {
    "cbam": PRESETS["official"],
    "se": {**PRESETS["se"], "mlp_bias": True},
}


def _resnet(kind: str, *depths: int, **fields: Any) -> dict[str, Any]:
    return {"kind": kind, "depths": depths, **fields}


# The factories of every package, by name.
ARCHITECTURES: dict[str, dict[str, Any]] = {
    "resnet18": _resnet("basic", 2, 2, 2, 2),
    "resnet34": _resnet("basic", 3, 4, 6, 3),
    "resnet50": _resnet("bottleneck", 3, 4, 6, 3),
    "resnet101": _resnet("bottleneck", 3, 4, 23, 3),
    "resnet152": _resnet("bottleneck", 3, 8, 36, 3),
    "resnext50_32x4d": _resnet("bottleneck", 3, 4, 6, 3, groups=32, group_width=4),
    "resnext101_32x4d": _resnet("bottleneck", 3, 4, 23, 3, groups=32, group_width=4),
    "wide_resnet18": _resnet("basic", 2, 2, 2, 2, widen=2.0),
    "mobilenet": {
        "kind": "separable",
        "depths": (1, 2, 2, 6, 2),
        "widths": (64, 128, 256, 512, 1024),
    },
}


def attention_fields(spec: CBAMSpec | str | None) -> dict[str, Any]:
    """Fields of an `Architecture`'s attention, as a preset's name or a CBAMSpec gives them.

    The hidden width of a spec is that of its own channels, so an attention's on other channels
    comes from its reduction.

    >>> attention_fields(CBAMSpec(64, gate="double_sigmoid"))["gate"]
    'double_sigmoid'
    """
    if spec is None:
        return {}
    chosen = CBAMSpec.preset(spec, 1) if isinstance(spec, str) else spec
    fields = chosen.to_dict()
    return {name: fields[name] for name in fields if name not in ("channels", "hidden")}


def network_shapes(architecture: Architecture) -> dict[str, tuple[int, ...]]:
    """Canonical name -> shape of every weight and statistic, in the order of the forward pass."""
    table: dict[str, tuple[int, ...]] = {}
    for unit in architecture.units():
        size = (unit.kernel_size,) * 2
        table[f"{unit.conv}.kernel"] = (*size, unit.inputs // unit.groups, unit.outputs)
        table |= {
            f"{unit.norm}.{leaf}": (unit.outputs,) for leaf in ("scale", "bias", "mean", "var")
        }
    for path, spec in architecture.attentions():
        table |= {f"{path}.{leaf}": shape for leaf, shape in weight_shapes(spec).items()}
    features = architecture.features
    if architecture.head == "dual_pooling":
        table["head.reduce.kernel"] = (2 * features, features)
        table["head.reduce.bias"] = (features,)
    table["head.linear.kernel"] = (features, architecture.num_classes)
    table["head.linear.bias"] = (architecture.num_classes,)
    return table

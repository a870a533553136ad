"""Which network the arrays of a file are: by the names first, by the shapes second."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from cbam_core.architectures import Architecture, attention_fields, network_shapes
from cbam_core.finding.blocks import Block, check_values
from cbam_core.networks.dialects import NETWORK_DIALECTS, NetworkDialect
from cbam_core.networks.naming import ENDS, counters_of, leaves_of
from cbam_core.networks.network import Network, check_depth
from cbam_core.spec import CBAMSpec
from cbam_core.weights import as_canonical, check_weights

Arrays = Mapping[str, np.ndarray]


def find_network(arrays: Arrays, blocks: Mapping[str, Block]) -> Network:
    """The network that all of these arrays together are.

    Args:
        arrays: name -> array, without the wrappers that `unwrap` takes off.
        blocks: what `blocks.find` found among them.

    Raises:
        ValueError: they are none, or one that no `Architecture` describes.
    """
    dialect = _dialect(arrays, blocks)
    plain = _plain(dialect, arrays)
    places = _places(dialect, plain, blocks)
    architecture = _with_attention(plain, {to: blocks[at].spec for to, at in places.items()})
    leaves = leaves_of(dialect, architecture, has_head=f"{dialect.head}.weight" in arrays)
    names = {canonical: name for canonical, (name, _) in leaves.items()}
    shapes = network_shapes(architecture)
    read = {
        canonical: layout.read(as_canonical(arrays[name]))
        for canonical, (name, layout) in leaves.items()
        if name in arrays and layout.fits(arrays[name].shape)
    }
    check_weights({canonical: shapes[canonical] for canonical in leaves}, read)
    for canonical, array in read.items():
        check_values(leaves[canonical][0], array)
    counted = {path: name for path, name in counters_of(leaves).items() if name in arrays}
    counters = {name: arrays[name] for name in counted.values()}
    batches = {path: arrays[name] for path, name in counted.items()}
    for canonical, at in places.items():
        block = blocks[at]
        read |= {f"{canonical}.{leaf}": array for leaf, array in block.weights.items()}
        names |= {f"{canonical}.{leaf}": name for leaf, name in block.names.items()}
        counters |= block.counters
        for array in block.counters.values():
            batches[canonical] = array
    others = arrays.keys() - names.values() - counters.keys()
    if others:
        raise ValueError(
            f"{len(others)} arrays are of no layer of such a network: {_some(sorted(others))}"
        )
    in_order = {name: read[name] for name in shapes if name in read}
    return Network(dialect.name, architecture, in_order, names, places, counters, batches)


def _dialect(arrays: Arrays, blocks: Mapping[str, Block]) -> NetworkDialect:
    """Whose names of layers these are; of dialects with the same ones, whose attentions."""
    fitting = [d for d in NETWORK_DIALECTS.values() if f"{d.stem[0]}.weight" in arrays]
    if not fitting:
        stems = " or ".join(dict.fromkeys(d.stem[0] for d in NETWORK_DIALECTS.values()))
        raise ValueError(f"none of its names is that of a network's first layer, {stems}")
    known = {block.dialect for block in blocks.values()}
    dialect = next((d for d in fitting if d.name in known and d.attention is not None), fitting[0])
    if dialect.name == "osmr" and not blocks:
        raise ValueError(
            "pytorchcv's networks without a CBAM have the stride on the 1x1 or on the 3x3 "
            "convolution, and no array shows which"
        )
    return dialect


def _plain(dialect: NetworkDialect, arrays: Arrays) -> Architecture:
    """The architecture without attention, as the shapes tell it."""

    def unit(stage: int, block: int, number: int) -> str:
        path = f"{dialect.block_path(stage, block)}.{dialect.unit[0].format(unit=number)}"
        return f"{path}.weight"

    depths = []
    for stage in itertools.count(1):
        depth = next(n for n in itertools.count() if unit(stage, n, 1) not in arrays)
        if not depth:
            break
        depths.append(depth)
    check_depth(depths)
    is_bottleneck = unit(1, 0, 3) in arrays
    last = 3 if is_bottleneck else 2
    kernels = [_kernel(arrays, unit(stage, 0, last)) for stage in range(1, len(depths) + 1)]
    widths = [kernel[0] // (4 if is_bottleneck else 1) for kernel in kernels]
    grouped: dict[str, Any] = {}
    if is_bottleneck:
        outputs, inputs = _kernel(arrays, unit(1, 0, 2))[:2]
        groups = max(1, outputs // max(1, inputs))
        grouped = {"groups": groups, "group_width": 64 * outputs // max(1, widths[0] * groups)}
    classes = arrays.get(f"{dialect.head}.weight")
    return Architecture(
        "bottleneck" if is_bottleneck else "basic",
        tuple(depths),
        tuple(widths),
        **grouped,
        stem="imagenet" if _kernel(arrays, f"{dialect.stem[0]}.weight")[2] == 7 else "cifar",
        stride_on=dialect.stride_on,
        **({} if classes is None or not classes.ndim else {"num_classes": classes.shape[0]}),
    )


def _kernel(arrays: Arrays, name: str) -> tuple[int, ...]:
    if name not in arrays or arrays[name].ndim != 4:
        raise ValueError(f"it has no kernel {name} of a convolution")
    return arrays[name].shape


def _places(
    dialect: NetworkDialect, plain: Architecture, blocks: Mapping[str, Block]
) -> dict[str, str]:
    """Canonical path of an attention -> path among `blocks`; one in every block or at both ends."""
    ends = sorted(path for path in blocks if not path.partition("#")[0])
    if len(ends) == len(blocks) == len(ENDS):
        return dict(zip(ENDS, ends, strict=True))
    if blocks and len(blocks) != sum(plain.depths):
        raise ValueError(
            f"it has {len(blocks)} attentions, and {sum(plain.depths)} residual blocks"
        )
    places: dict[str, str] = {}
    for number, stage in enumerate(plain.stages, 1):
        for place, block in enumerate(stage):
            path = dialect.block_path(number, place)
            here = [at for at in blocks if f"{at.partition('#')[0]}.".startswith(f"{path}.")]
            if len(here) != bool(blocks):
                raise ValueError(f"it has {len(here)} attentions in {path}, and one elsewhere")
            places |= {f"{block.path}.attention": at for at in here}
    return places


def _with_attention(plain: Architecture, specs: Mapping[str, CBAMSpec]) -> Architecture:
    """The architecture with an attention of these specs at these paths."""
    if not specs:
        return plain
    widest = max(specs.values(), key=lambda spec: spec.channels)
    is_se = widest.order == "channel" and widest.channel_pools == ("avg",)
    reduction = widest.channels // widest.hidden_channels
    fields = attention_fields(widest.replace(reduction=max(1, reduction)))
    attention = "se" if is_se else "cbam"
    usual = attention_fields(replace(plain, attention=attention).attention_at(1))
    architecture = replace(
        plain,
        attention=attention,
        placement="stem_and_tail" if "tail" in specs else "block",
        spec=tuple((name, value) for name, value in fields.items() if value != usual[name]),
    )
    for path, expected in architecture.attentions():
        if _facts(specs[path]) != _facts(expected):
            raise ValueError(f"at {path} it has {specs[path]!r}, and elsewhere {widest!r}")
    return architecture


def _facts(spec: CBAMSpec) -> dict:
    """What a block computes, however its hidden width came about."""
    return {**spec.to_dict(), "reduction": None, "hidden": spec.hidden_channels}


def _some(names: list[str]) -> str:
    return ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")

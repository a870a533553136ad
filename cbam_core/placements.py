"""What "block" and "stem_and_tail" mean in a network that somebody else wrote.

They go by the names of its modules, which are those of torchvision and timm (and of all that
followed them) or those of keras.applications.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any


def block(modules: Mapping[str, Any]) -> Iterator[str]:
    """The last norm of each residual block, whose output goes into the sum.

    In a MobileNet of keras.applications, which has no sums, it is every activation behind a norm.

    >>> names = ["conv2_block1_2_bn", "conv2_block1_3_bn", "conv2_block1_add"]
    >>> list(block(dict.fromkeys(names)))
    ['conv2_block1_3_bn']
    """
    last: dict[str, str] = {}
    for path in modules:
        if inside := re.fullmatch(r"((?:.*\.)?)bn\d", path):
            # Only a block knows the path around itself.
            if hasattr(modules.get(inside[1].removesuffix(".")), "downsample"):
                last[inside[1]] = max(path, last.get(inside[1], ""))
        elif named := re.fullmatch(r"((?:.*\.)?conv\d_block\d+_)\d_bn", path):
            if f"{named[1]}add" in modules:
                last[named[1]] = max(path, last.get(named[1], ""))
        elif re.fullmatch(r"(.*\.)?conv(1|_[dp]w_\d+)_relu", path) and _owner(path, modules):
            last[path] = path
    yield from last.values()


def stem_and_tail(modules: Mapping[str, Any]) -> Iterator[str]:
    """The stem's activation, which is in front of the max pool, and the last stage.

    >>> names = ["conv1", "bn1", "relu", "layer1", "layer2"]
    >>> list(stem_and_tail(dict.fromkeys(names)))
    ['relu', 'layer2']
    """
    for stem, owner, stages in _STEMS:
        for path in modules:
            if not (found := re.fullmatch(rf"((?:.*\.)?){stem}", path)):
                continue
            inside = [name for name in modules if re.fullmatch(re.escape(found[1]) + stages, name)]
            if inside and f"{found[1]}{owner}" in modules:
                yield path
                yield max(inside, key=_numbers)


PLACEMENTS: dict[str, Callable[[Mapping[str, Any]], Iterator[str]]] = {
    "block": block,
    "stem_and_tail": stem_and_tail,
}

# The stem's activation, what tells that it is one, and the stages or blocks.
_STEMS = [
    ("(?:relu|act1)", "conv1", r"layer\d+"),
    ("conv1_relu", "conv1_relu", r"conv\d_block\d+_out"),
    ("conv1_relu", "conv_dw_1_relu", r"conv_pw_\d+_relu"),
]


def _owner(path: str, modules: Mapping[str, Any]) -> bool:
    """Whether the module at `path` is in a MobileNet of keras.applications."""
    inside = path.rpartition(".")[0]
    return f"{inside}.conv_dw_1_relu".removeprefix(".") in modules


def _numbers(path: str) -> list[int]:
    return [int(number) for number in re.findall(r"\d+", path)]

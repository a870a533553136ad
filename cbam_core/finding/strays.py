"""What is in no block and looks like a part of one: a look-alike's, or the other half of a block.

Few networks have another layer that makes one map of two and keeps its size, so what stands beside
such a convolution is looked at before it is passed over.
"""

from __future__ import annotations

import itertools
from collections import Counter, defaultdict
from collections.abc import Container, Iterator, Mapping

from cbam_core.dialects.layouts import Shape
from cbam_core.finding.tree import Tree

# Beside means: below one of so many modules around the convolution that have so few arrays.
_LEVELS, _ARRAYS = 4, 200


def unshared_mlps(tree: Tree, taken: Container[str]) -> dict[str, list[str]]:
    """The modules that have a spatial convolution and two MLPs of equal shapes, with their kernels.

    Args:
        taken: the names of arrays that belong to blocks.
    """
    found: dict[str, list[str]] = {}
    for stray in _strays(tree, taken):
        for module in _around(stray, tree):
            kernels = [
                name
                for name in tree.below(module, _ARRAYS)
                if name != stray and name not in taken and tree[name].ndim > 1
            ]
            if any(_matrix(tree[kernel].shape) for kernel in kernels):
                mlps = _two_mlps(module, kernels, tree)
                found |= {module: [stray, *mlps]} if mlps else {}
                break
    return found


def _two_mlps(module: str, kernels: list[str], tree: Tree) -> list[str]:
    """Four kernels that are two MLPs, and all that stands in a module or in one inside of it."""
    start = len(module) + 1 if module else 0
    inner = {kernel[:start] + kernel[start:].partition(".")[0] for kernel in kernels}
    for one in [module, *sorted(inner)]:
        own = [k for k in kernels if not one or k.startswith(f"{one}.")]
        if _are_two_mlps([tree[kernel].shape for kernel in own]):
            return own
    return []


def refuse_halves(tree: Tree, taken: Container[str], channel_gates: Mapping[str, str]) -> None:
    """Raise if a convolution that is in no block stands beside one block, and that a channel gate.

    Args:
        channel_gates: path of every block -> its dialect if it is a channel gate alone, or "".
    """
    inside = defaultdict(list)
    for path in channel_gates:
        modules = path.partition("#")[0].split(".")
        for depth in range(max(0, len(modules) - _LEVELS), len(modules) + 1):
            inside[".".join(modules[:depth])].append(path)
    for stray in _strays(tree, taken):
        beside = next((inside[m] for m in _around(stray, tree) if m in inside), [])
        dialect = channel_gates[beside[0]] if len(beside) == 1 else ""
        if dialect:
            raise ValueError(
                f"holds the channel gate of {dialect} at {beside[0]!r}, and beside it "
                f"{tree.in_file[stray]} {tree[stray].shape}, which may be the convolution of its "
                f"spatial gate under a name that {dialect} has not; pass order='channel' (--set "
                f"order=channel) to read the channel gate alone"
            )


def mlp_beside(tree: Tree, taken: Container[str], gates: Mapping[str, str]) -> str:
    """What stands beside a spatial gate alone and may be its MLP, under other names; or "".

    Args:
        gates: path of every spatial gate alone -> the name of its convolution.
    """
    for path, gate in gates.items():
        for module in itertools.islice(_around(gate, tree), 2):
            pair = _pair(module, [n for n in tree.below(module, _ARRAYS) if n not in taken], tree)
            if pair:
                mlp = " and ".join(f"{tree.in_file[name]} {tree[name].shape}" for name in pair)
                return (
                    f"holds a spatial gate at {path!r}, and beside it {mlp}, which may be the MLP "
                    f"of its channel gate under names that its dialect has not; pass "
                    f"order='spatial' (--set order=spatial) to read the spatial gate alone"
                )
    return ""


def _pair(module: str, names: list[str], tree: Tree) -> list[str]:
    """Two kernels that narrow and widen, if they are all that one of the modules in it has."""
    inside = defaultdict(list)
    for kernel in (name for name in names if tree[name].ndim > 1):
        parts = kernel.split(".")
        for depth in range(module.count(".") + 1 if module else 0, len(parts)):
            inside[".".join(parts[:depth])].append(kernel)
    for pair in inside.values():
        matrices = [_matrix(tree[kernel].shape) for kernel in pair]
        if len(pair) == 2 and None not in matrices and len(set(matrices)) == 2:
            first, second = (matrix or () for matrix in matrices)
            if first == second[::-1]:
                return pair
    return []


def _strays(tree: Tree, taken: Container[str]) -> Iterator[str]:
    """The names of convolutions that may be a spatial gate's and are in no block."""
    return (name for name, array in tree.items() if _is_gate(array.shape) and name not in taken)


def _around(name: str, tree: Tree) -> Iterator[str]:
    """The modules around a layer, from the inside."""
    module = name.rpartition(".")[0]
    for _ in range(_LEVELS if module else 0):
        module = module.rpartition(".")[0]
        if tree.count(module) > _ARRAYS:
            return
        yield module
        if not module:
            return


def _are_two_mlps(shapes: list[Shape]) -> bool:
    """Whether two of four layers narrow as much as the other two widen."""
    matrices = Counter(map(_matrix, shapes))
    if len(shapes) != 4 or len(matrices) != 2 or None in matrices:
        return False
    first, second = (matrix or () for matrix in matrices)
    return first == second[::-1] and matrices[first] == 2


def _matrix(shape: Shape) -> Shape | None:
    """The two axes of a dense layer, or of a 1x1 convolution in either layout."""
    if len(shape) == 2:
        return shape
    if not 3 <= len(shape) <= 5:
        return None
    if set(shape[2:]) == {1}:
        return shape[:2]
    return shape[-2:] if set(shape[:-2]) == {1} else None


def _is_gate(shape: Shape) -> bool:
    """Whether a kernel of this shape makes one map of two, in either layout."""
    if not 3 <= len(shape) <= 5:
        return False
    layouts = ((shape[:2], (1, 2), shape[2:]), (shape[-2:], (2, 1), shape[:-2]))
    return any(
        maps == wanted and len(set(size)) == 1 and size[0] % 2 == 1 and size[0] > 1
        for maps, wanted, size in layouts
    )

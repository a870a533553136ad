"""PyTorch files: the zip format, and the one from before it that PyTorch 0.4 wrote.

Both hold a pickle, of which `weights_only` runs no code: it knows tensors, dicts, lists, numbers
and texts, and refuses everything else.
"""

from __future__ import annotations

import json
import pickle
import re
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import torch

from cbam_core.containers import archive, nesting, standins
from cbam_core.contents import Contents

_FLOATS = (torch.float16, torch.float32, torch.float64)
_SAVE = "its owner can save the weights alone with torch.save(model.state_dict(), path)"


def read(path: Path) -> Contents:
    with path.open("rb") as file:
        is_zip = file.read(4) == b"PK\3\4"
    sizes = _check_archive(path) if is_zip else None

    def convert(value: Any) -> Any:
        return _array(value, sizes) if isinstance(value, torch.Tensor) else _fact(value)

    contents = nesting.flatten(_load(path, mmap=is_zip), convert)
    facts = dict(contents.facts)
    metadata = json.loads(facts.pop(nesting.RESERVED, "{}"))
    return Contents(contents.arrays, facts, metadata)


def write(path: Path, contents: Contents) -> None:
    tree = _numbered(nesting.nest(contents, torch.from_numpy))
    if contents.metadata:
        tree[nesting.RESERVED] = json.dumps(dict(contents.metadata))
    # By an open file, since the name of a path would be written into it.
    with path.open("wb") as file:
        torch.save(tree, file)


def _numbered(tree: Any) -> Any:
    """The tree with numbers as keys where they are some, as an optimizer's state has them."""
    if not isinstance(tree, dict):
        return tree
    return {int(key) if key.isdecimal() else key: _numbered(one) for key, one in tree.items()}


def _check_archive(path: Path) -> set[int]:
    """The sizes of the members, all of which are whole."""
    with archive.checked(path) as opened:
        members = opened.infolist()
        if any(member.filename.endswith("/constants.pkl") for member in members):
            raise ValueError(f"it is TorchScript, a program with its weights inside; {_SAVE}")
        for member in members:
            if member.compress_type != zipfile.ZIP_STORED:
                raise ValueError(f"{member.filename[:100]!r} is compressed, which PyTorch never is")
            # PyTorch writes 0 where it was told not to compute any.
            if member.CRC:
                _check_sum(opened, member)
    return {member.file_size for member in members}


def _check_sum(opened: zipfile.ZipFile, member: zipfile.ZipInfo) -> None:
    with opened.open(member) as file:
        while file.read(1 << 20):
            pass


def _load(path: Path, *, mmap: bool) -> Any:
    try:
        with torch.serialization.safe_globals(standins.BY_NAME):
            return torch.load(path, map_location="cpu", weights_only=True, mmap=mmap)
    except (pickle.UnpicklingError, LookupError) as error:
        # PyTorch's own text advises to run the code.
        code = re.search(r"GLOBAL (\S+)", str(error))
        if code:
            raise ValueError(f"it holds code, {code[1][:100]}, which is not run; {_SAVE}") from None
        raise ValueError("its pickle is damaged, or of things that are no weights") from None


def _array(tensor: torch.Tensor, sizes: set[int] | None) -> np.ndarray:
    """A tensor's own memory; bfloat16 and narrower floats become float32, which is exact."""
    if tensor.layout != torch.strided or tensor.is_quantized or tensor.is_complex():
        kind = "quantised" if tensor.is_quantized else str(tensor.layout).removeprefix("torch.")
        kind = "complex" if tensor.is_complex() else kind
        raise ValueError(f"it holds a {kind} tensor; its owner can save it as a dense float one")
    if tensor.device.type != "cpu":
        raise ValueError(f"it holds a tensor without data, on the device {tensor.device}")
    stored = tensor.untyped_storage().nbytes()
    if sizes is not None and stored not in sizes:
        raise ValueError(f"a tensor claims {stored} bytes, and no member has that many")
    if tensor.numel() * tensor.itemsize > stored:
        raise ValueError(f"a tensor claims the shape {tuple(tensor.shape)} in {stored} bytes")
    if tensor.is_floating_point() and tensor.dtype not in _FLOATS:
        tensor = tensor.float()
    return tensor.detach().numpy()


def _fact(value: Any) -> Any:
    if isinstance(value, standins.Array):
        return value.array
    return str(value) if isinstance(value, (torch.dtype, torch.device)) else value

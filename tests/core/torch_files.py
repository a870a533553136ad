"""PyTorch's files, valid and hostile, as PyTorch writes them: `python -m tests.core.torch_files
FOLDER`.

Below FOLDER: zip/ and before zip/ with NAME.pth.tar and reasons.json, script.pt, and
without_sums.pth.
"""

from __future__ import annotations

import argparse
import json
import sys
import warnings
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tests.core.hostile import MANY, Touch

WEIGHT = torch.arange(6.0).reshape(2, 3)


class Rebuilt:
    """A tensor of `shape` and `stride` on the four numbers of a storage."""

    def __init__(self, shape: tuple[int, ...], stride: tuple[int, ...]) -> None:
        self.shape, self.stride = shape, stride

    def __reduce__(self) -> tuple[Any, ...]:
        storage = torch.arange(4.0).storage()
        arguments = (storage, 0, self.shape, self.stride, False, OrderedDict())
        return torch._utils._rebuild_tensor_v2, arguments


def checkpoint() -> dict[str, Any]:
    """What training scripts save: half a dozen dtypes, an optimizer, numbers, arguments."""
    parameter = torch.nn.Parameter(WEIGHT.clone())
    optimizer = torch.optim.SGD([parameter], 0.1, momentum=0.9)
    parameter.sum().backward()
    optimizer.step()
    weights = OrderedDict(
        {
            "module.a.weight": WEIGHT,
            "module.half": WEIGHT.half(),
            "module.bfloat16": WEIGHT.bfloat16(),
            "module.double": WEIGHT.double(),
            "module.transposed": WEIGHT.T,
            "module.part": WEIGHT[1:],
            "module.tied": WEIGHT,
            "module.num_batches_tracked": torch.tensor(7),
            "module.mask": torch.tensor([True, False]),
            "module.empty": torch.zeros(0, 3),
        }
    )
    return {
        "epoch": 90,
        "arch": "resnet50",
        "state_dict": weights,
        "best_acc": np.float64(77.5),
        "best_loss": torch.tensor(0.5),
        "optimizer": optimizer.state_dict(),
        "args": argparse.Namespace(lr=0.1, nested=argparse.Namespace(arch="x")),
        "generator": np.array([[1, 2], [3, 4]]).T,
        "dtype": torch.float32,
        "scheduler": None,
    }


def nested(depth: int, of: Any, width: int = 2) -> Any:
    for _ in range(depth):
        of = [of] * width
    return of


def hostile(touched: Path) -> dict[str, tuple[Any, str]]:
    """What is wrong -> what is saved, and what must be said."""
    itself: list[Any] = []
    itself.append(itself)
    long = "k" * 10**6
    big = torch.zeros(10**6)
    return {
        "code": ({"a": WEIGHT, "b": Touch(touched)}, "holds code, posix.system, which is not run"),
        "a module": (
            torch.nn.Linear(2, 2),
            r"holds code, torch\.nn\.modules\.linear\.Linear.*torch\.save\(model\.state_dict",
        ),
        "an expanded number": (
            {"a": torch.zeros(1).expand(10**9)},
            r"claims the shape \(1000000000,\) in 4 bytes",
        ),
        "strides of nothing": ({"a": Rebuilt((1 << 40, 1 << 20), (0, 0))}, "claims the shape"),
        "a shape that overflows": ({"a": Rebuilt((1 << 62, 1 << 62), (1, 1))}, "not a readable"),
        "a negative shape": ({"a": Rebuilt((-4,), (1,))}, "not a readable"),
        "a shape beyond the storage": ({"a": Rebuilt((10**6,), (1,))}, "not a readable"),
        "a quantised tensor": (
            {"a": torch.quantize_per_tensor(WEIGHT, 0.1, 0, torch.qint8)},
            "holds a quantised tensor",
        ),
        "a sparse tensor": ({"a": WEIGHT.to_sparse()}, "holds a sparse_coo tensor"),
        "complex numbers": ({"a": WEIGHT.to(torch.complex64)}, "holds a complex tensor"),
        "no data": ({"a": WEIGHT.to("meta")}, "without data, on the device meta"),
        "one tensor": (WEIGHT, "it has no names"),
        "a set": ({"a": {1, 2}}, "'a' is a set, no array, number or text"),
        "a key that is no text": ({"a": {(1, 2): WEIGHT}}, "a key in 'a' is a tuple"),
        "a name twice": ({"a": {1: WEIGHT, "1": WEIGHT}}, "'a/1' is there twice"),
        "deep lists": ({"a": nested(100, 1, width=1)}, "nests more, or deeper"),
        "lists in itself": ({"a": itself}, "nests more, or deeper"),
        "a billion laughs": ({"a": nested(60, 1)}, "nests more, or deeper"),
        "a billion empty laughs": ({"a": nested(40, [], width=9)}, "nests more, or deeper"),
        "a billion tensors": ({"a": nested(60, WEIGHT)}, "nests more, or deeper"),
        "long names": ({long: {long: {str(n): 1 for n in range(99)}}}, "nests more, or deeper"),
        "one text very often": ({str(n): long for n in range(99)}, "nests more, or deeper"),
        "one tensor very often": (
            {str(n): big for n in range(3000)},
            "claims 12000000000 bytes of arrays",
        ),
        "one narrow tensor very often": (
            {str(n): tensor for tensor in [big.bfloat16()] for n in range(3000)},
            "not a readable",
        ),
        "10^5 tensors": ({str(n): WEIGHT for n in range(MANY)}, "100000 arrays, expected 1 to"),
    }


# How each of the two formats is asked for.
FORMATS = {"zip": True, "before zip": False}


def main(folder: Path) -> None:
    warnings.simplefilter("ignore")
    for form, is_zip in FORMATS.items():
        (folder / form).mkdir()
        objects = {"valid": (checkpoint(), "")} | hostile(folder / "touched")
        for name, (saved, _) in objects.items():
            path = folder / form / f"{name}.pth.tar"
            torch.save(saved, path, _use_new_zipfile_serialization=is_zip)
        reasons = {name: reason for name, (_, reason) in objects.items()}
        (folder / form / "reasons.json").write_text(json.dumps(reasons))
    torch.jit.save(torch.jit.script(torch.nn.Linear(2, 2)), folder / "script.pt")
    # Without check sums, so that a damaged file is read further than to the first of them.
    torch.serialization.set_crc32_options(False)
    torch.save(checkpoint(), folder / "without_sums.pth")


if __name__ == "__main__":
    main(Path(sys.argv[1]))

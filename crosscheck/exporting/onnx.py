"""ONNX, written by PyTorch and run by ONNX Runtime."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnxruntime
import torch

from cbam_core import Architecture, CBAMSpec
from crosscheck.exporting.formats import Run, axes_of
from crosscheck.exporting.torch_export import exported

# The first in which all reductions take their axes as an input, and the one that torch writes.
OPSET = 18


def write(
    described: CBAMSpec | Architecture, weights: Mapping[str, np.ndarray], path: Path
) -> None:
    """The block or network with canonical weights, in evaluation, for any batch and size.

    Pools over space and channels are reductions: none has a window of a fixed size.
    """
    batch, *space = axes_of(described)
    axes = {0: batch, **dict(enumerate(space, 2))}
    program = torch.onnx.export(
        exported(described, weights),
        dynamo=True,
        opset_version=OPSET,
        input_names=["x"],
        output_names=["y"],
        dynamic_shapes=(axes,),
        verbose=False,
    )
    assert program is not None
    program.save(path)


def load(path: Path) -> Run:
    """x (N, C, *S) -> y."""
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return lambda x: session.run(None, {"x": x})[0]

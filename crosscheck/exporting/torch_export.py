"""Programs of torch.export, written and run by PyTorch."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch

from cbam_core import Architecture, CBAMSpec
from cbam_torch import CBAM, Backbone, load_canonical
from crosscheck.exporting.formats import SIZE, Run, channels_of, rank_of


def write(
    described: CBAMSpec | Architecture, weights: Mapping[str, np.ndarray], path: Path
) -> None:
    """The block or network with canonical weights, in evaluation, for any batch and size."""
    with path.open("wb") as file:
        torch.export.save(exported(described, weights), file)


def exported(
    described: CBAMSpec | Architecture, weights: Mapping[str, np.ndarray]
) -> torch.export.ExportedProgram:
    """x (N, C, *S) -> y, with every axis but the channels dynamic."""
    module = (
        Backbone(described) if isinstance(described, Architecture) else CBAM.from_spec(described)
    )
    load_canonical(module, weights)
    rank = rank_of(described)
    example = torch.zeros(2, channels_of(described), *[SIZE[rank]] * rank)
    dynamic = dict.fromkeys((0, *range(2, rank + 2)), torch.export.Dim.DYNAMIC)
    # What is true of the example's sizes alone, that no map has one position say, would become a
    # condition of the program; torch.onnx traces so too.
    oblivious = torch.fx.experimental._config.patch(  # type: ignore[attr-defined]
        backed_size_oblivious=True
    )
    with oblivious:
        program = torch.export.export(module.eval(), (example,), dynamic_shapes=(dynamic,))
    # With it go conditions on the layout of maps in memory, which no value depends on.
    program.example_inputs = None
    return program


def load(path: Path) -> Run:
    """x (N, C, *S) -> y."""
    module = torch.export.load(path).module()
    return lambda x: module(torch.from_numpy(x)).detach().numpy()

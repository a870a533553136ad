"""Programs of torch.export, written and run by PyTorch."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch

from cbam_core import Architecture, CBAMSpec
from cbam_torch import CBAM, Backbone, load_canonical
from crosscheck.exporting.formats import Run, channels_of, rank_of

# Of the example with which the program is traced; the first sizes that are no special case.
BATCH, SIZE = 2, 64


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
    example = torch.zeros(BATCH, channels_of(described), *[SIZE >> rank] * rank)
    dynamic = dict.fromkeys((0, *range(2, rank + 2)), torch.export.Dim.DYNAMIC)
    return torch.export.export(module.eval(), (example,), dynamic_shapes=(dynamic,))


def load(path: Path) -> Run:
    """x (N, C, *S) -> y."""
    module = torch.export.load(path).module()
    return lambda x: module(torch.from_numpy(x)).detach().numpy()

"""The judge's side of an export: a process of the framework that writes the file."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from cbam_core import Architecture, CBAMSpec
from crosscheck.exporting.formats import FORMATS
from crosscheck.exporting.job import ExportJob
from crosscheck.process import Process


class ExportError(RuntimeError):
    """A framework could not write the file, and there is none."""


def export(
    described: CBAMSpec | Architecture,
    weights: Mapping[str, np.ndarray],
    form: str,
    target: Path,
) -> None:
    """Write a block or network in the format of that name to `target`, whole or not at all.

    Raises:
        ExportError: the framework could not write it.
        CrashedError: the framework's process ended early.
    """
    job = ExportJob("export", described, weights, target=target)
    with tempfile.TemporaryDirectory(prefix="cbam-export-") as name:
        folder = Path(name)
        (folder / "jobs").mkdir()
        job.write(folder / "jobs")
        process = Process(FORMATS[form].runtime, folder, "cpu", [job.name])
        try:
            ((_, _, facts),) = process.results()
        finally:
            process.stop()
    if "error" in facts:
        raise ExportError(f"{target} was not written: {facts['error']}")

"""A file to write and inputs to run it on, as they lie in a file between judge and worker."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from cbam_core import Architecture, CBAMSpec
from cbam_core.atomic import whole_file, whole_folder
from cbam_core.pullbacks import named, under
from crosscheck import exchange
from crosscheck.exporting.formats import FORMATS, Format
from crosscheck.frameworks import Framework

KINDS = {kind.__name__: kind for kind in (CBAMSpec, Architecture)}


@dataclass(frozen=True)
class ExportJob:
    """A block or network to write in the format of a runtime.

    Attributes:
        name: of the job's file.
        described: the block's spec, or the network's architecture.
        weights: canonical name -> array.
        inputs: name -> (N, *S, C), on which the written file is run.
        target: where the file stays; None is nowhere.
    """

    name: str
    described: CBAMSpec | Architecture
    weights: Mapping[str, np.ndarray]
    inputs: Mapping[str, np.ndarray] = field(default_factory=dict)
    target: Path | None = None
    fault: str = ""

    def write(self, folder: Path) -> None:
        arrays = {**named("weights", self.weights), **named("inputs", self.inputs)}
        facts = {
            "export": {type(self.described).__name__: self.described.to_dict()},
            "target": None if self.target is None else str(self.target.absolute()),
        }
        exchange.write(folder / self.name, arrays, facts)

    @classmethod
    def of(cls, name: str, arrays: exchange.Arrays, facts: dict[str, Any]) -> ExportJob:
        """The job of a file with these arrays and facts."""
        ((kind, fields),) = facts["export"].items()
        target = None if facts["target"] is None else Path(facts["target"])
        described = KINDS[kind].from_dict(fields)
        return cls(name, described, under("weights", arrays), under("inputs", arrays), target)

    def run(
        self, framework: Framework, device: str, fault: object
    ) -> tuple[dict[str, np.ndarray], str]:
        """ "output:NAME" of each input, channels last, and their dtype."""
        form = next(one for one in FORMATS.values() if one.runtime.name == framework.name)
        with self._written(form) as path:
            run = form.module.load(path) if self.inputs else None
            outputs = {f"output:{n}": _run(form, run, x) for n, x in self.inputs.items()}
        dtypes = {str(array.dtype) for array in outputs.values()}
        return outputs, ", ".join(sorted(dtypes))

    @contextlib.contextmanager
    def _written(self, form: Format) -> Iterator[Path]:
        """The path of the written file, which stays if it has a target: whole, or not at all."""
        with contextlib.ExitStack() as stack:
            if self.target is None:
                folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="cbam-export-"))
                path = Path(folder) / f"exported{form.suffix}"
            else:
                whole = whole_file if form.suffix else whole_folder
                path = stack.enter_context(whole(self.target))
            form.module.write(self.described, self.weights, path)
            yield path


def _run(form: Format, run: Any, x: np.ndarray) -> np.ndarray:
    arranged = np.moveaxis(x.astype(np.float32), -1, form.channel_axis)
    y = run(np.ascontiguousarray(arranged))
    return np.moveaxis(y, form.channel_axis, -1)

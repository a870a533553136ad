"""Weight files: canonical weights and their spec as one safetensors file."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import safetensors
import safetensors.numpy

from cbam_core.spec import CBAMSpec
from cbam_core.weights import as_canonical, check_weights

FORMAT = "1"


class CheckpointError(ValueError):
    """A file that holds no readable CBAM: the path, and why."""

    def __init__(self, path: os.PathLike[str] | str, reason: str) -> None:
        super().__init__(f"{os.fspath(path)}: {reason}")
        self.path, self.reason = Path(path), reason


@dataclass(frozen=True)
class Checkpoint:
    """What a weight file held: the dialect it was written in, the spec, canonical weights."""

    dialect: str
    spec: CBAMSpec
    weights: dict[str, np.ndarray]


def write(path: os.PathLike[str] | str, weights: Mapping[str, np.ndarray], spec: CBAMSpec) -> None:
    """Write canonical `weights` and `spec` as a safetensors file, whole or not at all.

    The file is written beside the target, synced and renamed, so that a reader, or a crash at any
    moment, finds the old file or the new one.

    Raises:
        ValueError: the weights are not those of the spec; nothing has been written.

    Example:
        >>> import tempfile, cbam_core
        >>> spec = cbam_core.CBAMSpec(64)
        >>> path = tempfile.mkdtemp() + "/block.safetensors"
        >>> cbam_core.write(path, cbam_core.initial_weights(spec), spec)
        >>> cbam_core.read(path).spec
        CBAMSpec(64)
    """
    check_weights(spec, weights)
    # safetensors writes an array's memory as it lies, so it must lie in row-major order.
    arrays = {name: np.ascontiguousarray(as_canonical(w)) for name, w in weights.items()}
    metadata = {"cbam_format": FORMAT, "spec": json.dumps(spec.to_dict())}
    content = safetensors.numpy.save(arrays, metadata)
    target = Path(path)
    handle, beside = tempfile.mkstemp(prefix=f".{target.name}.", dir=target.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fchmod(file.fileno(), _permissions(target))
            os.fsync(file.fileno())
        os.replace(beside, target)
    except BaseException:
        os.unlink(beside)
        raise


def read(path: os.PathLike[str] | str) -> Checkpoint:
    """Read a file that `write` wrote.

    Raises:
        FileNotFoundError: there is no such file.
        CheckpointError: the file is damaged, or is no canonical CBAM file.
    """
    if not Path(path).exists():
        raise FileNotFoundError(f"{os.fspath(path)}: no such file")
    if not Path(path).is_file():
        raise CheckpointError(path, "is no file; pass the path of a safetensors file")
    try:
        with safetensors.safe_open(path, framework="numpy") as file:
            metadata = file.metadata() or {}
            weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (safetensors.SafetensorError, AttributeError, TypeError, ValueError) as error:
        raise CheckpointError(path, f"is not a readable safetensors file ({error})") from error
    if metadata.get("cbam_format") != FORMAT:
        raise CheckpointError(
            path,
            f"has cbam_format={metadata.get('cbam_format')!r} in its metadata, expected "
            f"{FORMAT!r}; only files written by cbam_core.write are read",
        )
    try:
        fields = json.loads(metadata.get("spec", "null"))
        if not isinstance(fields, dict):
            raise ValueError("its metadata has no spec, which is a JSON object")
        spec = CBAMSpec.from_dict(fields)
        check_weights(spec, weights)
    except (TypeError, ValueError, RecursionError) as error:
        raise CheckpointError(path, f"holds no valid CBAM: {error}") from error
    return Checkpoint("canonical", spec, weights)


def _permissions(target: Path) -> int:
    """Those of the file that is replaced, or what a new file gets."""
    if target.exists():
        return target.stat().st_mode & 0o777
    umask = os.umask(0)
    os.umask(umask)
    return 0o666 & ~umask

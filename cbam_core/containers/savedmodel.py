"""TensorFlow's SavedModel: a folder with a program, which stays unread, and its variables."""

from __future__ import annotations

from pathlib import Path

from cbam_core.containers import tensorflow
from cbam_core.contents import Contents


def read(path: Path) -> Contents:
    return tensorflow.read_variables(path, path / "variables" / "variables.index")

"""SavedModels, written and run by TensorFlow."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import tensorflow as tf

from cbam_core import Architecture, CBAMSpec
from cbam_tf import CBAM, Backbone, load_canonical
from crosscheck.exporting.formats import Run, channels_of, rank_of


def write(
    described: CBAMSpec | Architecture, weights: Mapping[str, np.ndarray], path: Path
) -> None:
    """The block or network with canonical weights, in evaluation, for any batch and size.

    Its one function is `serve`, which is its default signature too.
    """
    module = served(described, weights)
    tf.saved_model.save(module, str(path), signatures=module.serve)


def served(described: CBAMSpec | Architecture, weights: Mapping[str, np.ndarray]) -> tf.Module:
    """A module with a function `serve`, x (N, *S, C) -> {"y": y}, of whatever batch and size."""
    module = (
        Backbone(described) if isinstance(described, Architecture) else CBAM.from_spec(described)
    )
    load_canonical(module, weights)
    shape = (*[None] * (rank_of(described) + 1), channels_of(described))
    signature = [tf.TensorSpec(shape, tf.float32, name="x")]
    module.serve = tf.function(lambda x: {"y": module(x)}, input_signature=signature)
    return module


def load(path: Path) -> Run:
    """x (N, *S, C) -> y, by the signature that a server calls."""
    serve = tf.saved_model.load(str(path)).signatures["serving_default"]
    return lambda x: serve(x=tf.constant(x))["y"].numpy()

"""LiteRT, formerly TensorFlow Lite: written by TensorFlow's converter, run by LiteRT."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import tensorflow as tf
from ai_edge_litert.interpreter import Interpreter

from cbam_core import Architecture, CBAMSpec
from cbam_tf.layers import Conv
from crosscheck.exporting.formats import Run
from crosscheck.exporting.savedmodel import served


def write(
    described: CBAMSpec | Architecture, weights: Mapping[str, np.ndarray], path: Path
) -> None:
    """The block or network with canonical weights, in evaluation, for any batch and size.

    All its operations are LiteRT's own: it needs no Flex delegate, which brings TensorFlow.
    """
    module = served(described, weights)
    with _batches_are_not_empty():
        function = module.serve.get_concrete_function()
    converter = tf.lite.TFLiteConverter.from_concrete_functions([function], module)
    path.write_bytes(converter.convert())


@contextlib.contextmanager
def _batches_are_not_empty() -> Iterator[None]:
    """Convolutions without their guard for a batch of 0.

    It pads by a number that is known when the graph runs, behind which LiteRT's converter knows no
    channels; and LiteRT takes no batch of 0.
    """
    guarded = Conv.__call__
    Conv.__call__ = Conv.convolve  # type: ignore[method-assign]
    try:
        yield
    finally:
        Conv.__call__ = guarded  # type: ignore[method-assign]


def load(path: Path) -> Run:
    """x (N, *S, C) -> y; the signature's runner resizes the input to x."""
    run = Interpreter(str(path)).get_signature_runner()
    return lambda x: run(x=x)["y"]

"""The registry of formats: one entry for each kind of file that `cbam export` writes."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType

import numpy as np

from cbam_core import Architecture, CBAMSpec
from crosscheck.frameworks import FRAMEWORKS, Framework

# A file that was loaded, for an input in the order of its axes.
Run = Callable[[np.ndarray], np.ndarray]

# Names of the axes of a map, by how many it has.
SPACE = {1: ("length",), 2: ("height", "width"), 3: ("depth", "height", "width")}
# The size on each of them in the code that is printed.
SIZE = {1: 1024, 2: 224, 3: 32}


@dataclass(frozen=True)
class Format:
    """A kind of file.

    Attributes:
        name: as `cbam export --to` takes it.
        about: what it is, for people.
        suffix: of the file's name; "" is a folder.
        channel_axis: of the input and of a map that is the output, 1 or -1.
        code: how a file is run, with {path} and {shape} to fill in.
        runtime: what runs it, in a process that the framework shares which writes it.
    """

    name: str
    about: str
    suffix: str
    channel_axis: int
    code: str
    runtime: Framework

    @property
    def module(self) -> ModuleType:
        """The file that knows the format: `write(described, weights, path)` and `load(path)`."""
        return importlib.import_module(f"{__package__}.{self.name.replace('-', '_')}")

    def arranged(self, channels_last: tuple[object, ...]) -> tuple[object, ...]:
        """(N, *S, C) in the order that the file's input has.

        >>> FORMATS["onnx"].arranged(("N", "H", "W", 3))
        ('N', 3, 'H', 'W')
        """
        batch, *space, channels = channels_last
        return (batch, channels, *space) if self.channel_axis == 1 else channels_last

    def code_for(self, path: str, described: CBAMSpec | Architecture) -> str:
        """Lines of Python that run the file at `path`."""
        rank = rank_of(described)
        shape = self.arranged((2, *[SIZE[rank]] * rank, channels_of(described)))
        return self.code.format(path=path, shape=", ".join(map(str, shape)))


def axes_of(described: CBAMSpec | Architecture) -> tuple[str, ...]:
    """Names of the axes of the input that may have any size.

    >>> axes_of(CBAMSpec(64))
    ('batch', 'height', 'width')
    """
    return ("batch", *SPACE[rank_of(described)])


def rank_of(described: CBAMSpec | Architecture) -> int:
    return 2 if isinstance(described, Architecture) else described.rank


def channels_of(described: CBAMSpec | Architecture) -> int:
    return 3 if isinstance(described, Architecture) else described.channels


def _runtime(name: str, writer: str, *requires: str) -> Framework:
    """A runtime in the process of the framework that writes for it, with plain operations alone."""
    framework = FRAMEWORKS[writer]
    return Framework(
        name,
        framework.package,
        (*framework.requires, *requires),
        f"{framework.extra},export" if requires else framework.extra,
        framework.library,
        environment={"CBAM_KERNELS": "off"},
    )


FORMATS = {
    one.name: one
    for one in (
        Format(
            "onnx",
            "ONNX, opset 18",
            ".onnx",
            1,
            """\
import numpy as np, onnxruntime
session = onnxruntime.InferenceSession({path!r})
x = np.zeros(({shape}), np.float32)
(y,) = session.run(None, {{"x": x}})
print(y.shape)""",
            _runtime("onnxruntime", "torch", "onnx", "onnxscript", "onnxruntime"),
        ),
        Format(
            "torch-export",
            "torch.export",
            ".pt2",
            1,
            """\
import torch
network = torch.export.load({path!r}).module()
x = torch.zeros({shape})
y = network(x)
print(tuple(y.shape))""",
            _runtime("torch-export", "torch"),
        ),
        Format(
            "savedmodel",
            "TensorFlow SavedModel",
            "",
            -1,
            """\
import tensorflow as tf
network = tf.saved_model.load({path!r})
x = tf.zeros(({shape}))
y = network.serve(x)["y"]
print(tuple(y.shape))""",
            _runtime("savedmodel", "tf"),
        ),
        Format(
            "tflite",
            "LiteRT, formerly TensorFlow Lite",
            ".tflite",
            -1,
            """\
import numpy as np
from ai_edge_litert.interpreter import Interpreter
network = Interpreter({path!r}).get_signature_runner()
y = network(x=np.zeros(({shape}), np.float32))["y"]
print(y.shape)""",
            _runtime("litert", "tf", "ai_edge_litert"),
        ),
        Format(
            "stablehlo",
            "StableHLO, as jax.export keeps it",
            ".stablehlo",
            -1,
            """\
import jax, jax.export, pathlib
network = jax.export.deserialize(pathlib.Path({path!r}).read_bytes())
x = jax.numpy.zeros(({shape}))
y = jax.jit(network.call)(x)
print(y.shape)""",
            _runtime("stablehlo", "flax"),
        ),
    )
}
# By the name that rows of `cbam check --exports` have.
RUNTIMES = {one.runtime.name: one.runtime for one in FORMATS.values()}

"""Recorded passes of public implementations, their weights mapped to canonical ones by hand."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cbam_core import CBAMSpec

FOLDER = Path(__file__).parent / "data" / "recorded"
Layout = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Recorded:
    """What an implementation computed, in canonical names and channels-last layout.

    Attributes:
        outputs: by mode, "eval" and "train".
        gradients: "grad:input" and "grad:NAME", of the last recorded mode.
        statistics: "state:NAME" after a training-mode pass, if it was recorded.
        limit: float64 cases agree to 1e-12, float32 ones to 1e-5.
    """

    spec: CBAMSpec
    weights: dict[str, np.ndarray]
    x: np.ndarray
    cotangent: np.ndarray
    outputs: dict[str, np.ndarray]
    gradients: dict[str, np.ndarray]
    statistics: dict[str, np.ndarray]
    limit: float


def same(array: np.ndarray) -> np.ndarray:
    return array


def linear(array: np.ndarray) -> np.ndarray:
    """PyTorch's (out, in), or (out, in, 1, 1), to (in, out)."""
    return array.reshape(array.shape[:2]).T


def pointwise(array: np.ndarray) -> np.ndarray:
    """A TensorFlow 1x1 convolution (1, 1, in, out) to (in, out)."""
    return array[0, 0]


def conv(array: np.ndarray) -> np.ndarray:
    """PyTorch's OIHW to HWIO."""
    return array.transpose(2, 3, 1, 0)


def conv_max_avg(array: np.ndarray) -> np.ndarray:
    """The same, of an implementation that concatenates [max, avg]."""
    return conv(array)[:, :, ::-1]


def _norm(prefix: str) -> dict[str, tuple[str, Layout]]:
    leaves = {"scale": "weight", "bias": "bias", "mean": "running_mean", "var": "running_var"}
    return {f"spatial.norm.{ours}": (f"{prefix}.{theirs}", same) for ours, theirs in leaves.items()}


def _mlp(
    first: str, second: str, layout: Layout, *, bias: bool, kernel: str = "weight", end: str = ""
) -> dict[str, tuple[str, Layout]]:
    names: dict[str, tuple[str, Layout]] = {}
    for ours, theirs in (("reduce", first), ("expand", second)):
        names[f"channel.{ours}.kernel"] = (f"{theirs}{kernel}{end}", layout)
        if bias:
            names[f"channel.{ours}.bias"] = (f"{theirs}bias{end}", same)
    return names


_OFFICIAL_MLP = _mlp("ChannelGate.mlp.1.", "ChannelGate.mlp.3.", linear, bias=True)
_OFFICIAL = (
    _OFFICIAL_MLP
    | {"spatial.conv.kernel": ("SpatialGate.spatial.conv.weight", conv_max_avg)}
    | _norm("SpatialGate.spatial.bn")
)
_TIMM = (
    _mlp("channel.fc1.", "channel.fc2.", linear, bias=False)
    | {"spatial.conv.kernel": ("spatial.conv.conv.weight", conv)}
    | _norm("spatial.conv.bn")
)
_KERAS = _mlp("dense/", "dense_1/", same, bias=True, kernel="kernel", end=":0") | {
    "spatial.conv.kernel": ("conv2d/kernel:0", same)
}

# Name -> (spec, canonical name -> (the owner's name, its layout to ours)).
CASES: dict[str, tuple[CBAMSpec, dict[str, tuple[str, Layout]]]] = {
    "official_default": (CBAMSpec.preset("official", 32, reduction=8), _OFFICIAL),
    "official_no_spatial": (CBAMSpec.preset("official_no_spatial", 32), _OFFICIAL_MLP),
    "official_lp_lse": (
        CBAMSpec.preset("official", 48, channel_pools=("avg", "max", "lp", "lse")),
        _OFFICIAL,
    ),
    "timm_cbam": (CBAMSpec.preset("timm", 32, reduction=8), _TIMM),
    "timm_light_cbam": (CBAMSpec.preset("timm_light", 32, reduction=8), _TIMM),
    "timm_se": (
        CBAMSpec.preset("timm_se", 32, hidden=8),
        _mlp("fc1.", "fc2.", linear, bias=True),
    ),
    "kobiso_tf1_cbam": (
        CBAMSpec.preset("kobiso", 32),
        _mlp("block1/ch_at/mlp_0/", "block1/ch_at/mlp_1/", same, bias=True, kernel="kernel")
        | {"spatial.conv.kernel": ("block1/sp_at/conv/kernel", same)},
    ),
    "kobiso_keras2_cbam": (CBAMSpec.preset("kobiso", 32), _KERAS),
    "seed_keras2_cbam_hard_sigmoid": (CBAMSpec.preset("keras", 32), _KERAS),
    "seed_tf1_cbam": (
        CBAMSpec.preset("seed_tf1", 32, reduction=4),
        _mlp("CA1/", "CA2/", pointwise, bias=True, kernel="kernel")
        | {
            "spatial.conv.kernel": ("conv2d/kernel", same),
            "spatial.conv.bias": ("conv2d/bias", same),
        },
    ),
}

NAMES = (*CASES, "luuuyi_basicblock")


def read(name: str) -> Recorded:
    """The recorded case `name`."""
    if name == "luuuyi_basicblock":
        return _read_residual_block()
    spec, names = CASES[name]
    data = load(name)
    is_float64 = data["eval_output"].dtype == np.float64
    image = _channels_last if is_float64 else same

    def named(folder: str, kind: str) -> dict[str, np.ndarray]:
        return {
            f"{kind}{ours}": layout(data[f"{folder}/{theirs}"]).astype(np.float64)
            for ours, (theirs, layout) in names.items()
            if f"{folder}/{theirs}" in data
        }

    outputs = {m: image(data[f"{m}_output"]) for m in ("eval", "train") if f"{m}_output" in data}
    return Recorded(
        spec,
        named("weights", ""),
        image(data["input"]).astype(np.float64),
        image(data["cotangent"]).astype(np.float64),
        outputs,
        {"grad:input": image(data["grad_input"])} | named("grad", "grad:"),
        named("after_train", "state:"),
        1e-12 if is_float64 else 1e-5,
    )


def _read_residual_block() -> Recorded:
    """The attention inside luuuyi's relu(CBAM(bn2(conv2(relu(bn1(conv1(x)))))) + x).

    The layers before it are computed here, and the block's recorded output and gradients are undone
    to the attention's own. Where the last relu cut the output off, its value is not recorded: NaN
    in `outputs`, 0 in the cotangent. The gradients recorded are those of the training pass.
    """
    data = load("luuuyi_basicblock")
    x = _channels_last(data["input"]).astype(np.float64)
    before = _before_the_attention(data, x)
    output = _channels_last(data["train_output"])
    dy = _channels_last(data["cotangent"]) * (output > 0)
    spec = CBAMSpec.preset("luuuyi", 64)
    layouts = {
        "channel.reduce.kernel": ("ca.fc.0.weight", linear),
        "channel.expand.kernel": ("ca.fc.2.weight", linear),
        "spatial.conv.kernel": ("sa.conv1.weight", conv),
    }
    weights = {n: f(data[f"weights/{k}"]).astype(np.float64) for n, (k, f) in layouts.items()}
    gradients = {f"grad:{n}": f(data[f"grad/{k}"]) for n, (k, f) in layouts.items()}
    outputs = {"train": np.where(output > 0, output - x, np.nan)}
    return Recorded(spec, weights, before, dy, outputs, gradients, {}, 1e-12)


def _before_the_attention(data: Mapping[str, np.ndarray], x: np.ndarray) -> np.ndarray:
    for layer in "12":
        x = _conv3x3(x, conv(data[f"weights/conv{layer}.weight"]).astype(np.float64))
        axes = (0, 1, 2)
        x = (x - x.mean(axes)) / np.sqrt(x.var(axes) + 1e-5)
        x = x * data[f"weights/bn{layer}.weight"] + data[f"weights/bn{layer}.bias"]
        x = np.maximum(x, 0.0) if layer == "1" else x
    return x


def _conv3x3(x: np.ndarray, kernel: np.ndarray) -> np.ndarray:
    padded = np.pad(x, [(0, 0), (1, 1), (1, 1), (0, 0)])
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), (1, 2))
    return np.einsum("nhwcij,ijco->nhwo", windows, kernel, optimize=True)


def load(name: str) -> dict[str, np.ndarray]:
    with np.load(FOLDER / f"{name}.npz") as file:
        return dict(file)


def _channels_last(array: np.ndarray) -> np.ndarray:
    return np.moveaxis(array, 1, -1)

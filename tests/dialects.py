"""A block in each dialect and spelling, mapped to canonical weights by hand: the tests' oracle.

Nothing here is taken from the tables of cbam_core.dialects.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from cbam_core import CBAMSpec
from tests.recorded import Layout, conv, conv_max_avg, linear, pointwise, same

C, H, K = 32, 4, 7

# Name in the file -> (shape, canonical name, layout to ours).
Names = dict[str, tuple[tuple[int, ...], str, Layout]]


@dataclass(frozen=True)
class Example:
    """A block as its owner's code writes it.

    Attributes:
        fields: of its spec, besides channels=32 and hidden=4.
        names: without a prefix.
        others: names of arrays that belong to it and are no weights.
        given: what a reader has to be told: a dialect, where several have such names.
    """

    dialect: str
    fields: dict
    names: Names
    others: tuple[str, ...] = ()
    given: str | None = None
    separator: str = "."

    @property
    def spec(self) -> CBAMSpec:
        return CBAMSpec(C, hidden=H, **self.fields)

    def arrays(self, prefix: str = "", seed: int = 0) -> dict[str, np.ndarray]:
        """Random float32 arrays, by their names below `prefix`."""
        rng = np.random.default_rng(seed)
        arrays = {
            prefix + name: rng.standard_normal(shape).astype(np.float32)
            for name, (shape, _, _) in self.names.items()
        }
        return arrays | {prefix + name: np.array(7) for name in self.others}

    def canonical(self, arrays: dict[str, np.ndarray], prefix: str = "") -> dict[str, np.ndarray]:
        return {
            ours: layout(arrays[prefix + name]) for name, (_, ours, layout) in self.names.items()
        }


def _mlp(first: str, second: str, layout: Layout, *, bias: bool, ends=("weight", "bias")) -> Names:
    kernels = {linear: ((H, C), (C, H)), same: ((C, H), (H, C))}
    kernels |= {_conv1x1: ((H, C, 1, 1), (C, H, 1, 1)), pointwise: ((1, 1, C, H), (1, 1, H, C))}
    names: Names = {}
    for ours, theirs, shape, width in zip(
        ("reduce", "expand"), (first, second), kernels[layout], (H, C), strict=True
    ):
        names[theirs + ends[0]] = (shape, f"channel.{ours}.kernel", layout)
        if bias:
            names[theirs + ends[1]] = ((width,), f"channel.{ours}.bias", same)
    return names


def _conv1x1(array: np.ndarray) -> np.ndarray:
    return linear(array)


def _same_max_avg(array: np.ndarray) -> np.ndarray:
    return array[:, :, ::-1]


def _conv(
    name: str, layout: Layout, *, bias: bool = False, maps: int = 2, ends=("weight", "bias")
) -> Names:
    shape = (K, K, maps, 1) if layout in (same, _same_max_avg) else (1, maps, K, K)
    names: Names = {name + ends[0]: (shape, "spatial.conv.kernel", layout)}
    return names | ({name + ends[1]: ((1,), "spatial.conv.bias", same)} if bias else {})


def _norm(name: str, leaves=("weight", "bias", "running_mean", "running_var")) -> Names:
    ours = ("scale", "bias", "mean", "var")
    return {
        name + theirs: ((1,), f"spatial.norm.{our}", same)
        for our, theirs in zip(ours, leaves, strict=True)
    }


_TF = ("kernel", "bias")
_VARS = ("vars/0", "vars/1")
_NORMED = {"mlp_bias": True, "spatial_norm": True}
_BIASED = {"mlp_bias": True, "spatial_bias": True}
_SE = {"channel_pools": ("avg",), "order": "channel"}
_KERAS_NORM = ("gamma", "beta", "moving_mean", "moving_variance")
_XMU = {"spatial_bias": True, "residual": True}

_TIMM = (
    _mlp("channel.fc1.", "channel.fc2.", _conv1x1, bias=False)
    | _conv("spatial.conv.conv.", conv)
    | _norm("spatial.conv.bn.")
)
_FC = _mlp("fc1.", "fc2.", _conv1x1, bias=False)
_BIASED_FC = _mlp("fc1.", "fc2.", _conv1x1, bias=True)
_KERAS = _mlp("dense/", "dense_1/", same, bias=True, ends=_TF) | _conv("conv2d/", same, ends=_TF)
_KERAS_3 = _mlp("layers/dense/", "layers/dense_1/", same, bias=True, ends=_VARS) | _conv(
    "layers/conv2d/", same, ends=_VARS
)

EXAMPLES = {
    "canonical": Example(
        "canonical",
        {**_BIASED, "spatial_norm": True},
        {
            "channel.reduce.kernel": ((C, H), "channel.reduce.kernel", same),
            "channel.reduce.bias": ((H,), "channel.reduce.bias", same),
            "channel.expand.kernel": ((H, C), "channel.expand.kernel", same),
            "channel.expand.bias": ((C,), "channel.expand.bias", same),
            "spatial.conv.kernel": ((K, K, 2, 1), "spatial.conv.kernel", same),
            "spatial.conv.bias": ((1,), "spatial.conv.bias", same),
        }
        | _norm("spatial.norm.", ("scale", "bias", "mean", "var")),
    ),
    "canonical, a convolution as the descriptor": Example(
        "canonical",
        {"spatial_descriptor": "conv"},
        {
            "channel.reduce.kernel": ((C, H), "channel.reduce.kernel", same),
            "channel.expand.kernel": ((H, C), "channel.expand.kernel", same),
            "spatial.squeeze.kernel": ((C, 1), "spatial.squeeze.kernel", same),
            "spatial.conv.kernel": ((K, K, 1, 1), "spatial.conv.kernel", same),
        },
    ),
    "cbam_torch": Example(
        "cbam_torch",
        {**_BIASED, "spatial_norm": True, "pooling": "light"},
        _mlp("channel.reduce.", "channel.expand.", linear, bias=True)
        | _conv("spatial.conv.", conv, bias=True, maps=1)
        | _norm("spatial.norm."),
        ("spatial.norm.num_batches_tracked",),
    ),
    "official": Example(
        "official",
        {**_NORMED, "norm_momentum": 0.01},
        _mlp("ChannelGate.mlp.1.", "ChannelGate.mlp.3.", linear, bias=True)
        | _conv("SpatialGate.spatial.conv.", conv_max_avg)
        | _norm("SpatialGate.spatial.bn."),
        ("SpatialGate.spatial.bn.num_batches_tracked",),
    ),
    "official, before PyTorch counted batches": Example(
        "official",
        {**_NORMED, "norm_momentum": 0.01},
        _mlp("ChannelGate.mlp.1.", "ChannelGate.mlp.3.", linear, bias=True)
        | _conv("SpatialGate.spatial.conv.", conv_max_avg)
        | _norm("SpatialGate.spatial.bn."),
    ),
    "official, no_spatial": Example(
        "official",
        {"mlp_bias": True, "order": "channel"},
        _mlp("ChannelGate.mlp.1.", "ChannelGate.mlp.3.", linear, bias=True),
    ),
    "osmr": Example(
        "osmr",
        _NORMED,
        _mlp("ch_gate.mlp.fc1.", "ch_gate.mlp.fc2.", linear, bias=True)
        | _conv("sp_gate.conv.conv.", conv_max_avg)
        | _norm("sp_gate.conv.bn."),
        ("sp_gate.conv.bn.num_batches_tracked",),
    ),
    "osmr, tf2cv": Example(
        "osmr",
        _NORMED,
        _mlp("ch_gate/mlp/fc1/", "ch_gate/mlp/fc2/", same, bias=True, ends=_TF)
        | _conv("sp_gate/conv/conv/conv/", _same_max_avg, ends=_TF)
        | _norm("sp_gate/conv/bn/", _KERAS_NORM),
        separator="/",
    ),
    "ugenteraan": Example(
        "ugenteraan",
        {**_NORMED, "norm_momentum": 0.01},
        _mlp(
            "channel_attention.shared_mlp.1.",
            "channel_attention.shared_mlp.3.",
            linear,
            bias=True,
        )
        | _conv("spatial_attention.spatial_attention.0.", conv_max_avg)
        | _norm("spatial_attention.spatial_attention.1."),
        ("spatial_attention.spatial_attention.1.num_batches_tracked",),
    ),
    "elbuco1": Example(
        "elbuco1",
        _BIASED,
        _mlp(
            "channel_attention.bottleneck.0.",
            "channel_attention.bottleneck.2.",
            linear,
            bias=True,
        )
        | _conv("spatial_attention.conv.", conv_max_avg, bias=True),
    ),
    "luuuyi": Example(
        "luuuyi",
        {},
        _mlp("ca.fc.0.", "ca.fc.2.", _conv1x1, bias=False) | _conv("sa.conv1.", conv),
    ),
    "luuuyi, older": Example(
        "luuuyi",
        {},
        _mlp("ca.fc1.", "ca.fc2.", _conv1x1, bias=False) | _conv("sa.conv1.", conv),
    ),
    "luuuyi, the channel gate": Example(
        "luuuyi", {"order": "channel"}, _mlp("ca.fc.0.", "ca.fc.2.", _conv1x1, bias=False)
    ),
    "luuuyi, the channel gate's module": Example(
        "luuuyi", {"order": "channel"}, _mlp("fc.0.", "fc.2.", _conv1x1, bias=False)
    ),
    "seed_torch, mlp": Example(
        "seed_torch",
        {},
        _mlp("ca.mlp.0.", "ca.mlp.2.", _conv1x1, bias=False) | _conv("sa.conv1.", conv),
    ),
    "seed_torch, conv1": Example(
        "seed_torch",
        {},
        _mlp("ca.conv1.", "ca.conv2.", _conv1x1, bias=False) | _conv("sa.conv1.", conv),
    ),
    "seed_torch, mlp in one module": Example(
        "seed_torch",
        {},
        _mlp("mlp.0.", "mlp.2.", _conv1x1, bias=False) | _conv("conv1.", conv),
    ),
    "seed_torch, fc1 in one module": Example("seed_torch", {}, _FC | _conv("conv1.", conv)),
    "seed_torch, the channel gate's mlp": Example(
        "seed_torch", {"order": "channel"}, _mlp("mlp.0.", "mlp.2.", _conv1x1, bias=False)
    ),
    "seed_torch, the channel gate's conv1": Example(
        "seed_torch", {"order": "channel"}, _mlp("conv1.", "conv2.", _conv1x1, bias=False)
    ),
    "seed_torch, the channel gate's fc1": Example(
        "seed_torch", {"order": "channel"}, _FC, given="seed_torch"
    ),
    "timm": Example(
        "timm", {"spatial_norm": True}, _TIMM, ("spatial.conv.bn.num_batches_tracked",)
    ),
    "timm, mlp_bias": Example(
        "timm",
        _NORMED,
        _mlp("channel.fc1.", "channel.fc2.", _conv1x1, bias=True)
        | _conv("spatial.conv.conv.", conv)
        | _norm("spatial.conv.bn."),
        ("spatial.conv.bn.num_batches_tracked",),
    ),
    "timm, ChannelAttn": Example("timm", {"order": "channel"}, _FC, given="timm"),
    "timm_light": Example(
        "timm_light",
        {"spatial_norm": True, "pooling": "light"},
        _mlp("channel.fc1.", "channel.fc2.", _conv1x1, bias=False)
        | _conv("spatial.conv.conv.", conv, maps=1)
        | _norm("spatial.conv.bn."),
        ("spatial.conv.bn.num_batches_tracked",),
    ),
    "timm_light, LightChannelAttn": Example(
        "timm_light",
        {"order": "channel", "pooling": "light", "mlp_bias": True},
        _BIASED_FC,
        given="timm_light",
    ),
    "mmyolo": Example(
        "mmyolo",
        _BIASED,
        _mlp("channel_attention.fc.0.conv.", "channel_attention.fc.1.conv.", _conv1x1, bias=True)
        | _conv("spatial_attention.conv.conv.", conv, bias=True),
    ),
    "xmu": Example(
        "xmu",
        _XMU,
        _mlp("ca.se.0.", "ca.se.2.", _conv1x1, bias=False)
        | _conv("sa.conv.", conv_max_avg, bias=True),
    ),
    "kobiso": Example(
        "kobiso",
        {"mlp_bias": True},
        _mlp("ch_at/mlp_0/", "ch_at/mlp_1/", same, bias=True, ends=_TF)
        | _conv("sp_at/conv/", same, ends=_TF),
        separator="/",
    ),
    "kobiso_keras": Example(
        "kobiso_keras", {"mlp_bias": True}, _KERAS, given="kobiso_keras", separator="/"
    ),
    "kobiso_keras, Keras 3": Example(
        "kobiso_keras", {"mlp_bias": True}, _KERAS_3, given="kobiso_keras", separator="/"
    ),
    "keras": Example(
        "keras",
        {"mlp_bias": True, "gate": "hard_sigmoid_keras2"},
        _KERAS,
        given="keras",
        separator="/",
    ),
    "seed_tf1": Example(
        "seed_tf1",
        _BIASED,
        _mlp("CA1/", "CA2/", pointwise, bias=True, ends=_TF)
        | _conv("conv2d/", same, bias=True, ends=_TF),
        separator="/",
    ),
    "k3_addons": Example(
        "k3_addons",
        _XMU,
        _mlp(
            "channel_attention/se/layers/conv2d/",
            "channel_attention/se/layers/conv2d_1/",
            pointwise,
            bias=False,
            ends=_VARS,
        )
        | _conv("spatial_attention/conv/", _same_max_avg, bias=True, ends=_VARS),
        separator="/",
    ),
    "k3_addons, by its variables": Example(
        "k3_addons",
        _XMU,
        _mlp(
            "channel_attention_1/sequential_1/conv2d_4/",
            "channel_attention_1/sequential_1/conv2d_5/",
            pointwise,
            bias=False,
            ends=_TF,
        )
        | _conv("spatial_attention_1/conv2d_3/", _same_max_avg, bias=True, ends=_TF),
        separator="/",
    ),
    "cbam_flax": Example(
        "cbam_flax",
        {},
        _mlp("ca/mlp/Conv_0/", "ca/mlp/Conv_1/", pointwise, bias=False, ends=_TF)
        | _conv("sa/Conv_0/", same, ends=_TF),
        separator="/",
    ),
    "kobiso_se": Example(
        "kobiso_se",
        {**_SE, "mlp_bias": True},
        _mlp("bottleneck_fc/", "recover_fc/", same, bias=True, ends=_TF),
        separator="/",
    ),
    "senet": Example("senet", _SE, _mlp("fc.0.", "fc.2.", linear, bias=False)),
    "timm_se": Example("timm_se", {**_SE, "mlp_bias": True}, _BIASED_FC, given="timm_se"),
    "torchvision_se": Example(
        "torchvision_se", {**_SE, "mlp_bias": True}, _BIASED_FC, given="torchvision_se"
    ),
}

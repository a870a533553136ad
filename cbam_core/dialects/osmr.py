"""Oleg Sémery's model zoos, https://github.com/osmr/imgclsmob: pytorchcv, gluoncv2 and tf2cv.

In tf2cv a convolution is wrapped twice, and its layers have Keras' names.
"""

from cbam_core.dialects.dialect import TENSORFLOW, VECTOR, Dialect, conv, mlp, torch_norm
from cbam_core.dialects.layouts import IN_OUT, OUT_IN
from cbam_core.spec import PRESETS

_KERAS_NORM = {"scale": "gamma", "bias": "beta", "mean": "moving_mean", "var": "moving_variance"}

OSMR = Dialect(
    name="osmr",
    about="pytorchcv, gluoncv2 and tf2cv",
    spellings=(
        mlp("ch_gate.mlp.fc1", "ch_gate.mlp.fc2", OUT_IN, bias=True)
        | conv("sp_gate.conv.conv")
        | torch_norm("sp_gate.conv.bn"),
        mlp("ch_gate/mlp/fc1", "ch_gate/mlp/fc2", IN_OUT, bias=True, ends=TENSORFLOW)
        | conv("sp_gate/conv/conv/conv", ends=TENSORFLOW)
        | {
            f"spatial.norm.{ours}": (f"sp_gate/conv/bn/{theirs}", VECTOR)
            for ours, theirs in _KERAS_NORM.items()
        },
    ),
    fields=PRESETS["osmr"],
    maps=("max", "avg"),
)

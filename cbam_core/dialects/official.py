"""The authors' PyTorch code, https://github.com/Jongchan/attention-module.

PytorchInsight has the same block. Its pools are an argument, and so is whether it has a spatial
gate (no_spatial).
"""

from cbam_core.dialects.dialect import Dialect, conv, mlp, torch_norm
from cbam_core.dialects.layouts import OUT_IN
from cbam_core.spec import PRESETS

OFFICIAL = Dialect(
    name="official",
    about="the authors' PyTorch code, and PytorchInsight",
    spellings=(
        mlp("ChannelGate.mlp.1", "ChannelGate.mlp.3", OUT_IN, bias=True)
        | conv("SpatialGate.spatial.conv")
        | torch_norm("SpatialGate.spatial.bn"),
    ),
    fields=PRESETS["official"],
    settable=("channel_pools",),
    alone=("channel",),
    maps=("max", "avg"),
)

"""https://github.com/elbuco1/CBAM, whose later commits have the channel gate alone."""

from cbam_core.dialects.dialect import Dialect, conv, mlp
from cbam_core.dialects.layouts import OUT_IN
from cbam_core.spec import PRESETS

ELBUCO1 = Dialect(
    name="elbuco1",
    about="elbuco1's PyTorch code",
    spellings=(
        mlp("channel_attention.bottleneck.0", "channel_attention.bottleneck.2", OUT_IN, bias=True)
        | conv("spatial_attention.conv", bias=True),
    ),
    fields=PRESETS["elbuco1"],
    alone=("channel",),
    maps=("max", "avg"),
)

"""timm's CbamModule and its two gates (timm/layers/cbam.py).

https://github.com/huggingface/pytorch-image-models
"""

from cbam_core.dialects.dialect import Dialect, conv, mlp, torch_norm
from cbam_core.dialects.layouts import OUT_IN_ONES
from cbam_core.spec import PRESETS

TIMM = Dialect(
    name="timm",
    about="timm's CbamModule, ChannelAttn and SpatialAttn",
    spellings=(
        mlp("channel.fc1", "channel.fc2", OUT_IN_ONES, bias=True)
        | conv("spatial.conv.conv")
        | torch_norm("spatial.conv.bn"),
    ),
    bare=(
        mlp("fc1", "fc2", OUT_IN_ONES, bias=True),
        conv("conv.conv") | torch_norm("conv.bn"),
    ),
    fields=PRESETS["timm"],
    settable=("gate",),
    optional=("mlp_bias",),
)

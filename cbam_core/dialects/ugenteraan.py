"""https://github.com/Ugenteraan/ResNet-50-CBAM-PyTorch, whose arguments are the authors'."""

from cbam_core.dialects.dialect import Dialect, conv, mlp, torch_norm
from cbam_core.dialects.layouts import OUT_IN
from cbam_core.spec import PRESETS

UGENTERAAN = Dialect(
    name="ugenteraan",
    about="Ugenteraan's ResNet-50 with CBAM in PyTorch",
    spellings=(
        mlp("channel_attention.shared_mlp.1", "channel_attention.shared_mlp.3", OUT_IN, bias=True)
        | conv("spatial_attention.spatial_attention.0")
        | torch_norm("spatial_attention.spatial_attention.1"),
    ),
    fields=PRESETS["ugenteraan"],
    settable=("channel_pools",),
    alone=("channel",),
    maps=("max", "avg"),
)

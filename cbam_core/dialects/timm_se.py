"""timm's squeeze-and-excitation (timm/layers/squeeze_excite.py).

Its names are also those of timm's ChannelAttn, which takes the maximum besides.
https://github.com/huggingface/pytorch-image-models
"""

from cbam_core.dialects.dialect import Dialect, mlp
from cbam_core.dialects.layouts import OUT_IN_ONES
from cbam_core.spec import PRESETS

TIMM_SE = Dialect(
    name="timm_se",
    about="timm's SEModule",
    bare=(mlp("fc1", "fc2", OUT_IN_ONES, bias=True),),
    fields=PRESETS["timm_se"],
    settable=("gate",),
    optional=("mlp_bias",),
)

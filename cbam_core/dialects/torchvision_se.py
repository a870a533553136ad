"""torchvision's squeeze-and-excitation (torchvision/ops/misc.py), with its default activations.

https://github.com/pytorch/vision
"""

from cbam_core.dialects.dialect import Dialect, mlp
from cbam_core.dialects.layouts import OUT_IN_ONES
from cbam_core.spec import PRESETS

TORCHVISION_SE = Dialect(
    name="torchvision_se",
    about="torchvision's SqueezeExcitation",
    bare=(mlp("fc1", "fc2", OUT_IN_ONES, bias=True),),
    fields=PRESETS["timm_se"],
    settable=("gate",),
)

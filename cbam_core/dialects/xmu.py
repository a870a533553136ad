"""xmu-xiaoma666's collection, https://github.com/xmu-xiaoma666/External-Attention-pytorch.

The block adds its input to its output, and its kernel size is 49 by default.
"""

from cbam_core.dialects.dialect import Dialect, conv, mlp
from cbam_core.dialects.layouts import OUT_IN_ONES
from cbam_core.spec import PRESETS

XMU = Dialect(
    name="xmu",
    about="xmu-xiaoma666's collection of attentions in PyTorch",
    spellings=(mlp("ca.se.0", "ca.se.2", OUT_IN_ONES, bias=False) | conv("sa.conv", bias=True),),
    fields=PRESETS["xmu"],
    maps=("max", "avg"),
)

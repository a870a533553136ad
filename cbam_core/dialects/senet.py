"""Squeeze-and-excitation in senet.pytorch, https://github.com/moskomule/senet.pytorch.

Articles have the same layer (Hu et al., https://arxiv.org/abs/1709.01507).
"""

from cbam_core.dialects.dialect import Dialect, mlp
from cbam_core.dialects.layouts import OUT_IN
from cbam_core.spec import PRESETS

SENET = Dialect(
    name="senet",
    about="the SELayer of senet.pytorch and of articles",
    bare=(mlp("fc.0", "fc.2", OUT_IN, bias=False),),
    fields=PRESETS["se"],
)

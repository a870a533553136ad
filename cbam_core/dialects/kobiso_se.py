"""The squeeze-and-excitation of kobiso's TensorFlow 1 code.

https://github.com/kobiso/CBAM-tensorflow
"""

from cbam_core.dialects.dialect import TENSORFLOW, Dialect, mlp
from cbam_core.dialects.layouts import IN_OUT
from cbam_core.spec import PRESETS

KOBISO_SE = Dialect(
    name="kobiso_se",
    about="the squeeze-and-excitation of kobiso's TensorFlow code",
    spellings=(mlp("bottleneck_fc", "recover_fc", IN_OUT, bias=True, ends=TENSORFLOW),),
    fields={**PRESETS["kobiso"], **PRESETS["se"]},
)

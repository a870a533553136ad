"""kobiso's TensorFlow 1 code, https://github.com/kobiso/CBAM-tensorflow, and its TF-slim copies."""

from cbam_core.dialects.dialect import TENSORFLOW, Dialect, conv, mlp
from cbam_core.dialects.layouts import IN_OUT
from cbam_core.spec import PRESETS

KOBISO = Dialect(
    name="kobiso",
    about="kobiso's TensorFlow code, and TF-slim's copies",
    spellings=(
        mlp("ch_at/mlp_0", "ch_at/mlp_1", IN_OUT, bias=True, ends=TENSORFLOW)
        | conv("sp_at/conv", ends=TENSORFLOW),
    ),
    fields=PRESETS["kobiso"],
)

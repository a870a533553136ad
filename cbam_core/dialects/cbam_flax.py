"""CBAM.Flax, linen modules, https://github.com/yongquan-qu/CBAM.Flax (not this project's)."""

from cbam_core.dialects.dialect import TENSORFLOW, Dialect, conv, mlp
from cbam_core.dialects.layouts import ONES_IN_OUT
from cbam_core.spec import PRESETS

CBAM_FLAX = Dialect(
    name="cbam_flax",
    about="CBAM.Flax, linen modules",
    spellings=(
        mlp("ca/mlp/Conv_0", "ca/mlp/Conv_1", ONES_IN_OUT, bias=False, ends=TENSORFLOW)
        | conv("sa/Conv_0", ends=TENSORFLOW),
    ),
    fields=PRESETS["cbam_flax"],
)

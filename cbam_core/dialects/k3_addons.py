"""The package k3-addons for Keras 3, https://pypi.org/project/k3-addons, after xmu's block."""

from cbam_core.dialects.dialect import KERAS_3, TENSORFLOW, Dialect, conv, mlp
from cbam_core.dialects.layouts import ONES_IN_OUT
from cbam_core.spec import PRESETS

_SE = "channel_attention/se/layers"
_AUTO = "channel_attention{_}/sequential{_}/conv2d{_}"

K3_ADDONS = Dialect(
    name="k3_addons",
    about="the package k3-addons for Keras 3",
    spellings=(
        mlp(f"{_SE}/conv2d", f"{_SE}/conv2d_1", ONES_IN_OUT, bias=False, ends=KERAS_3)
        | conv("spatial_attention/conv", bias=True, ends=KERAS_3),
        # As its variables are called, in files that do not follow the attributes.
        mlp(_AUTO, _AUTO, ONES_IN_OUT, bias=False, ends=TENSORFLOW)
        | conv("spatial_attention{_}/conv2d{_}", bias=True, ends=TENSORFLOW),
    ),
    fields=PRESETS["k3_addons"],
    maps=("max", "avg"),
)

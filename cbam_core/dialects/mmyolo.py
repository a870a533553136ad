"""MMYOLO's plugin (mmyolo/models/plugins/cbam.py), https://github.com/open-mmlab/mmyolo.

Its layers are MMCV's ConvModule, which has a bias wherever it has no norm.
"""

from cbam_core.dialects.dialect import Dialect, conv, mlp
from cbam_core.dialects.layouts import OUT_IN_ONES
from cbam_core.spec import PRESETS

MMYOLO = Dialect(
    name="mmyolo",
    about="MMYOLO's plugin",
    spellings=(
        mlp("channel_attention.fc.0.conv", "channel_attention.fc.1.conv", OUT_IN_ONES, bias=True)
        | conv("spatial_attention.conv.conv", bias=True),
    ),
    fields=PRESETS["mmyolo"],
)

"""timm's LightCbamModule and its two gates (timm/layers/cbam.py).

Their names are those of its CbamModule. They take the mean of the pools before the MLP and before
the convolution, which reads one map.
https://github.com/huggingface/pytorch-image-models
"""

from cbam_core.dialects.dialect import Dialect
from cbam_core.dialects.timm import TIMM
from cbam_core.spec import PRESETS

TIMM_LIGHT = Dialect(
    name="timm_light",
    about="timm's LightCbamModule, LightChannelAttn and LightSpatialAttn",
    spellings=TIMM.spellings,
    bare=TIMM.bare,
    fields=PRESETS["timm_light"],
    optional=TIMM.optional,
)

"""cbam_keras' SqueezeExcitation in files of Keras 3, as a layer of its own."""

from cbam_core.dialects.cbam_keras import channel
from cbam_core.dialects.dialect import Dialect

CBAM_KERAS_SE = Dialect(
    name="cbam_keras_se",
    about="cbam_keras' SqueezeExcitation, in files of Keras 3",
    bare=(channel(""),),
    fields={"channel_pools": ("avg",), "order": "channel"},
    settable=("gate",),
    optional=("mlp_bias",),
    alone=("channel",),
)

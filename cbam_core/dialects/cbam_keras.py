"""cbam_keras as Keras 3 writes it: by attribute, with a layer's variables numbered.

Keras 2's way of writing a Keras 3 model, and its SavedModel, have the canonical names.
"""

from cbam_core.dialects.canonical import OPTIONAL, SETTABLE
from cbam_core.dialects.dialect import IN_OUT, SPACE_IN_OUT, VECTOR, Dialect, Leaves


def _channel(prefix: str) -> Leaves:
    return {
        "channel.reduce.kernel": (f"{prefix}reduce/vars/0", IN_OUT),
        "channel.reduce.bias": (f"{prefix}reduce/vars/1", VECTOR),
        "channel.expand.kernel": (f"{prefix}expand/vars/0", IN_OUT),
        "channel.expand.bias": (f"{prefix}expand/vars/1", VECTOR),
    }


def _spatial(prefix: str) -> Leaves:
    return {
        "spatial.squeeze.kernel": (f"{prefix}squeeze/vars/0", IN_OUT),
        "spatial.conv.kernel": (f"{prefix}conv/vars/0", SPACE_IN_OUT),
        "spatial.conv.bias": (f"{prefix}conv/vars/1", VECTOR),
        "spatial.norm.scale": (f"{prefix}norm/vars/0", VECTOR),
        "spatial.norm.bias": (f"{prefix}norm/vars/1", VECTOR),
        "spatial.norm.mean": (f"{prefix}norm/vars/2", VECTOR),
        "spatial.norm.var": (f"{prefix}norm/vars/3", VECTOR),
    }


CBAM_KERAS = Dialect(
    name="cbam_keras",
    about="cbam_keras, in files of Keras 3",
    spellings=(
        {**_channel("channel/"), **_spatial("spatial/")},
        # ChannelAttention, SqueezeExcitation and SpatialAttention as layers of their own.
        _channel(""),
        _spatial(""),
    ),
    settable=SETTABLE,
    optional=OPTIONAL,
)

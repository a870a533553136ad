"""cbam_keras as Keras 3 writes it: by attribute, with a layer's variables numbered.

Keras 2's way of writing a Keras 3 model, and its SavedModel, have the canonical names.
"""

from cbam_core.dialects.canonical import ALONE, OPTIONAL, SETTABLE
from cbam_core.dialects.dialect import KERAS_3, VECTOR, Dialect, Leaves, conv, mlp
from cbam_core.dialects.layouts import IN_OUT


def _channel(prefix: str) -> Leaves:
    return mlp(f"{prefix}reduce", f"{prefix}expand", IN_OUT, bias=True, ends=KERAS_3)


def _spatial(prefix: str) -> Leaves:
    norm = enumerate(("scale", "bias", "mean", "var"))
    return {
        "spatial.squeeze.kernel": (f"{prefix}squeeze/vars/0", IN_OUT),
        **conv(f"{prefix}conv", bias=True, ends=KERAS_3),
        **{f"spatial.norm.{n}": (f"{prefix}norm/vars/{place}", VECTOR) for place, n in norm},
    }


CBAM_KERAS = Dialect(
    name="cbam_keras",
    about="cbam_keras, in files of Keras 3",
    spellings=({**_channel("channel/"), **_spatial("spatial/")},),
    # ChannelAttention, SqueezeExcitation and SpatialAttention as layers of their own.
    bare=(_channel(""), _spatial("")),
    settable=SETTABLE,
    optional=OPTIONAL,
    alone=ALONE,
)

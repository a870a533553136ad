"""cbam_keras in files of Keras 3, which follow the attributes and number a layer's variables.

Where Keras 3 writes as Keras 2 did, or as TensorFlow does, the names are the canonical ones.
"""

from cbam_core.dialects.canonical import ALONE, OPTIONAL, SETTABLE
from cbam_core.dialects.dialect import KERAS_3, VECTOR, Dialect, Leaves, conv, mlp
from cbam_core.dialects.layouts import IN_OUT


def channel(path: str) -> Leaves:
    return mlp(f"{path}reduce", f"{path}expand", IN_OUT, bias=True, ends=KERAS_3)


def _spatial(path: str) -> Leaves:
    return {
        "spatial.squeeze.kernel": (f"{path}squeeze/vars/0", IN_OUT),
        **conv(f"{path}conv", bias=True, ends=KERAS_3),
        "spatial.norm.scale": (f"{path}norm/vars/0", VECTOR),
        "spatial.norm.bias": (f"{path}norm/vars/1", VECTOR),
        "spatial.norm.mean": (f"{path}norm/vars/2", VECTOR),
        "spatial.norm.var": (f"{path}norm/vars/3", VECTOR),
    }


CBAM_KERAS = Dialect(
    name="cbam_keras",
    about="cbam_keras, in files of Keras 3",
    spellings=({**channel("channel/"), **_spatial("spatial/")},),
    # The gates as layers of their own.
    bare=(channel(""), _spatial("")),
    settable=SETTABLE,
    optional=OPTIONAL,
    alone=ALONE,
)

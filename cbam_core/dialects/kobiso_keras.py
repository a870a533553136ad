"""kobiso's Keras code, https://github.com/kobiso/CBAM-keras.

Its layers have the names that Keras gave them: dense, dense_1, conv2d, then dense_2, ...
"""

from cbam_core.dialects.dialect import KERAS_3, TENSORFLOW, Dialect, conv, mlp
from cbam_core.dialects.layouts import IN_OUT
from cbam_core.spec import PRESETS

KOBISO_KERAS = Dialect(
    name="kobiso_keras",
    about="kobiso's Keras code",
    spellings=(
        mlp("dense{_}", "dense{_}", IN_OUT, bias=True, ends=TENSORFLOW)
        | conv("conv2d{_}", ends=TENSORFLOW),
        # In the .weights.h5 of Keras 3.
        mlp("layers/dense{_}", "layers/dense{_}", IN_OUT, bias=True, ends=KERAS_3)
        | conv("layers/conv2d{_}", ends=KERAS_3),
    ),
    fields=PRESETS["kobiso"],
)

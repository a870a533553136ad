"""What Ultralytics calls CBAM (ultralytics/nn/modules/conv.py), a look-alike.

Its channel gate is one 1x1 convolution of the average: no maximum, and no hidden layer.
https://github.com/ultralytics/ultralytics
"""

from cbam_core.dialects.dialect import VECTOR, Dialect, conv
from cbam_core.dialects.layouts import OUT_IN_ONES

ULTRALYTICS = Dialect(
    name="ultralytics",
    about="the CBAM of Ultralytics",
    spellings=(
        {
            "channel.fc.kernel": ("channel_attention.fc.weight", OUT_IN_ONES),
            "channel.fc.bias": ("channel_attention.fc.bias", VECTOR),
        }
        | conv("spatial_attention.cv1"),
    ),
    lookalike="its channel gate takes the average pool alone through one layer, without the "
    "maximum and without the hidden layer of the paper's",
)

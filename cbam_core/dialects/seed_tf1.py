"""A TensorFlow 1 block of articles: CA1 and CA2 are 1x1 convolutions, the third has no name."""

from cbam_core.dialects.dialect import TENSORFLOW, Dialect, conv, mlp
from cbam_core.dialects.layouts import ONES_IN_OUT
from cbam_core.spec import PRESETS

SEED_TF1 = Dialect(
    name="seed_tf1",
    about="the TensorFlow 1 block of articles",
    spellings=(
        mlp("CA1", "CA2", ONES_IN_OUT, bias=True, ends=TENSORFLOW)
        | conv("conv2d{_}", bias=True, ends=TENSORFLOW),
    ),
    fields=PRESETS["seed_tf1"],
)

"""The PyTorch blocks of articles: an MLP of 1x1 convolutions under one of three pairs of names.

The gates are `ca` and `sa`, numbered where a network has several (ca0 after the stem, ca1 after
the last stage), or their layers stand in one module.
"""

from cbam_core.dialects.dialect import Dialect, conv, mlp
from cbam_core.dialects.layouts import OUT_IN_ONES

_PAIRS = (("mlp.0", "mlp.2"), ("conv1", "conv2"), ("fc1", "fc2"))

SEED_TORCH = Dialect(
    name="seed_torch",
    about="the PyTorch blocks of articles",
    spellings=tuple(
        mlp(f"ca{{n}}.{first}", f"ca{{n}}.{second}", OUT_IN_ONES, bias=False) | conv("sa{n}.conv1")
        for first, second in _PAIRS
    ),
    bare=(
        *(
            mlp(first, second, OUT_IN_ONES, bias=False) | conv("conv1")
            for first, second in _PAIRS
            if first != "conv1"
        ),
        *(mlp(first, second, OUT_IN_ONES, bias=False) for first, second in _PAIRS),
        conv("conv1"),
    ),
    alone=("channel", "spatial"),
)

"""The authors' PyTorch code, https://github.com/Jongchan/attention-module.

PytorchInsight has the same block.
"""

from cbam_core.dialects.dialect import OUT_IN, Dialect, mlp, torch_conv, torch_norm

OFFICIAL = Dialect(
    name="official",
    about="the authors' PyTorch code, and PytorchInsight",
    spellings=(
        mlp("ChannelGate.mlp.1", "ChannelGate.mlp.3", OUT_IN, bias=True)
        | torch_conv("SpatialGate.spatial.conv")
        | torch_norm("SpatialGate.spatial.bn"),
    ),
    fields={"norm_momentum": 0.01},
    settable=("channel_pools",),
    maps=("max", "avg"),
    counters=("SpatialGate.spatial.bn.num_batches_tracked",),
)

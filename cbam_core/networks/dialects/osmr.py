"""The CBAM-ResNets of pytorchcv, gluoncv2 and tf2cv, https://github.com/osmr/pytorchcv.

Its plain bottlenecks carry the stride on the 1x1 or on the 3x3 convolution under the same names;
those with a CBAM carry it on the 3x3.
"""

from cbam_core.networks.dialects.network_dialect import NetworkDialect

OSMR = NetworkDialect(
    name="osmr",
    about="pytorchcv's CBAM-ResNets",
    stem=("features.init_block.conv.conv", "features.init_block.conv.bn"),
    block="features.stage{stage}.unit{ordinal}",
    unit=("body.conv{unit}.conv", "body.conv{unit}.bn"),
    projection=("identity_conv.conv", "identity_conv.bn"),
    attention="cbam",
    head="output",
)

"""torchvision's ResNets, ResNeXts and Wide ResNets, https://github.com/pytorch/vision.

Most PyTorch code has their names. The attention that stands behind the stem and behind the last
stage leaves them all as they are, and is written as the first seed does, ca0, sa0, ca1 and sa1.
"""

from cbam_core.networks.dialects.network_dialect import NetworkDialect

TORCHVISION = NetworkDialect(
    name="torchvision",
    about="torchvision's ResNets",
    stem=("conv1", "bn1"),
    block="layer{stage}.{block}",
    unit=("conv{unit}", "bn{unit}"),
    projection=("downsample.0", "downsample.1"),
    head="fc",
)

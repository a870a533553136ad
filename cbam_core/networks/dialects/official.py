"""The authors' networks, https://github.com/Jongchan/attention-module, and PytorchInsight's."""

import dataclasses

from cbam_core.networks.dialects.torchvision import TORCHVISION

OFFICIAL = dataclasses.replace(
    TORCHVISION,
    name="official",
    about="the authors' networks, and PytorchInsight's",
    attention="cbam",
)

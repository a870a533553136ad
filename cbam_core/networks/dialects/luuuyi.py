"""luuuyi's networks, https://github.com/luuuyi/CBAM.PyTorch, with `ca` and `sa` in the block."""

import dataclasses

from cbam_core.networks.dialects.torchvision import TORCHVISION

LUUUYI = dataclasses.replace(
    TORCHVISION,
    name="luuuyi",
    about="luuuyi's networks",
    attention="",
)

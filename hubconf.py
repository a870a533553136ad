"""What `torch.hub.load` builds: the networks of cbam_torch, and its block.

    network = torch.hub.load("PATH/OF/A/CLONE", "resnet50", source="local", attention="cbam")

Arguments are those of the factories of cbam_torch, `weights=` among them.
"""

from cbam_torch import (
    CBAM,
    mobilenet,
    resnet18,
    resnet34,
    resnet50,
    resnet101,
    resnet152,
    resnext50_32x4d,
    resnext101_32x4d,
    wide_resnet18,
)

dependencies = ["torch", "numpy", "safetensors"]

__all__ = [
    "CBAM", "mobilenet", "resnet18", "resnet34", "resnet50", "resnet101", "resnet152",
    "resnext50_32x4d", "resnext101_32x4d", "wide_resnet18",
]  # fmt: skip

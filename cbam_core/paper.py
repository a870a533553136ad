"""Tables 3 and 4 of the CBAM paper: what it prints for each network on ImageNet.

Woo et al., https://arxiv.org/abs/1807.06521. Its bottlenecks have the stride in the first 1x1.
"""

from __future__ import annotations

from dataclasses import dataclass

from cbam_core.architectures import Architecture
from cbam_core.costs import flops, parameters


@dataclass(frozen=True)
class Printed:
    """What the paper prints for one network.

    Attributes:
        parameters, flops: in millions and in 10^9 multiply-adds on 224 x 224, as text.
        top1, top5: error in per cent, as text.
    """

    name: str
    attention: str | None
    widen: float
    parameters: str
    flops: str
    top1: str
    top5: str

    @property
    def architecture(self) -> Architecture:
        fields = {"attention": self.attention, "widen": self.widen, "stride_on": "1x1"}
        return Architecture.named(self.name, **fields)

    @property
    def computed(self) -> tuple[str, str]:
        """Parameters and flops as the architecture has them, rounded as the paper prints them."""
        architecture = self.architecture
        millions, billions = parameters(architecture) / 1e6, flops(architecture, 224, 224) / 1e9
        return f"{millions:.2f}", f"{billions:.3f}"

    @property
    def agrees(self) -> bool:
        return self.computed == (self.parameters, self.flops)

    @property
    def explained(self) -> str:
        """Why it does not agree, as far as that is known; else ""."""
        return EXPLAINED.get((self.name, self.widen, self.attention), "")


# name, widen -> what stands under base, + SE and + CBAM.
_TABLE = {
    ("resnet18", 1.0): (
        "11.69/1.814/29.60/10.55", "11.78/1.814/29.41/10.22", "11.78/1.815/29.27/10.09",
    ),
    ("resnet34", 1.0): (
        "21.80/3.664/26.69/8.60", "21.96/3.664/26.13/8.35", "21.96/3.665/25.99/8.24",
    ),
    ("resnet50", 1.0): (
        "25.56/3.858/24.56/7.50", "28.09/3.860/23.14/6.70", "28.09/3.864/22.66/6.31",
    ),
    ("resnet101", 1.0): (
        "44.55/7.570/23.38/6.88", "49.33/7.575/22.35/6.19", "49.33/7.581/21.51/5.69",
    ),
    ("wide_resnet18", 1.5): (
        "25.88/3.866/26.85/8.88", "26.07/3.867/26.21/8.47", "26.08/3.868/26.10/8.43",
    ),
    ("wide_resnet18", 2.0): (
        "45.62/6.696/25.63/8.20", "45.97/6.696/24.93/7.65", "45.97/6.697/24.84/7.63",
    ),
    ("resnext50_32x4d", 1.0): (
        "25.03/3.768/22.85/6.48", "27.56/3.771/21.91/6.04", "27.56/3.774/21.92/5.91",
    ),
    ("resnext101_32x4d", 1.0): (
        "44.18/7.508/21.54/5.75", "48.96/7.512/21.17/5.66", "48.96/7.519/21.07/5.59",
    ),
    ("mobilenet", 0.7): (
        "2.30/0.283/34.86/13.69", "2.71/0.283/32.50/12.49", "2.71/0.289/31.51/11.48",
    ),
    ("mobilenet", 1.0): (
        "4.23/0.569/31.39/11.51", "5.07/0.570/29.97/10.63", "5.07/0.576/29.01/9.99",
    ),
}  # fmt: skip

PRINTED = tuple(
    Printed(name, attention, widen, *text.split("/"))
    for (name, widen), row in _TABLE.items()
    for attention, text in zip((None, "se", "cbam"), row, strict=True)
)

EXPLAINED: dict[tuple[str, float, str | None], str] = {
    ("mobilenet", 0.7, "se"): (
        "with C/16 hidden units rounded down, as the released code has it, there are 2,704,661 "
        "parameters; rounded to nearest there would be 2,709,854, and all other figures stay"
    )
}

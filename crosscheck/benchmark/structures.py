"""PyTorch modules with the structure of the public CBAMs, written here to be measured beside ours.

Each has the operations, in their order, and the names of the weights of the implementation after
which it is called (docs/dialects.md); none of their code.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

KERNEL_SIZE, REDUCTION = 7, 16


class Official(nn.Module):
    """The authors': pools by windows of the map's size, the gate expanded over the map."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.ChannelGate = _OfficialChannelGate(channels)
        self.SpatialGate = _OfficialSpatialGate()

    def forward(self, x: Tensor) -> Tensor:
        return self.SpatialGate(self.ChannelGate(x))


class _OfficialChannelGate(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        hidden = channels // REDUCTION
        layers = (nn.Linear(channels, hidden), nn.ReLU(), nn.Linear(hidden, channels))
        self.mlp = nn.Sequential(nn.Flatten(), *layers)

    def forward(self, x: Tensor) -> Tensor:
        window = x.shape[2:]
        average = self.mlp(F.avg_pool2d(x, window, stride=window))
        maximum = self.mlp(F.max_pool2d(x, window, stride=window))
        gate = torch.sigmoid(average + maximum)
        return x * gate.unsqueeze(2).unsqueeze(3).expand_as(x)


class _OfficialSpatialGate(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.spatial = _ConvAndNorm(eps=1e-5, momentum=0.01)

    def forward(self, x: Tensor) -> Tensor:
        # The maximum with its index, whose gradient goes to one of the ties.
        maximum, average = torch.max(x, 1)[0].unsqueeze(1), torch.mean(x, 1).unsqueeze(1)
        return x * torch.sigmoid(self.spatial(torch.cat((maximum, average), dim=1)))


class Luuuyi(nn.Module):
    """luuuyi's, from which most detectors' are copied: adaptive pools, 1x1 convolutions."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.ca = _LuuuyiChannelGate(channels)
        self.sa = _LuuuyiSpatialGate()

    def forward(self, x: Tensor) -> Tensor:
        x = self.ca(x) * x
        return self.sa(x) * x


class _LuuuyiChannelGate(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.avg_pool, self.max_pool = nn.AdaptiveAvgPool2d(1), nn.AdaptiveMaxPool2d(1)
        reduce = nn.Conv2d(channels, channels // REDUCTION, 1, bias=False)
        expand = nn.Conv2d(channels // REDUCTION, channels, 1, bias=False)
        self.fc = nn.Sequential(reduce, nn.ReLU(), expand)

    def forward(self, x: Tensor) -> Tensor:
        return torch.sigmoid(self.fc(self.avg_pool(x)) + self.fc(self.max_pool(x)))


class _LuuuyiSpatialGate(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(2, 1, KERNEL_SIZE, padding=KERNEL_SIZE // 2, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        maximum, _ = torch.max(x, dim=1, keepdim=True)
        average = torch.mean(x, dim=1, keepdim=True)
        return torch.sigmoid(self.conv1(torch.cat([average, maximum], dim=1)))


class Timm(nn.Module):
    """timm's: reductions in place of pools, 1x1 convolutions, a batch norm."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.channel = _TimmChannelGate(channels)
        self.spatial = _TimmSpatialGate()

    def forward(self, x: Tensor) -> Tensor:
        return self.spatial(self.channel(x))


class _TimmChannelGate(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        hidden = max(1, int(channels / REDUCTION + 0.5))
        self.fc1 = nn.Conv2d(channels, hidden, 1, bias=False)
        self.fc2 = nn.Conv2d(hidden, channels, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        average, maximum = x.mean((2, 3), keepdim=True), x.amax((2, 3), keepdim=True)
        average = self.fc2(F.relu(self.fc1(average)))
        return x * torch.sigmoid(average + self.fc2(F.relu(self.fc1(maximum))))


class _TimmSpatialGate(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = _ConvAndNorm(eps=1e-5, momentum=0.1)

    def forward(self, x: Tensor) -> Tensor:
        maps = torch.cat([x.mean(1, keepdim=True), x.amax(1, keepdim=True)], dim=1)
        return x * torch.sigmoid(self.conv(maps))


class _ConvAndNorm(nn.Module):
    """A convolution of two maps to one, and a batch norm."""

    def __init__(self, *, eps: float, momentum: float) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 1, KERNEL_SIZE, padding=KERNEL_SIZE // 2, bias=False)
        self.bn = nn.BatchNorm2d(1, eps=eps, momentum=momentum)

    def forward(self, x: Tensor) -> Tensor:
        return self.bn(self.conv(x))


STRUCTURES: dict[str, type[nn.Module]] = {"official": Official, "luuuyi": Luuuyi, "timm": Timm}

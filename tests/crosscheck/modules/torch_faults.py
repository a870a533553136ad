"""PyTorch modules that look like a CBAM and are none: each has one fault that a copy may have."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn

from cbam_core import CBAMSpec
from tests.crosscheck.modules.torch_rows import (
    LuuuyiChannel,
    LuuuyiSpatial,
    Official,
    OtherNorm,
    TorchvisionSe,
    Xmu,
)


def mlp(channels, hidden, activation=nn.ReLU):
    return nn.Sequential(
        nn.Linear(channels, hidden, bias=False),
        activation(),
        nn.Linear(hidden, channels, bias=False),
    )


class Channel(nn.Module):
    """A channel gate of which parts can be replaced."""

    def __init__(self, channels=32, activation=nn.ReLU):
        super().__init__()
        self.mlp = mlp(channels, 4, activation)

    def pools(self, x):
        return x.mean((2, 3)), x.amax((2, 3))

    def logits(self, x):
        avg, largest = self.pools(x)
        return self.mlp(avg) + self.mlp(largest)

    def gate(self, logits):
        return torch.sigmoid(logits)

    def forward(self, x):
        return x * self.gate(self.logits(x))[..., None, None]


class Spatial(nn.Module):
    """A spatial gate of which parts can be replaced."""

    def __init__(self, norm=False, **options):
        super().__init__()
        self.conv = nn.Conv2d(2, 1, 3, padding=1, bias=not norm, **options)
        self.norm = nn.BatchNorm2d(1) if norm else nn.Identity()

    def maps(self, x):
        return x.mean(1), x.amax(1)

    def gate(self, logits):
        return torch.sigmoid(logits)

    def forward(self, x):
        return x * self.gate(self.norm(self.conv(torch.stack(self.maps(x), 1))))


class SpatialNeverApplied(nn.Module):
    """The spatial gate is computed, and the other variable returned."""

    def __init__(self):
        super().__init__()
        self.ca, self.sa = LuuuyiChannel(64), LuuuyiSpatial()

    def forward(self, x):
        refined = x * self.ca(x)
        refined * self.sa(refined)
        return refined


class ChannelNeverApplied(SpatialNeverApplied):
    def forward(self, x):
        self.ca(x)
        return x * self.sa(x)


class NeitherApplied(SpatialNeverApplied):
    def forward(self, x):
        return x


class Unshared(nn.Module):
    """An MLP for each pool."""

    def __init__(self, channels=32, hidden=4):
        super().__init__()
        self.avg_mlp, self.max_mlp = mlp(channels, hidden), mlp(channels, hidden)
        self.sa = LuuuyiSpatial(5)

    def forward(self, x):
        logits = self.avg_mlp(x.mean((2, 3))) + self.max_mlp(x.amax((2, 3)))
        x = x * logits.sigmoid()[..., None, None]
        return x * self.sa(x)


class HalfShared(Unshared):
    """The first layer is shared, the last is not."""

    def __init__(self):
        super().__init__()
        self.max_mlp[0] = self.avg_mlp[0]


class Ultralytics(nn.Module):
    """One square layer on the average, and the usual spatial gate."""

    def __init__(self, channels=32, kernel_size=7):
        super().__init__()
        self.channel_attention = nn.Module()
        self.channel_attention.fc = nn.Conv2d(channels, channels, 1, 1, 0, bias=True)
        self.spatial_attention = nn.Module()
        self.spatial_attention.cv1 = nn.Conv2d(2, 1, kernel_size, padding=3, bias=False)

    def forward(self, x):
        x = x * self.channel_attention.fc(F.adaptive_avg_pool2d(x, 1)).sigmoid()
        maps = torch.cat([x.mean(1, keepdim=True), x.max(1, keepdim=True)[0]], 1)
        return x * self.spatial_attention.cv1(maps).sigmoid()


class NoActivation(Channel):
    def __init__(self):
        super().__init__(activation=nn.Identity)


class UnknownActivation(Channel):
    def __init__(self):
        super().__init__(activation=nn.Softsign)


class SummedPools(Channel):
    def logits(self, x):
        return self.mlp(sum(self.pools(x)))


class AveragedLogits(Channel):
    def logits(self, x):
        return super().logits(x) / 2


class SumForMean(Channel):
    def pools(self, x):
        return x.sum((2, 3)), x.amax((2, 3))


class Corners(Channel):
    """Pools over the first rows alone."""

    def pools(self, x):
        return super().pools(x[:, :, :4])


class Variance(Channel):
    def pools(self, x):
        return x.mean((2, 3)), x.flatten(2).var(2)


class Tanh(Channel):
    def gate(self, logits):
        return torch.tanh(logits)


class Softmax(Channel):
    def gate(self, logits):
        return torch.softmax(logits, 1)


class UnknownGate(Channel):
    def gate(self, logits):
        return torch.sigmoid(logits) ** 3


class ApartGates(nn.Module):
    """A hard sigmoid for the channels, a sigmoid for the positions."""

    def __init__(self):
        super().__init__()
        self.ca, self.sa = Channel(), Spatial()
        self.ca.gate = F.hardsigmoid

    def forward(self, x):
        return self.sa(self.ca(x))


class SummedGates(nn.Module):
    def __init__(self):
        super().__init__()
        self.ca, self.sa = LuuuyiChannel(32), LuuuyiSpatial()

    def forward(self, x):
        return x * (self.ca(x) + self.sa(x))


class MixedOrder(SummedGates):
    """The spatial gate is seen by the channel gate, and the other way round."""

    def forward(self, x):
        return x * self.ca(x * self.sa(x)) * self.sa(x * self.ca(x))


class MaximumAlone(Spatial):
    def maps(self, x):
        return x.amax(1), x.amax(1)


class FirstChannel(Spatial):
    def maps(self, x):
        return x.mean(1), x[:, 0]


class ReluBeforeTheGate(Spatial):
    """A convolution block's default that the authors turn off."""

    def gate(self, logits):
        return torch.sigmoid(torch.relu(logits))


class SpatialTanh(Spatial):
    def gate(self, logits):
        return torch.tanh(logits)


class DarkSpatial(nn.Module):
    """A spatial gate that is 0 at rest hides the channel gate in front of it."""

    def __init__(self):
        super().__init__()
        self.ca, self.sa = Channel(), SpatialTanh()

    def forward(self, x):
        return self.sa(self.ca(x))


class DoubledChannel(DarkSpatial):
    """A double sigmoid for the channels, a sigmoid for the positions."""

    def __init__(self):
        super().__init__()
        self.sa = Spatial()
        self.ca.gate = lambda logits: 2 * torch.sigmoid(logits)


class LightChannel(DoubledChannel):
    """Light pooling in one of the gates."""

    def __init__(self):
        super().__init__()
        self.ca.gate = torch.sigmoid
        self.ca.logits = lambda x: self.ca.mlp(sum(self.ca.pools(x)) / 2)


class BatchStatistics(Spatial):
    """The norm is told that it is in training, whatever the module is."""

    def __init__(self):
        super().__init__(norm=True)

    def forward(self, x):
        y = self.conv(torch.stack(self.maps(x), 1))
        norm = self.norm
        statistics = (norm.running_mean, norm.running_var)
        y = F.batch_norm(y, *statistics, norm.weight, norm.bias, training=True)
        return x * self.gate(y)


class GateOfEachPool(Channel):
    def forward(self, x):
        gates = [torch.sigmoid(self.mlp(pool)) for pool in self.pools(x)]
        return x * (gates[0] * gates[1])[..., None, None]


class OneMap(Spatial):
    """A convolution of the maximum alone."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(1, 1, 3, padding=1)

    def maps(self, x):
        return (x.amax(1),)


class Extra(Channel):
    """A norm inside the MLP."""

    def __init__(self):
        super().__init__()
        self.mlp.insert(1, nn.BatchNorm1d(4))


class Detached(Channel):
    def gate(self, logits):
        return torch.sigmoid(logits).detach()


class Dropped(Channel):
    def gate(self, logits):
        return F.dropout(torch.sigmoid(logits), 0.5, self.training)


class Noisy(Channel):
    def gate(self, logits):
        return F.dropout(torch.sigmoid(logits), 0.5, True)


def frozen():
    """A norm that never leaves evaluation."""
    module = Official()
    norm = module.SpatialGate.spatial.bn
    norm.train = lambda mode=True: norm
    norm.training = False
    return module


SPATIAL = CBAMSpec(32, order="spatial", kernel_size=3, spatial_bias=True)
CHANNEL = CBAMSpec(32, hidden=4, order="channel")
NORMED = CBAMSpec(32, order="spatial", kernel_size=3, spatial_norm=True)


@dataclass(frozen=True)
class Fault:
    """A module, what is said of it, the first point at which it parts, and the nearest spec."""

    build: Callable[[], nn.Module]
    words: str
    point: str
    spec: CBAMSpec | None
    channels: int | None = None


FAULTS = {
    "spatial_never_applied": Fault(
        SpatialNeverApplied,
        "its spatial gate is never applied",
        "spatial gate",
        CBAMSpec(64, order="channel"),
    ),
    "channel_never_applied": Fault(
        ChannelNeverApplied,
        "its channel gate is never applied",
        "channel gate",
        CBAMSpec(64, order="spatial"),
    ),
    "neither_applied": Fault(
        NeitherApplied,
        "its channel gate is never applied; its spatial gate is never applied",
        "channel gate",
        None,
    ),
    "unshared": Fault(
        Unshared,
        "separate MLPs for avg and max",
        "hidden layer",
        CBAMSpec(32, hidden=4, kernel_size=5),
    ),
    "unshared_as_wide_as_deep": Fault(
        lambda: Unshared(8, 8),
        "separate MLPs for avg and max",
        "hidden layer",
        CBAMSpec(8, hidden=8, kernel_size=5),
    ),
    "half_shared": Fault(
        HalfShared,
        "separate last layers for avg and max",
        "hidden layer",
        CBAMSpec(32, hidden=4, kernel_size=5),
    ),
    "ultralytics": Fault(
        Ultralytics,
        "its channel gate has no hidden layer, and pools avg alone",
        "hidden layer",
        CBAMSpec(32, hidden=32, mlp_bias=True, channel_pools=("avg",)),
    ),
    "no_activation": Fault(
        NoActivation, "its hidden layer has no activation for relu", "hidden layer", CHANNEL
    ),
    "silu": Fault(
        lambda: Channel(activation=nn.SiLU),
        "its hidden layer has silu for relu",
        "hidden layer",
        CHANNEL,
    ),
    "unknown_activation": Fault(
        UnknownActivation,
        "its hidden layer is none that is known",
        "hidden layer",
        CHANNEL.replace(channel_pools=("avg",)),
    ),
    "summed_pools": Fault(
        SummedPools, "its pools are summed before the MLP", "channel descriptor", CHANNEL
    ),
    "averaged_logits": Fault(
        AveragedLogits,
        "it takes the mean of the pools' logits, not their sum",
        "channel gate",
        CHANNEL,
    ),
    "sum_for_mean": Fault(
        SumForMean, "its channel gate pools the sum and max", "channel descriptor", CHANNEL
    ),
    "corners": Fault(
        Corners,
        "its channel gate changes where the positions of the map change places",
        "channel descriptor",
        CHANNEL,
    ),
    "variance": Fault(
        Variance,
        "its channel gate changes where avg and max over the positions stay as they are",
        "channel descriptor",
        CHANNEL.replace(channel_pools=("avg",)),
    ),
    "tanh": Fault(Tanh, "its channel gate is tanh", "channel gate", CHANNEL),
    "softmax": Fault(Softmax, "its channel gate is softmax", "channel gate", CHANNEL),
    "unknown_gate": Fault(
        UnknownGate,
        "its channel gate is none of sigmoid, hard_sigmoid, hard_sigmoid_keras2, double_sigmoid",
        "channel gate",
        CHANNEL.replace(gate="hard_sigmoid"),
    ),
    "apart_gates": Fault(
        ApartGates,
        "its channel gate is hard_sigmoid, its spatial gate sigmoid",
        "spatial gate",
        CBAMSpec(32, hidden=4, kernel_size=3, spatial_bias=True),
    ),
    "summed_gates": Fault(
        SummedGates,
        "its channel gate g enters as 1 g + 0.5; its spatial gate g enters as 1 g + 0.5",
        "refined map",
        CBAMSpec(32),
    ),
    "mixed_order": Fault(
        MixedOrder,
        "both gates are a CBAM's, and what is made of them is not",
        "refined map",
        CBAMSpec(32),
    ),
    "maximum_alone": Fault(
        MaximumAlone,
        "its spatial gate reads max and max over the channels",
        "spatial descriptor",
        SPATIAL,
        32,
    ),
    "first_channel": Fault(
        FirstChannel,
        "its spatial gate changes where the channels of the map change places",
        "spatial descriptor",
        SPATIAL,
        32,
    ),
    "reflected": Fault(
        lambda: Spatial(padding_mode="reflect"),
        "its spatial gate pads with its own reflection, not with zeros",
        "spatial convolution",
        SPATIAL,
        32,
    ),
    "relu_before_the_gate": Fault(
        ReluBeforeTheGate,
        "its spatial gate has relu before the gate function",
        "spatial convolution",
        SPATIAL,
        32,
    ),
    "spatial_tanh": Fault(SpatialTanh, "its spatial gate is tanh", "spatial gate", SPATIAL, 32),
    "dark_spatial": Fault(
        DarkSpatial,
        "its spatial gate is tanh",
        "spatial gate",
        CBAMSpec(32, hidden=4, kernel_size=3, spatial_bias=True),
    ),
    "doubled_channel": Fault(
        DoubledChannel,
        "with all weights 0 it multiplies by 0.5, and two gates that are sigmoid by 0.25",
        "refined map",
        CBAMSpec(32, hidden=4, kernel_size=3, spatial_bias=True, order="parallel"),
    ),
    "light_channel": Fault(
        LightChannel,
        "one of its gates has light pooling, the other has not",
        "spatial descriptor",
        CBAMSpec(32, hidden=4, kernel_size=3, spatial_bias=True),
    ),
    "batch_statistics": Fault(
        BatchStatistics,
        "its norm takes the batch's statistics in evaluation, too",
        "spatial convolution",
        NORMED,
        32,
    ),
    "without_statistics": Fault(
        lambda: OtherNorm(track_running_stats=False),
        "its norm takes the batch's statistics in evaluation, too",
        "spatial convolution",
        CBAMSpec(32, mlp_bias=True, spatial_norm=True),
    ),
    "gate_of_each_pool": Fault(
        GateOfEachPool, "it multiplies the gates of the pools", "channel gate", CHANNEL
    ),
    "one_map": Fault(
        OneMap,
        "its spatial gate reads max over the channels",
        "spatial descriptor",
        SPATIAL.replace(pooling="light"),
        32,
    ),
    "extra": Fault(
        Extra,
        "no CBAM has, besides its weights, mlp.1.weight (4,), mlp.1.bias (4,), "
        "mlp.1.running_mean (4,), mlp.1.running_var (4,)",
        "weights",
        CHANNEL,
    ),
    "detached": Fault(
        Detached, "its gates pass no gradient to x", "gradient", CHANNEL
    ),
    "dropped": Fault(
        Dropped, "in training two passes over the same map differ", "training pass", CHANNEL
    ),
    "noisy": Fault(Noisy, "two passes over the same map differ", "refined map", None),
    "frozen": Fault(
        frozen,
        "in training its norm does not take the batch's statistics",
        "training pass",
        CBAMSpec(32, mlp_bias=True, spatial_norm=True),
    ),
    "tanh_se": Fault(
        lambda: TorchvisionSe(scale=nn.Tanh),
        "its channel gate is tanh",
        "channel gate",
        CBAMSpec(32, hidden=8, mlp_bias=True, channel_pools=("avg",), order="channel"),
    ),
    "with_relu": Fault(
        lambda: nn.Sequential(Xmu(32), nn.ReLU()),
        "with all weights 0 it returns no multiple of its input",
        "refined map",
        None,
    ),
    "no_attention": Fault(
        lambda: nn.Conv2d(32, 32, 3, padding=1),
        "no CBAM has such weights: weight (32, 32, 3, 3), bias (32,)",
        "weights",
        None,
        32,
    ),
    "another_width": Fault(
        lambda: nn.Conv2d(32, 16, 1),
        "it returns [(6, 16, 9, 11)] of a map (6, 32, 9, 11), neither a map nor a gate",
        "refined map",
        None,
    ),
}  # fmt: skip

"""Modules in the manner of the public PyTorch CBAMs: their names, layouts and ways to compute."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from cbam_core import CBAMSpec
from tests.crosscheck.modules import Row

FIRST = "first"
EVENLY = "even"


class OfficialChannel(nn.Module):
    """One pool after the other, each a window as large as the map, through one flat MLP."""

    def __init__(self, channels, ratio, pools):
        super().__init__()
        hidden = channels // ratio
        layers = (nn.Linear(channels, hidden), nn.ReLU(), nn.Linear(hidden, channels))
        self.mlp = nn.Sequential(nn.Flatten(), *layers)
        self.pools = pools

    def forward(self, x):
        window = x.shape[2:]
        flat = x.flatten(2)
        pool = {
            "avg": lambda: F.avg_pool2d(x, window, stride=window),
            "max": lambda: F.max_pool2d(x, window, stride=window),
            "lp": lambda: F.lp_pool2d(x, 2, window, stride=window),
            "lse": lambda: flat.logsumexp(2, keepdim=True),
        }
        total = None
        for name in self.pools:
            logits = self.mlp(pool[name]())
            total = logits if total is None else total + logits
        return x * torch.sigmoid(total)[:, :, None, None].expand_as(x)


class OfficialConv(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(2, 1, 7, padding=3, bias=False)
        self.bn = nn.BatchNorm2d(1, eps=1e-5, momentum=0.01)

    def forward(self, x):
        return self.bn(self.conv(x))


class OfficialSpatial(nn.Module):
    def __init__(self):
        super().__init__()
        self.spatial = OfficialConv()

    def forward(self, x):
        pooled = torch.cat([x.max(1)[0].unsqueeze(1), x.mean(1).unsqueeze(1)], 1)
        return x * torch.sigmoid(self.spatial(pooled))


class Official(nn.Module):
    """The authors' code, and PytorchInsight's."""

    def __init__(self, channels=32, ratio=16, pools=("avg", "max"), spatial=True):
        super().__init__()
        self.ChannelGate = OfficialChannel(channels, ratio, pools)
        if spatial:
            self.SpatialGate = OfficialSpatial()

    def forward(self, x):
        x = self.ChannelGate(x)
        return self.SpatialGate(x) if hasattr(self, "SpatialGate") else x


class OsmrMlp(nn.Module):
    def __init__(self, channels, hidden):
        super().__init__()
        self.flatten = nn.Flatten()
        self.fc1 = nn.Linear(channels, hidden)
        self.activ = nn.ReLU(inplace=True)
        self.fc2 = nn.Linear(hidden, channels)

    def forward(self, x):
        return self.fc2(self.activ(self.fc1(self.flatten(x))))


class OsmrChannel(nn.Module):
    def __init__(self, channels, hidden):
        super().__init__()
        self.avg_pool = nn.AdaptiveAvgPool2d(1)
        self.max_pool = nn.AdaptiveMaxPool2d(1)
        self.mlp = OsmrMlp(channels, hidden)
        self.sigmoid = nn.Sigmoid()

    def forward(self, x):
        gate = self.sigmoid(self.mlp(self.avg_pool(x)) + self.mlp(self.max_pool(x)))
        return gate.unsqueeze(2).unsqueeze(3).expand_as(x) * x


class OsmrConv(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(2, 1, 7, padding=3, bias=False)
        self.bn = nn.BatchNorm2d(1)

    def forward(self, x):
        return self.bn(self.conv(x))


class OsmrSpatial(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = OsmrConv()

    def forward(self, x):
        maps = torch.cat((x.max(dim=1)[0].unsqueeze(1), x.mean(dim=1).unsqueeze(1)), dim=1)
        return torch.sigmoid(self.conv(maps)) * x


class Osmr(nn.Module):
    """pytorchcv's, which is gluoncv2's and tf2cv's, too."""

    def __init__(self, channels=32, hidden=2):
        super().__init__()
        self.ch_gate = OsmrChannel(channels, hidden)
        self.sp_gate = OsmrSpatial()

    def forward(self, x):
        return self.sp_gate(self.ch_gate(x))


class UgenteraanChannel(nn.Module):
    def __init__(self, channels, hidden):
        super().__init__()
        layers = (nn.Linear(channels, hidden), nn.ReLU(), nn.Linear(hidden, channels))
        self.shared_mlp = nn.Sequential(nn.Flatten(), *layers)

    def forward(self, x):
        size = x.shape[2:]
        both = F.avg_pool2d(x, size), F.max_pool2d(x, size)
        return x * torch.sigmoid(sum(map(self.shared_mlp, both)))[..., None, None]


class UgenteraanSpatial(nn.Module):
    def __init__(self):
        super().__init__()
        self.spatial_attention = nn.Sequential(
            nn.Conv2d(2, 1, 7, padding=3, bias=False), nn.BatchNorm2d(1, momentum=0.01)
        )

    def forward(self, x):
        maps = torch.stack([x.max(1).values, x.mean(1)], 1)
        return x * torch.sigmoid(self.spatial_attention(maps))


class Ugenteraan(nn.Module):
    def __init__(self, channels=32, hidden=2):
        super().__init__()
        self.channel_attention = UgenteraanChannel(channels, hidden)
        self.spatial_attention = UgenteraanSpatial()

    def forward(self, x):
        return self.spatial_attention(self.channel_attention(x))


class ElbucoChannel(nn.Module):
    def __init__(self, channels, ratio):
        super().__init__()
        hidden = int(channels / ratio)
        self.bottleneck = nn.Sequential(
            nn.Linear(channels, hidden), nn.ReLU(), nn.Linear(hidden, channels)
        )

    def forward(self, x):
        gate = torch.sigmoid(self.bottleneck(x.mean((2, 3))) + self.bottleneck(x.amax((2, 3))))
        return gate.view(*gate.shape, 1, 1) * x


class ElbucoSpatial(nn.Module):
    def __init__(self, kernel_size):
        super().__init__()
        self.conv = nn.Conv2d(2, 1, kernel_size, padding=kernel_size // 2)

    def forward(self, x):
        maps = torch.cat([x.amax(1, keepdim=True), x.mean(1, keepdim=True)], 1)
        return torch.sigmoid(self.conv(maps)) * x


class Elbuco1(nn.Module):
    def __init__(self, channels=24, ratio=4, kernel_size=5):
        super().__init__()
        self.channel_attention = ElbucoChannel(channels, ratio)
        self.spatial_attention = ElbucoSpatial(kernel_size)

    def forward(self, x):
        return self.spatial_attention(self.channel_attention(x))


class LuuuyiChannel(nn.Module):
    """Returns the gate; its ratio is ignored."""

    def __init__(self, planes, ratio=16):
        super().__init__()
        self.avg_pool, self.max_pool = nn.AdaptiveAvgPool2d(1), nn.AdaptiveMaxPool2d(1)
        self.fc = nn.Sequential(
            nn.Conv2d(planes, planes // 16, 1, bias=False),
            nn.ReLU(),
            nn.Conv2d(planes // 16, planes, 1, bias=False),
        )

    def forward(self, x):
        return torch.sigmoid(self.fc(self.avg_pool(x)) + self.fc(self.max_pool(x)))


class OldLuuuyiChannel(nn.Module):
    """Two layers by name, as most detectors carry it."""

    def __init__(self, planes, ratio=16):
        super().__init__()
        self.ratio = ratio
        self.fc1 = nn.Conv2d(planes, planes // 16, 1, bias=False)
        self.relu1 = nn.ReLU()
        self.fc2 = nn.Conv2d(planes // 16, planes, 1, bias=False)

    def forward(self, x):
        avg = self.fc2(self.relu1(self.fc1(F.adaptive_avg_pool2d(x, 1))))
        largest = self.fc2(self.relu1(self.fc1(F.adaptive_max_pool2d(x, 1))))
        return torch.sigmoid(avg + largest)


class LuuuyiSpatial(nn.Module):
    """Returns the gate."""

    def __init__(self, kernel_size=7):
        super().__init__()
        self.conv1 = nn.Conv2d(2, 1, kernel_size, padding=kernel_size // 2, bias=False)
        self.sigmoid = nn.Sigmoid()

    def forward(self, x):
        largest, _ = torch.max(x, dim=1, keepdim=True)
        return self.sigmoid(self.conv1(torch.cat([x.mean(1, keepdim=True), largest], dim=1)))


class Luuuyi(nn.Module):
    """Both gates, applied where a residual block would apply them."""

    def __init__(self, planes=64, channel=LuuuyiChannel, kernel_size=7):
        super().__init__()
        self.ca, self.sa = channel(planes, 4), LuuuyiSpatial(kernel_size)

    def forward(self, x):
        x = self.ca(x) * x
        return self.sa(x) * x


class SeedChannel(nn.Module):
    """An article's channel gate: the maximum through a view, an MLP of 1x1 convolutions."""

    def __init__(self, channels=32, reduction=16):
        super().__init__()
        hidden = channels // reduction
        self.mlp = nn.Sequential(
            nn.Conv2d(channels, hidden, 1, bias=False),
            nn.ReLU(inplace=True),
            nn.Conv2d(hidden, channels, 1, bias=False),
        )

    def forward(self, x):
        flat = x.view(*x.shape[:2], -1)
        pools = flat.mean(-1, keepdim=True)[..., None], flat.max(-1, keepdim=True)[0][..., None]
        return self.mlp(pools[0]).add(self.mlp(pools[1])).sigmoid() * x


class SeedCbam(nn.Module):
    """One class for both gates."""

    def __init__(self, channels=32, reduction=16, kernel_size=3):
        super().__init__()
        self.fc1 = nn.Conv2d(channels, channels // reduction, 1, bias=False)
        self.fc2 = nn.Conv2d(channels // reduction, channels, 1, bias=False)
        self.conv1 = nn.Conv2d(2, 1, kernel_size, padding=kernel_size // 2, bias=False)

    def forward(self, x):
        pools = F.adaptive_avg_pool2d(x, 1), F.adaptive_max_pool2d(x, 1)
        x = x * sum(self.fc2(F.relu(self.fc1(pool))) for pool in pools).sigmoid()
        maps = torch.cat((x.mean(1, True), x.max(1, True)[0]), 1)
        return x * self.conv1(maps).sigmoid()


class TimmChannel(nn.Module):
    def __init__(self, channels, hidden, light, bias):
        super().__init__()
        self.light = light
        self.fc1 = nn.Conv2d(channels, hidden, 1, bias=bias)
        self.fc2 = nn.Conv2d(hidden, channels, 1, bias=bias)

    def forward(self, x):
        avg, largest = x.mean((2, 3), keepdim=True), x.amax((2, 3), keepdim=True)
        pools = (0.5 * avg + 0.5 * largest,) if self.light else (avg, largest)
        return x * F.sigmoid(sum(self.fc2(F.relu(self.fc1(pool))) for pool in pools))


class TimmConv(nn.Module):
    def __init__(self, maps):
        super().__init__()
        self.conv = nn.Conv2d(maps, 1, 7, padding=3, bias=False)
        self.bn = nn.BatchNorm2d(1)

    def forward(self, x):
        return self.bn(self.conv(x))


class TimmSpatial(nn.Module):
    def __init__(self, light):
        super().__init__()
        self.light = light
        self.conv = TimmConv(1 if light else 2)

    def forward(self, x):
        avg, largest = x.mean(1, keepdim=True), x.amax(1, keepdim=True)
        maps = 0.5 * avg + 0.5 * largest if self.light else torch.cat([avg, largest], 1)
        return x * F.sigmoid(self.conv(maps))


class Timm(nn.Module):
    """CbamModule, and LightCbamModule."""

    def __init__(self, channels=40, light=False, bias=False):
        super().__init__()
        hidden = max(1, int(channels / 16 + 0.5))
        self.channel = TimmChannel(channels, hidden, light, bias)
        self.spatial = TimmSpatial(light)

    def forward(self, x):
        return self.spatial(self.channel(x))


class ConvModule(nn.Module):
    """OpenMMLab's convolution with an activation."""

    def __init__(self, inputs, outputs, size, act):
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, size, padding=size // 2)
        self.act = act

    def forward(self, x):
        return self.act(self.conv(x))


class MmyoloChannel(nn.Module):
    def __init__(self, channels, ratio):
        super().__init__()
        hidden = int(channels / ratio)
        self.fc = nn.Sequential(
            ConvModule(channels, hidden, 1, nn.ReLU()),
            ConvModule(hidden, channels, 1, nn.Identity()),
        )

    def forward(self, x):
        pools = F.adaptive_avg_pool2d(x, 1), F.adaptive_max_pool2d(x, 1)
        return torch.sigmoid(self.fc(pools[0]) + self.fc(pools[1]))


class MmyoloSpatial(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = ConvModule(2, 1, 7, nn.Sigmoid())

    def forward(self, x):
        return self.conv(torch.cat([x.mean(1, keepdim=True), x.max(1, keepdim=True)[0]], 1))


class Mmyolo(nn.Module):
    def __init__(self, channels=32, reduce_ratio=16):
        super().__init__()
        self.channel_attention = MmyoloChannel(channels, reduce_ratio)
        self.spatial_attention = MmyoloSpatial()

    def forward(self, x):
        x = self.channel_attention(x) * x
        return self.spatial_attention(x) * x


class XmuChannel(nn.Module):
    def __init__(self, channel, reduction):
        super().__init__()
        self.maxpool, self.avgpool = nn.AdaptiveMaxPool2d(1), nn.AdaptiveAvgPool2d(1)
        self.se = nn.Sequential(
            nn.Conv2d(channel, channel // reduction, 1, bias=False),
            nn.ReLU(),
            nn.Conv2d(channel // reduction, channel, 1, bias=False),
        )

    def forward(self, x):
        return torch.sigmoid(self.se(self.maxpool(x)) + self.se(self.avgpool(x)))


class XmuSpatial(nn.Module):
    def __init__(self, kernel_size):
        super().__init__()
        self.conv = nn.Conv2d(2, 1, kernel_size, padding=kernel_size // 2)

    def forward(self, x):
        largest, _ = x.max(1, keepdim=True)
        return torch.sigmoid(self.conv(torch.cat([largest, x.mean(1, keepdim=True)], 1)))


class Xmu(nn.Module):
    """The kernel is larger than the maps, and the input is added back."""

    def __init__(self, channel=32, reduction=16, kernel_size=49):
        super().__init__()
        self.ca, self.sa = XmuChannel(channel, reduction), XmuSpatial(kernel_size)

    def forward(self, x):
        out = x * self.ca(x)
        return out * self.sa(out) + x


class SeLayer(nn.Module):
    """senet.pytorch's."""

    def __init__(self, channel=32, reduction=16):
        super().__init__()
        self.avg_pool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Sequential(
            nn.Linear(channel, channel // reduction, bias=False),
            nn.ReLU(inplace=True),
            nn.Linear(channel // reduction, channel, bias=False),
            nn.Sigmoid(),
        )

    def forward(self, x):
        batch, channels, _, _ = x.size()
        y = self.fc(self.avg_pool(x).view(batch, channels)).view(batch, channels, 1, 1)
        return x * y.expand_as(x)


class TorchvisionSe(nn.Module):
    """Also timm's SEModule, by another name of the pool."""

    def __init__(self, channels=32, squeeze=8, activation=nn.ReLU, scale=nn.Sigmoid):
        super().__init__()
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc1, self.fc2 = nn.Conv2d(channels, squeeze, 1), nn.Conv2d(squeeze, channels, 1)
        self.activation, self.scale_activation = activation(), scale()

    def forward(self, x):
        scale = self.fc2(self.activation(self.fc1(self.avgpool(x))))
        return self.scale_activation(scale) * x


class Raw(nn.Module):
    """Matrices without layers, (in, out), in a rank and a layout of choice."""

    def __init__(self, channels=12, hidden=3, rank=2, order="channel_spatial", last=False):
        super().__init__()
        self.rank, self.order, self.last = rank, order, last
        self.down = nn.Parameter(torch.randn(channels, hidden))
        self.up = nn.Parameter(torch.randn(hidden, channels))
        conv = (nn.Conv1d, nn.Conv2d, nn.Conv3d)[rank - 1]
        self.conv = conv(2, 1, 3, padding=1)
        self.norm = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)[rank - 1](
            1, eps=1e-3, momentum=0.3
        )

    def channel(self, x):
        flat = x.flatten(2)
        pools = flat.mean(2), flat.amax(2)
        gate = torch.sigmoid(sum(F.relu(pool @ self.down) @ self.up for pool in pools))
        return gate[(..., *[None] * self.rank)]

    def spatial(self, x):
        maps = torch.stack([x.mean(1), x.amax(1)], 1)
        return torch.sigmoid(self.norm(self.conv(maps)))

    def forward(self, x):
        x = x.movedim(-1, 1) if self.last else x
        if self.order == "parallel":
            y = x * self.channel(x) * self.spatial(x)
        else:
            first, second = (self.channel, self.spatial)
            if self.order == "spatial_channel":
                first, second = second, first
            y = x * first(x)
            y = y * second(y)
        return y.movedim(1, -1) if self.last else y


class Both(nn.Module):
    """Returns the gates beside the map, and keeps the last one with its graph."""

    def __init__(self):
        super().__init__()
        self.ca, self.sa = LuuuyiChannel(32), LuuuyiSpatial(3)

    def forward(self, x):
        channel = self.ca(x)
        x = x * channel
        self.last = self.sa(x)
        return {"attention": self.last, "map": x * self.last, "channels": channel}


class Squeezed(nn.Module):
    """The paper's ablation: a 1x1 convolution to one map for the pooled maps."""

    def __init__(self, channels=16):
        super().__init__()
        self.squeeze = nn.Conv2d(channels, 1, 1, bias=False)
        self.conv = nn.Conv2d(1, 1, 7, padding=3)

    def forward(self, x):
        return x * self.conv(self.squeeze(x)).sigmoid()


class OtherNorm(Official):
    """The authors' block with another norm behind the convolution."""

    def __init__(self, **options):
        super().__init__()
        self.SpatialGate.spatial.bn = nn.BatchNorm2d(1, **options)


class Spare(Official):
    """With a layer that no pass uses, and a bias in the last layer alone."""

    def __init__(self):
        super().__init__(spatial=False)
        self.ChannelGate.mlp[1] = nn.Linear(32, 2, bias=False)
        self.spare = nn.Linear(5, 5)


OFFICIAL = {"mlp_bias": True, "spatial_norm": True, "norm_momentum": 0.01}
RAW = {"hidden": 3, "kernel_size": 3, "spatial_bias": True, "spatial_norm": True,
       "norm_eps": 1e-3, "norm_momentum": 0.3}  # fmt: skip
WINNERS = {"ties": {"space": FIRST, "channels": FIRST}, "returns": ("the refined map",)}
GATE = ("the channel gate",)


def probed(module):
    """With a graph left behind by an earlier call."""
    module(torch.randn(2, 32, 5, 5))
    return module


ROWS = {
    "official": Row(
        Official,
        CBAMSpec(32, **OFFICIAL),
        WINNERS | {"presets": ("official", "ugenteraan"), "running_variance": "unbiased"},
    ),
    "official_lp_lse": Row(
        lambda: Official(48, 8, ("avg", "max", "lp", "lse")),
        CBAMSpec(48, hidden=6, channel_pools=("avg", "max", "lp", "lse"), **OFFICIAL),
    ),
    "official_no_spatial": Row(
        lambda: Official(spatial=False).double(),
        CBAMSpec(32, mlp_bias=True, order="channel"),
        {"ties": {"space": FIRST}, "dtype": "float64", "presets": ("official_no_spatial",)},
    ),
    "official_cumulative": Row(
        lambda: OtherNorm(momentum=None),
        CBAMSpec(32, **OFFICIAL | {"norm_momentum": 0.1}),
        {"notes": ("the momentum of its norm changes from pass to pass",)},
    ),
    "official_not_affine": Row(
        lambda: OtherNorm(affine=False),
        CBAMSpec(32, **OFFICIAL | {"norm_momentum": 0.1}),
        {"notes": ("it has no spatial.norm.scale", "it has no spatial.norm.bias")},
    ),
    "spare": Row(
        Spare,
        CBAMSpec(32, mlp_bias=True, order="channel"),
        {
            "notes": (
                "without any effect: spare.weight (5, 5), spare.bias (5,)",
                "it has no channel.reduce.bias",
            )
        },
    ),
    "osmr": Row(Osmr, CBAMSpec(32, mlp_bias=True, spatial_norm=True), WINNERS),
    "ugenteraan": Row(Ugenteraan, CBAMSpec(32, **OFFICIAL), WINNERS),
    "elbuco1": Row(
        Elbuco1,
        CBAMSpec(24, hidden=6, mlp_bias=True, kernel_size=5, spatial_bias=True),
        {"ties": {"space": EVENLY, "channels": EVENLY}},
    ),
    "luuuyi": Row(Luuuyi, CBAMSpec(64), WINNERS | {"presets": ("paper", "luuuyi")}),
    "luuuyi_old": Row(
        lambda: Luuuyi(64, OldLuuuyiChannel),
        CBAMSpec(64),
        {
            "notes": (
                "its attribute ratio=4 asks for 16 hidden units, and it has 4: the ratio is "
                "ignored",
            )
        },
    ),
    "luuuyi_channel_gate": Row(
        lambda: LuuuyiChannel(32), CBAMSpec(32, order="channel"), {"returns": GATE}
    ),
    "luuuyi_spatial_gate": Row(
        LuuuyiSpatial,
        CBAMSpec(24, order="spatial"),
        {"returns": ("the spatial gate",), "ties": {"channels": FIRST}},
        channels=24,
    ),
    "seed_mlp": Row(SeedChannel, CBAMSpec(32, order="channel"), {"ties": {"space": FIRST}}),
    "seed_fc": Row(SeedCbam, CBAMSpec(32, kernel_size=3)),
    "timm": Row(
        Timm,
        CBAMSpec(40, hidden=3, spatial_norm=True),
        {"ties": {"space": EVENLY, "channels": EVENLY}, "presets": ("timm",)},
    ),
    "timm_bias": Row(
        lambda: Timm(32, bias=True), CBAMSpec(32, mlp_bias=True, spatial_norm=True)
    ),
    "timm_light": Row(
        lambda: Timm(32, light=True), CBAMSpec(32, spatial_norm=True, pooling="light")
    ),
    "mmyolo": Row(Mmyolo, CBAMSpec(32, mlp_bias=True, spatial_bias=True)),
    "xmu": Row(Xmu, CBAMSpec(32, kernel_size=49, spatial_bias=True, residual=True)),
    "se_layer": Row(
        SeLayer, CBAMSpec(32, channel_pools=("avg",), order="channel"), {"presets": ("se",)}
    ),
    "torchvision_se": Row(
        TorchvisionSe,
        CBAMSpec(32, hidden=8, mlp_bias=True, channel_pools=("avg",), order="channel"),
    ),
    "hard_se": Row(
        lambda: TorchvisionSe(scale=nn.Hardsigmoid),
        CBAMSpec(
            32, hidden=8, mlp_bias=True, channel_pools=("avg",), order="channel",
            gate="hard_sigmoid",
        ),
    ),
    "one_hidden_unit": Row(
        lambda: Official(16), CBAMSpec(16, **OFFICIAL), {"returns": ("the refined map",)}
    ),
    "scripted": Row(
        lambda: torch.jit.script(TorchvisionSe()),
        CBAMSpec(32, hidden=8, mlp_bias=True, channel_pools=("avg",), order="channel"),
    ),
    "as_wide_as_deep": Row(
        lambda: TorchvisionSe(16, 16),
        CBAMSpec(16, hidden=16, mlp_bias=True, channel_pools=("avg",), order="channel"),
    ),
    "raw": Row(Raw, CBAMSpec(12, **RAW)),
    "raw_as_wide_as_deep": Row(lambda: Raw(6, 6), CBAMSpec(6, **RAW | {"hidden": 6})),
    "raw_signals": Row(
        lambda: Raw(rank=1, order="parallel"), CBAMSpec(12, rank=1, order="parallel", **RAW)
    ),
    "raw_volumes": Row(
        lambda: Raw(rank=3, order="spatial_channel"),
        CBAMSpec(12, rank=3, order="spatial_channel", **RAW),
    ),
    "raw_channels_last": Row(lambda: Raw(last=True), CBAMSpec(12, **RAW)),
    "half": Row(lambda: Luuuyi(32).bfloat16(), CBAMSpec(32), {"dtype": "float32"}),
    "several_outputs": Row(
        lambda: probed(Both()),
        CBAMSpec(32, kernel_size=3),
        {"returns": ("the spatial gate", "the refined map", "the channel gate")},
    ),
    "squeezed": Row(
        Squeezed, CBAMSpec(16, order="spatial", spatial_bias=True, spatial_descriptor="conv")
    ),
}  # fmt: skip

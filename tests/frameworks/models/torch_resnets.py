"""Small ResNets with the module names and the forward methods of torchvision's and of timm's."""

from __future__ import annotations

import torch
from torch import nn


def conv3x3(inputs, outputs, stride=1):
    return nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)


class BasicBlock(nn.Module):
    expansion = 1

    def __init__(self, inputs, planes, stride=1, downsample=None):
        super().__init__()
        self.conv1 = conv3x3(inputs, planes, stride)
        self.bn1 = nn.BatchNorm2d(planes)
        self.relu = nn.ReLU(inplace=True)
        self.conv2 = conv3x3(planes, planes)
        self.bn2 = nn.BatchNorm2d(planes)
        self.downsample = downsample

    def forward(self, x):
        identity = x
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        if self.downsample is not None:
            identity = self.downsample(x)
        out += identity
        return self.relu(out)


class Bottleneck(nn.Module):
    expansion = 4

    def __init__(self, inputs, planes, stride=1, downsample=None):
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, planes, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(planes)
        self.conv2 = conv3x3(planes, planes, stride)
        self.bn2 = nn.BatchNorm2d(planes)
        self.conv3 = nn.Conv2d(planes, planes * 4, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(planes * 4)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = downsample

    def forward(self, x):
        identity = x
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.relu(self.bn2(self.conv2(out)))
        out = self.bn3(self.conv3(out))
        if self.downsample is not None:
            identity = self.downsample(x)
        out += identity
        return self.relu(out)


class TimmBlock(nn.Module):
    """timm's BasicBlock, whose activations, drop path and attention are modules or None."""

    expansion = 1

    def __init__(self, inputs, planes, stride=1, downsample=None):
        super().__init__()
        self.conv1 = conv3x3(inputs, planes, stride)
        self.bn1 = nn.BatchNorm2d(planes)
        self.drop_block = nn.Identity()
        self.act1 = nn.ReLU(inplace=True)
        self.aa = nn.Identity()
        self.conv2 = conv3x3(planes, planes)
        self.bn2 = nn.BatchNorm2d(planes)
        self.se = None
        self.act2 = nn.ReLU(inplace=True)
        self.downsample = downsample
        self.drop_path = None

    def forward(self, x):
        shortcut = x
        x = self.aa(self.act1(self.drop_block(self.bn1(self.conv1(x)))))
        x = self.bn2(self.conv2(x))
        if self.downsample is not None:
            shortcut = self.downsample(shortcut)
        x += shortcut
        return self.act2(x)


class ResNet(nn.Module):
    """torchvision's: a stem, stages layer1 and so on, and a classifier."""

    activation = "relu"

    def __init__(self, block, depths=(2, 1), widths=(4, 8), num_classes=5):
        super().__init__()
        self.inputs = 6
        self.conv1 = nn.Conv2d(3, self.inputs, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(self.inputs)
        self.add_module(self.activation, nn.ReLU(inplace=True))
        self.maxpool = nn.MaxPool2d(3, 2, 1)
        self.layer1 = self._make_layer(block, widths[0], depths[0], 1)
        self.layer2 = self._make_layer(block, widths[1], depths[1], 2)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(self.inputs, num_classes)

    def _make_layer(self, block, planes, depth, stride):
        width = planes * block.expansion
        downsample = nn.Sequential(
            nn.Conv2d(self.inputs, width, 1, stride, bias=False), nn.BatchNorm2d(width)
        )
        first = block(self.inputs, planes, stride, downsample)
        self.inputs = width
        return nn.Sequential(first, *[block(width, planes) for _ in range(depth - 1)])

    def forward(self, x):
        x = getattr(self, self.activation)(self.bn1(self.conv1(x)))
        x = self.layer2(self.layer1(self.maxpool(x)))
        return self.fc(torch.flatten(self.avgpool(x), 1))


class TimmResNet(ResNet):
    activation = "act1"


RESNETS = {
    "torchvision-basic": lambda: ResNet(BasicBlock),
    "torchvision-bottleneck": lambda: ResNet(Bottleneck),
    "timm-basic": lambda: TimmResNet(TimmBlock),
}

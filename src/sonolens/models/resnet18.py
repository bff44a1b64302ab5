"""ResNet-18 of any width, with one ReLU module per activation.

Input   (batch, channel, freq, time), any size from 32 x 32
Output  logits (batch, n_classes)
Differs from torchvision's: each residual block owns two ReLU modules (torchvision calls one twice,
which breaks attribution hooks), none works in place, and the first layer standardises.

References
----------
He, K. et al. (2016). Deep residual learning for image recognition. CVPR, table 1 (18 layers).
"""

from __future__ import annotations

from itertools import pairwise

from torch import Tensor, nn

from sonolens.models.standardise import Standardise


class BasicBlock(nn.Module):
    """Two 3 x 3 convolutions and a shortcut.

    (batch, n_in, h, w) -> (batch, n_out, h / stride, w / stride)
    """

    def __init__(self, n_in: int, n_out: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(n_in, n_out, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(n_out)
        self.relu1 = nn.ReLU()
        self.conv2 = nn.Conv2d(n_out, n_out, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(n_out)
        self.relu2 = nn.ReLU()
        self.downsample: nn.Module = nn.Identity()
        if stride != 1 or n_in != n_out:
            self.downsample = nn.Sequential(
                nn.Conv2d(n_in, n_out, 1, stride, bias=False), nn.BatchNorm2d(n_out)
            )

    def forward(self, inputs: Tensor) -> Tensor:
        hidden = self.relu1(self.bn1(self.conv1(inputs)))
        hidden = self.bn2(self.conv2(hidden))
        return self.relu2(hidden + self.downsample(inputs))


class ResNet18(nn.Module):
    """See the module. `width`: channels of the first stage (64 in the paper)."""

    def __init__(self, n_classes: int, width: int = 64, n_channels: int = 1) -> None:
        super().__init__()
        self.standardise = Standardise(n_channels)
        self.conv1 = nn.Conv2d(n_channels, width, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU()
        self.maxpool = nn.MaxPool2d(3, 2, 1)
        sizes = [width, width, 2 * width, 4 * width, 8 * width]
        stages = [
            nn.Sequential(
                BasicBlock(n_in, n_out, 1 if n_in == n_out else 2), BasicBlock(n_out, n_out, 1)
            )
            for n_in, n_out in pairwise(sizes)
        ]
        self.layer1, self.layer2, self.layer3, self.layer4 = stages
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(8 * width, n_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    @property
    def gradcam_layer(self) -> nn.Module:
        """Last layer with a map of 8 x 8 cells for a 64 x 64 input; layer4 would have 2 x 2."""
        return self.layer2

    def forward(self, inputs: Tensor) -> Tensor:
        hidden = self.maxpool(self.relu(self.bn1(self.conv1(self.standardise(inputs)))))
        hidden = self.layer4(self.layer3(self.layer2(self.layer1(hidden))))
        return self.fc(self.avgpool(hidden).flatten(1))

"""AlexNet for small maps, after audio-xai's low-resolution net.

Input   (batch, channel, freq, time), any size from 32 x 32
Output  logits (batch, n_classes)
`width` is the number of channels of the first convolution: 64 is audio-xai's. Layers: 5 x 5
convolution with stride 1, 5 x 5, three 3 x 3, 2 x 2 pools, adaptive pooling to 4 x 4, two hidden
layers of 64 x width units.
Differs from audio-xai: ReLU not in place, adaptive pooling at every resolution, standardisation
inside.

References
----------
Krizhevsky, A. et al. (2012). ImageNet classification with deep convolutional neural networks.
NIPS, section 3.5.
"""

from __future__ import annotations

from torch import Tensor, nn

from sonolens.models.standardise import Standardise


class AlexNetSmall(nn.Module):
    """See the module."""

    def __init__(
        self, n_classes: int, width: int = 16, n_channels: int = 1, dropout: float = 0.5
    ) -> None:
        super().__init__()
        self.standardise = Standardise(n_channels)
        sizes = [n_channels, width, 3 * width, 6 * width, 4 * width, 4 * width]
        kernels, pooled = [5, 5, 3, 3, 3], [True, True, False, False, True]
        layers: list[nn.Module] = []
        for n_in, n_out, kernel, pool in zip(sizes, sizes[1:], kernels, pooled, strict=False):
            layers += [nn.Conv2d(n_in, n_out, kernel, padding=kernel // 2), nn.ReLU()]
            layers += [nn.MaxPool2d(2)] if pool else []
        self.features = nn.Sequential(*layers)
        self.avgpool = nn.AdaptiveAvgPool2d(4)
        n_hidden = 64 * width
        self.classifier = nn.Sequential(
            nn.Dropout(dropout), nn.Linear(sizes[-1] * 16, n_hidden), nn.ReLU(),
            nn.Dropout(dropout), nn.Linear(n_hidden, n_hidden), nn.ReLU(),
            nn.Linear(n_hidden, n_classes),
        )  # fmt: skip

    @property
    def gradcam_layer(self) -> nn.Module:
        """The last convolution's activation."""
        return self.features[-2]

    def forward(self, inputs: Tensor) -> Tensor:
        return self.classifier(self.avgpool(self.features(self.standardise(inputs))).flatten(1))

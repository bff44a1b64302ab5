"""AlexNet as audio-xai used it on 128 x 128 maps.

Input   (batch, channel, freq, time), at least 63 x 63: MIN_SIZE
Output  logits (batch, n_classes)
`width` is the number of channels of the first convolution: 64 is the published size, where names
and shapes of the weights are those of torchvision's `alexnet`.
Differs from torchvision: ReLU not in place, standardisation inside.

References
----------
Krizhevsky, A. (2014). One weird trick for parallelizing convolutional neural networks.
arXiv:1404.5997 (the variant without grouped convolutions).
"""

from __future__ import annotations

from torch import Tensor, nn

from sonolens.models.standardise import Standardise

MIN_SIZE = 63


class AlexNet(nn.Module):
    """See the module."""

    def __init__(
        self, n_classes: int, width: int = 64, n_channels: int = 1, dropout: float = 0.5
    ) -> None:
        super().__init__()
        self.standardise = Standardise(n_channels)
        n_hidden = 64 * width
        self.features = nn.Sequential(
            nn.Conv2d(n_channels, width, 11, stride=4, padding=2), nn.ReLU(),
            nn.MaxPool2d(3, 2),
            nn.Conv2d(width, 3 * width, 5, padding=2), nn.ReLU(),
            nn.MaxPool2d(3, 2),
            nn.Conv2d(3 * width, 6 * width, 3, padding=1), nn.ReLU(),
            nn.Conv2d(6 * width, 4 * width, 3, padding=1), nn.ReLU(),
            nn.Conv2d(4 * width, 4 * width, 3, padding=1), nn.ReLU(),
            nn.MaxPool2d(3, 2),
        )  # fmt: skip
        self.avgpool = nn.AdaptiveAvgPool2d(6)
        self.classifier = nn.Sequential(
            nn.Dropout(dropout), nn.Linear(4 * width * 36, n_hidden), nn.ReLU(),
            nn.Dropout(dropout), nn.Linear(n_hidden, n_hidden), nn.ReLU(),
            nn.Linear(n_hidden, n_classes),
        )  # fmt: skip

    @property
    def gradcam_layer(self) -> nn.Module:
        """The last convolution's activation."""
        return self.features[-2]

    def forward(self, inputs: Tensor) -> Tensor:
        return self.classifier(self.avgpool(self.features(self.standardise(inputs))).flatten(1))

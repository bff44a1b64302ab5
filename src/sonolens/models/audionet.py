"""AudioNet, the waveform net of AudioMNIST.

Input   (batch, channel, time), `n_samples` samples (8000 at 8 kHz in the paper)
Output  logits (batch, n_classes)
Six convolutions of 3 samples with 100, 64, 128, 128, 128, 128 channels, each with ReLU and a pool
that halves the time (the first of 3 samples, the others of 2), then 1024, 512 and n_classes units
with dropout and, as in the paper, no activation between them. `width` is a share of all these
sizes.
Differs: the first layer standardises; the weights start as He's, not as N(0, 0.1), with which the
paper's learning rate of 1e-4 and 50 000 steps belong (`init_std=0.1` gives them).

References
----------
Becker, S. et al. (2024). AudioMNIST: exploring explainable artificial intelligence for audio
analysis on a simple benchmark. Journal of the Franklin Institute 361(1), section 3.2.
"""

from __future__ import annotations

from itertools import pairwise

from torch import Tensor, nn

from sonolens.models.standardise import Standardise

N_CHANNELS = (100, 64, 128, 128, 128, 128)
N_HIDDEN = (1024, 512)


class AudioNet(nn.Module):
    """See the module."""

    def __init__(
        self,
        n_classes: int,
        width: float = 1.0,
        n_channels: int = 1,
        n_samples: int = 8000,
        dropout: float = 0.5,
        init_std: float | None = None,
    ) -> None:
        super().__init__()
        self.standardise = Standardise(n_channels)
        sizes = [n_channels, *(max(1, round(width * size)) for size in N_CHANNELS)]
        layers: list[nn.Module] = []
        for number, (n_in, n_out) in enumerate(pairwise(sizes)):
            # Caffe's pools, which the paper used, count an incomplete last window
            kernel = 2 if number else 3
            pool = nn.MaxPool1d(kernel, 2, ceil_mode=True)
            layers += [nn.Conv1d(n_in, n_out, 3, padding=1), nn.ReLU(), pool]
            n_samples = -(-(n_samples - kernel) // 2) + 1
        self.features = nn.Sequential(*layers)
        first, second = (max(1, round(width * size)) for size in N_HIDDEN)
        self.classifier = nn.Sequential(
            nn.Linear(sizes[-1] * n_samples, first), nn.Dropout(dropout),
            nn.Linear(first, second), nn.Dropout(dropout),
            nn.Linear(second, n_classes),
        )  # fmt: skip
        for module in self.modules():
            if not isinstance(module, (nn.Conv1d, nn.Linear)):
                continue
            if module.bias is not None:
                nn.init.zeros_(module.bias)
            if init_std is not None:
                nn.init.normal_(module.weight, std=init_std)
            elif isinstance(module, nn.Conv1d):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
            else:
                nn.init.kaiming_normal_(module.weight, nonlinearity="linear")

    @property
    def gradcam_layer(self) -> nn.Module:
        """The last convolution's activation."""
        return self.features[-2]

    def forward(self, inputs: Tensor) -> Tensor:
        return self.classifier(self.features(self.standardise(inputs)).flatten(1))

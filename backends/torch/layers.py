"""Layers that PyTorch lacks, or has with another meaning."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class BatchNorm(nn.BatchNorm2d):
    """Batch norm that keeps the biased running variance; PyTorch's own keeps the unbiased one."""

    def forward(self, x: Tensor) -> Tensor:
        mean, var = self.running_mean, self.running_var
        if not self.training:
            return F.batch_norm(x, mean, var, self.weight, self.bias, False, 0.0, self.eps)
        batch_mean, batch_var = torch.zeros_like(mean), torch.zeros_like(var)
        x = F.batch_norm(x, batch_mean, batch_var, self.weight, self.bias, True, 1.0, self.eps)
        with torch.no_grad():
            count = x.numel() / x.size(1)
            mean.lerp_(batch_mean, self.momentum)
            var.lerp_(batch_var * ((count - 1) / count), self.momentum)
        return x


class Affine(nn.Module):
    """x * scale + shift with constants, one pair for each channel: (N, C, H, W) to the same."""

    def __init__(self, scale: Sequence[float], shift: Sequence[float]):
        super().__init__()
        self.scale, self.shift = list(scale), list(shift)

    def forward(self, x: Tensor) -> Tensor:
        channels: list[Tensor] = []
        for index, scale in enumerate(self.scale):
            channels.append(x[:, index] * scale + self.shift[index])
        return torch.stack(channels, dim=1)

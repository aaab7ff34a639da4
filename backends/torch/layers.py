"""Layers that PyTorch lacks, or has with another meaning."""

from collections.abc import Sequence

import torch
import torch.fx
from torch import Tensor, nn
from torch.nn import functional as F


@torch.fx.wrap  # a single call in a traced graph: it asks for the size of the batch
def normalize(x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> tuple[Tensor, Tensor, Tensor]:
    """Batch norm in training: the output, and the mean and biased variance of each channel."""
    mean, var = torch.zeros_like(weight), torch.zeros_like(weight)
    # PyTorch refuses one value a channel; two equal ones have the mean and variance of the one
    single = x.numel() == x.size(1)
    batch = torch.cat((x, x)) if single else x
    count = batch.numel() / batch.size(1)
    y = F.batch_norm(batch, mean, var, weight, bias, True, 1.0, eps)
    return y[:1] if single else y, mean, var * ((count - 1) / count)


class BatchNorm(nn.BatchNorm2d):
    """Batch norm that keeps the biased running variance; PyTorch's own keeps the unbiased one."""

    def forward(self, x: Tensor) -> Tensor:
        mean, var = self.running_mean, self.running_var
        if not self.training:
            return F.batch_norm(x, mean, var, self.weight, self.bias, False, 0.0, self.eps)
        x, batch_mean, batch_var = normalize(x, self.weight, self.bias, self.eps)
        with torch.no_grad():
            mean.lerp_(batch_mean, self.momentum)
            var.lerp_(batch_var, self.momentum)
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

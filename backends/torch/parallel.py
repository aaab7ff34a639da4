"""Several workers in PyTorch: each its part of a batch, one sum of the gradients.

PyTorch's conventions: `torchrun` tells each process RANK and WORLD_SIZE; a DistributedDataParallel
around the model averages the gradients while `backward` makes them.
"""

import os
import warnings
from contextlib import AbstractContextManager, nullcontext

import numpy as np
import torch
from torch import Tensor, nn
from torch import distributed as dist
from torch.nn.parallel import DistributedDataParallel

from backends.torch.googlenet import GoogLeNet
from backends.torch.layers import BatchNorm
from common.rendezvous import need_port


def init_process_group(device: str) -> tuple[int, int]:
    """Join the other workers as the environment says: this worker's rank, and their count.

    WorkersError if the port is taken; PyTorch's own error after 30 minutes (10 with NCCL) without
    the others.
    """
    count = int(os.environ.get("WORLD_SIZE", 1))
    if count == 1:
        return 0, 1
    rank = int(os.environ["RANK"])
    if rank == 0 and "TORCHELASTIC_RUN_ID" not in os.environ:  # torchrun itself listens there
        need_port(os.environ["MASTER_PORT"], "MASTER_PORT")
    if device == "cpu":
        dist.init_process_group("gloo")
    else:
        torch.cuda.set_device(device.replace("gpu", "cuda"))  # where NCCL sends from
        dist.init_process_group("nccl")
    return rank, count


def destroy_process_group() -> None:
    """Leave the other workers."""
    if dist.is_initialized():
        dist.destroy_process_group()


def all_reduce_sum(numbers: np.ndarray) -> np.ndarray:
    """The sum of all workers' vectors, float64."""
    if not dist.is_initialized():
        return numbers
    device = "cpu" if dist.get_backend() == "gloo" else "cuda"
    tensor = torch.tensor(np.asarray(numbers, np.float64), device=device)
    dist.all_reduce(tensor)
    return tensor.cpu().numpy()


def wrap_model(model: GoogLeNet) -> nn.Module:
    """What runs the model so that `backward` leaves the mean of all workers' gradients."""
    if not dist.is_initialized():
        return model
    for block in model.modules():
        if isinstance(getattr(block, "norm", None), BatchNorm) and block.norm.weight.is_cuda:
            block.norm = SyncBatchNorm.of(block.norm)
    # PyTorch warns that the gradient of a 1x1 convolution has strides of its own, which are slower
    warnings.filterwarnings("ignore", message="Grad strides do not match")
    return DistributedDataParallel(model)


class SyncBatchNorm(nn.SyncBatchNorm):
    """The statistics of the whole batch, which PyTorch has on GPUs; as `BatchNorm` otherwise."""

    @classmethod
    def of(cls, norm: BatchNorm) -> "SyncBatchNorm":
        """One with the very parameters and statistics of a `BatchNorm`."""
        new = cls(norm.num_features, norm.eps, norm.momentum)
        new._parameters, new._buffers = norm._parameters, norm._buffers
        return new

    def forward(self, x: Tensor) -> Tensor:
        """Normalise, and update the running statistics."""
        if not self.training:
            return super().forward(x)
        before = self.running_var * (1 - self.momentum)
        y = super().forward(x)
        with torch.no_grad():
            count = torch.full_like(self.running_var[0], x.numel() / x.size(1))
            dist.all_reduce(count)
            self.running_var.sub_(before).mul_((count - 1) / count).add_(before)
        return y


def sync_gradients(network: nn.Module, last: bool) -> AbstractContextManager[None]:
    """Inside it, `backward` sums over the workers only with the last part of a batch."""
    alone = not isinstance(network, DistributedDataParallel)
    return nullcontext() if alone or last else network.no_sync()


def scale_loss(loss: Tensor, weight: float) -> Tensor:
    """The loss to go backward from: the mean of all workers' is that of the whole batch."""
    return loss * (weight * dist.get_world_size() if dist.is_initialized() else weight)


def sync_batch_norm_stats(model: GoogLeNet) -> None:
    """Give all workers the running statistics of worker 0.

    PyTorch does so before each step; the last step leaves each worker its own.
    """
    if dist.is_initialized():
        for buffer in model.buffers():
            dist.broadcast(buffer, 0)

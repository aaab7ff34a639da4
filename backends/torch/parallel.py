"""Several workers in PyTorch: each its part of a batch, one sum of the gradients.

PyTorch's conventions: `torchrun` tells each process RANK and WORLD_SIZE; a DistributedDataParallel
around the model averages the gradients while `backward` makes them.
"""

import os
import warnings

import numpy as np
import torch
from torch import distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from backends.torch.googlenet import CHANNELS, BatchNorm
from common.rendezvous import need_port


def join(device):
    """Take part as the environment says: this worker's number, and how many there are."""
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


def leave():
    """Take no further part."""
    if dist.is_initialized():
        dist.destroy_process_group()


def total(numbers):
    """The sum of all workers' vectors."""
    if not dist.is_initialized():
        return numbers
    device = "cpu" if dist.get_backend() == "gloo" else "cuda"
    tensor = torch.tensor(np.asarray(numbers, np.float64), device=device)
    dist.all_reduce(tensor)
    return tensor.cpu().numpy()


def engine(model):
    """What runs the model so that `backward` leaves the mean of all workers' gradients."""
    if not dist.is_initialized():
        return model
    for block in model.modules():
        if isinstance(getattr(block, "norm", None), BatchNorm) and block.norm.weight.is_cuda:
            block.norm = SyncBatchNorm.of(block.norm)
    # a 1x1 convolution's gradient has strides of its own, which PyTorch would tell as slow
    warnings.filterwarnings("ignore", message="Grad strides do not match")
    return DistributedDataParallel(model)


class SyncBatchNorm(nn.SyncBatchNorm):
    """The statistics of the whole batch, which PyTorch has on GPUs; as `BatchNorm` otherwise."""

    @classmethod
    def of(cls, norm):
        """With the very parameters and statistics of a `BatchNorm`."""
        new = cls(norm.num_features, norm.eps, norm.momentum)
        new._parameters, new._buffers = norm._parameters, norm._buffers
        return new

    def forward(self, x):
        """Normalise, and move the running statistics."""
        if not self.training:
            return super().forward(x)
        before = self.running_var * (1 - self.momentum)
        y = super().forward(x)
        with torch.no_grad():
            count = torch.full((), x.numel() / x.size(CHANNELS), device=x.device)
            dist.all_reduce(count)
            self.running_var.sub_(before).mul_((count - 1) / count).add_(before)
        return y


def weighted(loss, share):
    """The loss to go backward from: the engine's mean of them is that of the whole batch."""
    return loss * (share * dist.get_world_size() if dist.is_initialized() else share)


def settle(model):
    """Running statistics are each worker's own: all take over those of worker 0."""
    if dist.is_initialized():
        for buffer in model.buffers():
            dist.broadcast(buffer, 0)

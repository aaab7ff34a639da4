"""GoogLeNet in PyTorch."""

from backends.torch.googlenet import GoogLeNet
from backends.torch.train import (
    VERSION,
    Trainer,
    build,
    devices,
    forward,
    gradients,
    out_of_memory,
    place,
)
from backends.torch.weights import read_weights, write_weights

__all__ = [
    "VERSION",
    "GoogLeNet",
    "Trainer",
    "build",
    "devices",
    "forward",
    "gradients",
    "out_of_memory",
    "place",
    "read_weights",
    "write_weights",
]

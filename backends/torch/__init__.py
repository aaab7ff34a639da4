"""GoogLeNet in PyTorch."""

from backends.torch.googlenet import GoogLeNet
from backends.torch.parallel import join, leave, total
from backends.torch.train import (
    VERSION,
    Trainer,
    build,
    devices,
    fastest,
    forward,
    gradients,
    out_of_memory,
    place,
)
from backends.torch.weights import load, read_weights, save, write_weights

__all__ = [
    "VERSION",
    "GoogLeNet",
    "Trainer",
    "build",
    "devices",
    "fastest",
    "forward",
    "gradients",
    "join",
    "leave",
    "load",
    "out_of_memory",
    "place",
    "read_weights",
    "save",
    "total",
    "write_weights",
]

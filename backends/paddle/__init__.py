"""GoogLeNet in PaddlePaddle."""

from backends.paddle.googlenet import GoogLeNet
from backends.paddle.train import (
    VERSION,
    Trainer,
    build,
    devices,
    forward,
    gradients,
    place,
)
from backends.paddle.weights import read_weights, write_weights

__all__ = [
    "VERSION",
    "GoogLeNet",
    "Trainer",
    "build",
    "devices",
    "forward",
    "gradients",
    "place",
    "read_weights",
    "write_weights",
]

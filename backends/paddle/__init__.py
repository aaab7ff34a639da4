"""GoogLeNet in PaddlePaddle."""

import warnings

# Paddle's import advises to install a compiler cache, which nothing here would use ...
warnings.filterwarnings("ignore", message="No ccache found")
# ... and it warns at each step of a batch norm that it does what it is asked to do.
warnings.filterwarnings("ignore", message="When training, we now always track global mean")

from backends.paddle.googlenet import GoogLeNet  # after the filters  # noqa: E402
from backends.paddle.parallel import all_reduce_sum, destroy_process_group, init_process_group  # noqa: E402
from backends.paddle.train import (  # noqa: E402
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
from backends.paddle.weights import load, read_weights, save, write_weights  # noqa: E402

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

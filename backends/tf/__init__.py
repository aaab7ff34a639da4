"""GoogLeNet in TensorFlow and Keras 3."""

import os

os.environ.setdefault("KERAS_BACKEND", "tensorflow")  # Keras 3 could also run on another framework
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # errors only: it warns of each float64 layer

from backends.tf.googlenet import GoogLeNet
from backends.tf.parallel import all_reduce_sum, destroy_process_group, init_process_group
from backends.tf.train import (
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
from backends.tf.weights import load, read_weights, save, write_weights

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

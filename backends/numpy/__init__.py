"""The reference: NumPy in float64. The parity checks compare every other backend with it."""

from numpy import __version__ as VERSION

from backends.numpy.device import (
    device_name,
    devices,
    fastest_precision,
    out_of_memory,
    place,
    place_labels,
    threads,
)
from backends.numpy.googlenet import GoogLeNet, cross_entropy
from backends.numpy.parallel import all_reduce_sum, destroy_process_group, init_process_group
from backends.numpy.probes import forward, gradients, tensor_devices
from backends.numpy.train import Trainer, build, resize
from backends.numpy.weights import load, read_weights, save, save_named, write_weights

"""GoogLeNet in PyTorch."""

from torch import __version__ as VERSION

from backends.torch.device import (
    device_name,
    devices,
    fastest_precision,
    out_of_memory,
    place,
    place_labels,
    threads,
)
from backends.torch.googlenet import GoogLeNet
from backends.torch.parallel import all_reduce_sum, destroy_process_group, init_process_group
from backends.torch.probes import forward, gradients, tensor_devices
from backends.torch.train import Trainer, build
from backends.torch.weights import load, read_weights, save, save_named, write_weights

"""GoogLeNet in TensorFlow and Keras 3."""

import os

from common.errors import BackendError

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # errors only: it warns of each float64 layer
if os.environ.setdefault("KERAS_BACKEND", "tensorflow") != "tensorflow":
    raise BackendError(
        f"Keras would run on {os.environ['KERAS_BACKEND']}: set KERAS_BACKEND to tensorflow."
    )

from tensorflow import __version__ as VERSION

from backends.tf.device import (
    device_name,
    devices,
    fastest_precision,
    out_of_memory,
    place,
    place_labels,
    threads,
)
from backends.tf.googlenet import GoogLeNet
from backends.tf.parallel import all_reduce_sum, destroy_process_group, init_process_group
from backends.tf.probes import forward, gradients, tensor_devices
from backends.tf.train import Trainer, build
from backends.tf.weights import load, read_weights, save, save_named, write_weights

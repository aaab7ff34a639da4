"""Devices in TensorFlow: which there are, where a tensor lies, how an array gets there.

TensorFlow's convention: everything made inside `tf.device` lies on that device.
"""

from contextlib import AbstractContextManager, suppress
from typing import Any

import numpy as np
import tensorflow as tf
from tensorflow import Tensor

from common.device import has_bfloat16
from common.processor import usable_cores

# By default TensorFlow runs an operation elsewhere when the device asked for cannot.
tf.config.set_soft_device_placement(False)

# This pass sums in an order that differs from process to process: no run could be repeated.
tf.config.optimizer.set_experimental_options({"arithmetic_optimization": False})

for gpu in tf.config.list_physical_devices("GPU"):  # else the first process takes all its memory
    with suppress(RuntimeError, ValueError):  # too late, or the user has divided the GPU
        tf.config.experimental.set_memory_growth(gpu, True)


def devices() -> list[str]:
    """The devices there are: `cpu`, then `gpu:0` and on."""
    count = len(tf.config.list_physical_devices("GPU"))
    return ["cpu", *(f"gpu:{index}" for index in range(count))]


def native_device(device: str) -> AbstractContextManager[None]:
    """TensorFlow's device of that name, as a context."""
    return tf.device(f"/{device.upper()}")


def device_of(model: Any) -> AbstractContextManager[None]:
    """The device that the model's weights lie on, as a context."""
    return native_device(device_name(model.head.kernel.value))


def device_name(tensor: Tensor | tf.Variable) -> str:
    """The contract's name for where a tensor lies."""
    found = tf.DeviceSpec.from_string(tensor.device)
    kind = found.device_type.lower()
    return kind if (kind, found.device_index) == ("cpu", 0) else f"{kind}:{found.device_index}"


def fastest_precision(device: str) -> str:
    """`bfloat16` where it is faster on the device, else `float32`: what `auto` stands for."""
    if device == "cpu":
        faster = has_bfloat16()
    else:
        gpu = tf.config.list_physical_devices("GPU")[int(device.removeprefix("gpu:"))]
        found = tf.config.experimental.get_device_details(gpu)
        faster = found.get("compute_capability", (0, 0)) >= (8, 0)
    return "bfloat16" if faster else "float32"


def threads() -> int:
    """How many threads compute one operation on the CPU."""
    return tf.config.threading.get_intra_op_parallelism_threads() or usable_cores()


def out_of_memory(error: BaseException) -> bool:
    """Whether TensorFlow means by this exception that the memory is too small."""
    return isinstance(error, tf.errors.ResourceExhaustedError)


def place(model: Any, x: np.ndarray) -> Tensor:
    """A float array (N, C, H, W) as the model's input: its dtype, layout and device."""
    with device_of(model):
        return tf.constant(x.transpose(0, 2, 3, 1), model.variable_dtype)


def place_labels(model: Any, labels: np.ndarray) -> Tensor:
    """Labels int64 (N,) on the model's device."""
    with device_of(model):
        return tf.constant(labels)

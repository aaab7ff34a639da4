"""Several workers in TensorFlow: each its part of a batch, one sum of the gradients.

TensorFlow's conventions: TF_CONFIG tells each process all addresses and its own place; under a
MultiWorkerMirroredStrategy variables are mirrored, and the optimizer's `apply` sums the gradients.
"""

import json
import os
import signal
from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf
from tensorflow import Tensor

from backends.tf.googlenet import GoogLeNet
from common.errors import DeviceError
from common.rendezvous import meet


def init_process_group(device: str) -> tuple[int, int]:
    """Join the other workers as TF_CONFIG says: this worker's rank, and their count.

    WorkersError if the port is taken, DeviceError if this worker sees several GPUs; it waits for
    ever for a worker that never comes.
    """
    config = json.loads(os.environ.get("TF_CONFIG", "{}"))
    addresses = config.get("cluster", {}).get("worker", [])
    if len(addresses) < 2:
        return 0, 1
    if device != "cpu" and len(tf.config.list_physical_devices("GPU")) > 1:
        raise DeviceError(  # the strategy would take all of them
            "A worker of several must see one GPU: name it in CUDA_VISIBLE_DEVICES."
        )
    rank = int(config["task"]["index"])
    meet(addresses, rank, "TF_CONFIG")  # TensorFlow holds Python's lock while it waits
    if device == "cpu":
        tf.config.set_visible_devices([], "GPU")
    handler = signal.getsignal(signal.SIGTERM)
    strategy = tf.distribute.MultiWorkerMirroredStrategy()
    signal.signal(signal.SIGTERM, handler)  # the strategy replaced it, to learn of preemptions
    tf.distribute.experimental_set_strategy(strategy)  # what is made from now on is mirrored
    return rank, len(addresses)


def destroy_process_group() -> None:
    """Leave the other workers: a strategy ends only with the process."""


def all_reduce_sum(numbers: np.ndarray) -> np.ndarray:
    """The sum of all workers' vectors, float64."""
    if not tf.distribute.has_strategy():
        return numbers
    return add_up(tf.constant(numbers, tf.float64)).numpy()


@tf.function(reduce_retracing=True)
def add_up(vector: Tensor) -> Tensor:
    """The sum over replicas of what each has."""

    def add(x: Tensor) -> Tensor:  # a copy: the sum lies where its operand was made
        return tf.distribute.get_replica_context().all_reduce("SUM", tf.identity(x))

    return tf.distribute.get_strategy().run(add, (vector,))


def wrap_model(step: Callable[..., Any]) -> Callable[..., Any]:
    """What runs the step so that the optimizer's `apply` sums all workers' gradients."""

    def parallel_step(*arguments: Tensor) -> Any:
        return tf.distribute.get_strategy().run(step, arguments)

    return parallel_step


def sum_gradients(gradients: list[Tensor]) -> list[Tensor]:
    """The sum of all workers' gradients, which `apply` makes only for itself."""
    return tf.distribute.get_replica_context().all_reduce("SUM", gradients)


def scale_loss(loss: Tensor, weight: Tensor) -> Tensor:
    """The loss to differentiate: the sum of all workers' is that of the whole batch."""
    return loss * weight


def sync_batch_norm_stats(model: GoogLeNet) -> None:
    """Let batch norms measure the whole batch, so that all workers have the same statistics."""
    for layer in model._flatten_layers():
        if hasattr(layer, "synchronized"):
            layer.synchronized = tf.distribute.has_strategy()

"""Several workers in MXNet: each its part of a batch, one sum of the gradients.

MXNet's conventions: DMLC_ROLE tells each process its role, and importing MXNet turns it into a
scheduler or a server; Gluon's Trainer hands the gradients to a `dist_sync` kvstore, which sums them
on the servers, in float32 even if they are float64.
"""

import os
from typing import Any

import mxnet as mx
import numpy as np

from backends.mxnet.googlenet import GoogLeNet
from backends.mxnet.weights import tensors
from common.weights import is_running

LENGTHS = 1_000_000  # the first key of `all_reduce_sum`, behind those of the weights
stores: dict[str, Any] = {}  # of this process: the kvstore, its keys, the number of Trainers


def init_process_group(device: str) -> tuple[int, int]:
    """Join the other workers as the environment says: this worker's rank, and their count.

    It waits for ever for a worker that never comes. The scheduler's port was asked for in the
    import, which raises WorkersError if it is taken.
    """
    count = int(os.environ.get("DMLC_NUM_WORKER", 1))
    if count == 1:
        return 0, 1
    store = mx.kv.create("dist_sync")
    stores.update(store=store, known=set(), trainers=0)
    return store.rank, count


def destroy_process_group() -> None:
    """Leave the other workers; the servers end when all workers have left."""
    if stores:
        mx.nd.waitall()
        stores.clear()


def all_reduce_sum(numbers: np.ndarray) -> np.ndarray:
    """The sum of all workers' vectors, in float32."""
    if not stores:
        return numbers
    store, vector = stores["store"], mx.nd.array(numbers, dtype="float32")
    key = LENGTHS + len(numbers)
    if key not in stores["known"]:
        stores["known"].add(key)
        announce(store, key, mx.nd.zeros_like(vector))
    store.pushpull(key, vector, out=vector)
    return vector.asnumpy().astype(np.float64)


def announce(store: mx.kvstore.KVStore, key: int, value: mx.nd.NDArray) -> None:
    """Make a key known to the servers, and wait until all workers have done so.

    `init` may return before it has sent a value that is still being computed. So this waits for all
    computation before it, and for the servers after it.
    """
    mx.nd.waitall()
    store.init(key, value)
    mx.nd.waitall()
    store._barrier()


def wrap_model() -> "Store | None":
    """The kvstore that sums the gradients in Gluon's Trainer, before each worker's update."""
    if not stores:
        return None
    stores["trainers"] += 1
    return Store(stores["store"], 1000 * stores["trainers"])


class Store(mx.kvstore.KVStore):
    """The kvstore with own keys for each Trainer: a server never replaces the value of a key."""

    def __init__(self, store: mx.kvstore.KVStore, first: int) -> None:
        super().__init__(store.handle)
        self.store, self.first = store, first

    def __del__(self) -> None:
        """The handle belongs to the other store, which frees it."""

    def broadcast(self, key: int, value: Any, out: Any, priority: int = 0) -> None:
        """Send worker 0's initial value to all, and wait: the first gradient might overtake it."""
        announce(self, self.first + key, value)
        self.pull(self.first + key, out, priority)
        mx.nd.waitall()

    def pushpull(self, key: int, value: Any, out: Any = None, priority: int = 0) -> None:
        """Send a gradient, and get the sum."""
        super().pushpull(self.first + key, value, out, priority)


def scale_loss(loss: mx.np.ndarray, weight: float) -> mx.np.ndarray:
    """The loss to go backward from: the sum of all workers' is that of the whole batch."""
    return loss * weight


def sync_batch_norm_stats(model: GoogLeNet) -> None:
    """Give all workers the running statistics of worker 0; each has measured its own."""
    running = {name: tensor for name, tensor in tensors(model).items() if is_running(name)}
    if stores and running:
        first = stores["store"].rank == 0
        for parameter in running.values():
            array = parameter.data().asnumpy()
            found = all_reduce_sum(array if first else np.zeros_like(array))
            parameter.set_data(mx.np.array(found, dtype=array.dtype))

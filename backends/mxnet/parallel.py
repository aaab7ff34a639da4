"""Several workers in MXNet: each its part of a batch, one sum of the gradients.

MXNet's conventions: DMLC_ROLE tells each process what it is, and importing MXNet makes a scheduler
or a server of it; Gluon's Trainer hands the gradients to a `dist_sync` kvstore, which sums them on
the servers, in float32 even if they are float64.
"""

import os

import mxnet as mx
import numpy as np

from backends.mxnet.weights import tensors
from common.weights import is_running

LENGTHS = 1_000_000  # where the keys of `total` begin, behind those of the weights
stores = {}  # of this process: the kvstore, the keys it knows, the number of Trainers


def init_process_group(device):
    """Take part as the environment says: this worker's number, and how many there are."""
    count = int(os.environ.get("DMLC_NUM_WORKER", 1))
    if count == 1:
        return 0, 1
    store = mx.kv.create("dist_sync")
    stores.update(store=store, known=set(), trainers=0)
    return store.rank, count


def destroy_process_group():
    """Take no further part: the servers end when all workers have left."""
    if stores:
        mx.nd.waitall()
        stores.clear()


def all_reduce_sum(numbers):
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


def announce(store, key, value):
    """Make a key known to the servers.

    While work with the value is pending, `init` may return with nothing sent: nothing pends then,
    and nobody goes on before the value has come there.
    """
    mx.nd.waitall()
    store.init(key, value)
    mx.nd.waitall()
    store._barrier()


def wrap_model():
    """What Gluon's Trainer sums the gradients with, before each worker updates its weights."""
    if not stores:
        return None
    stores["trainers"] += 1
    return Store(stores["store"], 1000 * stores["trainers"])


class Store(mx.kvstore.KVStore):
    """The kvstore with keys of its own for a Trainer: what a server once has of one it keeps."""

    def __init__(self, store, first):
        super().__init__(store.handle)
        self.store, self.first = store, first

    def __del__(self):
        """The handle is the other's."""

    def broadcast(self, key, value, out, priority=0):
        """Send worker 0's initial value to all, and wait: the first gradient might overtake it."""
        announce(self, self.first + key, value)
        self.pull(self.first + key, out, priority)
        mx.nd.waitall()

    def pushpull(self, key, value, out=None, priority=0):
        """Send a gradient, and get the sum."""
        super().pushpull(self.first + key, value, out, priority)


def scale_loss(loss, weight):
    """The loss to go backward from: the engine's sum of them is that of the whole batch."""
    return loss * weight


def sync_batch_norm_stats(model):
    """Running statistics are each worker's own: all take over those of worker 0."""
    running = {name: tensor for name, tensor in tensors(model).items() if is_running(name)}
    if stores and running:
        first = stores["store"].rank == 0
        for parameter in running.values():
            array = parameter.data().asnumpy()
            found = all_reduce_sum(array if first else np.zeros_like(array))
            parameter.set_data(mx.np.array(found, dtype=array.dtype))

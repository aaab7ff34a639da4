"""Several workers in MXNet: each its part of a batch, one sum of the gradients.

MXNet's conventions: DMLC_ROLE tells each process what it is, and importing MXNet makes a scheduler
or a server of it; Gluon's Trainer hands the gradients to a `dist_sync` kvstore, which sums them on
the servers, in float32: in float64 it spoils them.
"""

import os

import mxnet as mx
import numpy as np

from backends.mxnet.weights import tensors
from common.weights import is_running

stores = {}  # the kvstore, of this process, and the lengths of the vectors that it knows


def join(device):
    """Take part as the environment says: this worker's number, and how many there are."""
    count = int(os.environ.get("DMLC_NUM_WORKER", 1))
    if count == 1:
        return 0, 1
    store = mx.kv.create("dist_sync")
    stores.update(store=store, lengths=set())
    return store.rank, count


def leave():
    """Take no further part: the servers end when all workers have left."""
    if stores:
        mx.nd.waitall()
        stores.clear()


def lost(error):
    """Whether MXNet means by this exception that another worker is gone: it would wait for ever."""
    return False


def total(numbers):
    """The sum of all workers' vectors, in float32."""
    if not stores:
        return numbers
    store, vector = stores["store"], mx.nd.array(numbers, dtype="float32")
    key = 1_000_000 + len(numbers)  # behind those of Gluon's Trainer, which counts the weights
    if key not in stores["lengths"]:
        stores["lengths"].add(key)
        store.init(key, mx.nd.zeros_like(vector))
    store.pushpull(key, vector, out=vector)
    return vector.asnumpy().astype(np.float64)


def engine():
    """What Gluon's Trainer sums the gradients with, before each worker updates its weights."""
    return stores.get("store")


def weighted(loss, share):
    """The loss to go backward from: the engine's sum of them is that of the whole batch."""
    return loss * share


def settle(model):
    """Running statistics are each worker's own: all take over those of worker 0."""
    running = {name: tensor for name, tensor in tensors(model).items() if is_running(name)}
    if stores and running:
        first = stores["store"].rank == 0
        for parameter in running.values():
            array = parameter.data().asnumpy()
            found = total(array if first else np.zeros_like(array))
            parameter.set_data(mx.np.array(found, dtype=array.dtype))

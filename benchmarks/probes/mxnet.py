"""The benchmark's probes in MXNet: waiting, peak memory, a matrix product, the profiler."""

import json
import os

import mxnet as mx
from mxnet import Context
from mxnet.contrib.amp.amp import bfloat16


def label(device):
    """The contract's name of the device: MXNet does not give the GPU's name."""
    return device


def wait(device):
    """Return when all queued work is done; a loss is ready before its backward pass."""
    mx.nd.waitall()


def peak_memory(device):
    """None: MXNet keeps no record of a peak."""


def product(side, precision, device):
    """A function that multiplies two (side, side) matrices of this precision on the device."""
    kind, _, index = device.partition(":")
    dtype = bfloat16 if precision == "bfloat16" else precision  # NumPy does not have this dtype
    a, b = (
        mx.nd.random.uniform(shape=(side, side), ctx=Context(kind, int(index or 0))).astype(dtype)
        for _ in range(2)
    )
    # `dot` has no bfloat16
    return lambda: mx.nd.FullyConnected(a, b, num_hidden=side, no_bias=True)


def copy(count, device):
    """A function that copies `count` float32 numbers on the device."""
    kind, _, index = device.partition(":")
    a = mx.np.random.uniform(size=(count,), ctx=Context(kind, int(index or 0)))
    b = mx.np.zeros_like(a)
    return lambda: a.copyto(b)


def operators(run, device):
    """Name, calls and seconds of every operator in `run()`; on a GPU those of the kernels."""
    mx.nd.waitall()
    mx.profiler.set_config(
        profile_symbolic=True, profile_imperative=True, aggregate_stats=True, filename=os.devnull
    )
    mx.profiler.set_state("run")
    run()
    mx.nd.waitall()
    mx.profiler.set_state("stop")
    found = json.loads(mx.profiler.dumps(reset=True, format="json"))["Time"]["operator"]
    return [(name, row["Count"], row["Total"] / 1e3) for name, row in found.items()]

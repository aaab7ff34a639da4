"""What the benchmark asks MXNet: to wait, its memory, a matrix product, its profiler."""

import json
import os

import mxnet as mx
from mxnet import Context
from mxnet.contrib.amp.amp import bfloat16


def label(device):
    """What the GPU is called: MXNet does not say."""
    return device


def wait(device):
    """Return when all that was queued is done: a loss is there before its backward pass."""
    mx.nd.waitall()


def peak_memory(device):
    """None: MXNet keeps no record of a peak."""


def product(side, precision, device):
    """A function that multiplies two square matrices of that precision on the device."""
    kind, _, index = device.partition(":")
    dtype = bfloat16 if precision == "bfloat16" else precision  # NumPy knows no such name
    a, b = (
        mx.nd.random.uniform(shape=(side, side), ctx=Context(kind, int(index or 0))).astype(dtype)
        for _ in range(2)
    )
    # `dot` has no bfloat16
    return lambda: mx.nd.FullyConnected(a, b, num_hidden=side, no_bias=True)


def operators(run, device):
    """Name, calls and seconds of every operator in `run()`: on the CPU, or of a GPU's kernels."""
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

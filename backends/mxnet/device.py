"""Devices in MXNet: which there are, where an array lies, how a NumPy array gets there."""

import os
from contextlib import suppress
from typing import Any

import mxnet as mx
import numpy
from mxnet import np

from common.device import has_amx, has_bfloat16


def devices() -> list[str]:
    """The devices there are: `cpu`, then `gpu:0` and on."""
    return ["cpu", *(f"gpu:{index}" for index in range(mx.context.num_gpus()))]


def native_device(device: str) -> mx.Context:
    """MXNet's context of that name."""
    kind, _, index = device.partition(":")
    return mx.Context(kind, int(index or 0))


def device_name(tensor: Any) -> str:
    """The contract's name for where an array of `mx.np` or `mx.nd` lies."""
    kind, index = tensor.ctx.device_type, tensor.ctx.device_id
    return kind if (kind, index) == ("cpu", 0) else f"{kind}:{index}"


def fastest_precision(device: str) -> str:
    """`bfloat16` where it is faster on the device, else `float32`: what `auto` stands for."""
    # MXNet 1.9.1 has bfloat16 on a CPU only and does not use AMX; on a CPU with AMX float32 was
    # faster
    faster = device == "cpu" and has_bfloat16() and not has_amx()
    return "bfloat16" if faster else "float32"


def threads() -> int:
    """How many threads compute one operation on the CPU."""
    return int(os.environ["OMP_NUM_THREADS"])  # set before the import, in `__init__`


def out_of_memory(error: BaseException) -> bool:
    """Whether MXNet means by this exception that the memory is too small."""
    words = ("allocate", "AlignedMallocPitch failed", "bad_alloc", "out of memory")
    found = isinstance(error, mx.MXNetError) and any(word in str(error) for word in words)
    if found:
        with suppress(mx.MXNetError):  # what is still queued fails too: here, not at the exit
            mx.nd.waitall()
    return found


def place(model: Any, x: numpy.ndarray) -> np.ndarray:
    """A float array (N, C, H, W) as the model's input: its dtype and device."""
    weight = model.head.weight
    return np.array(x, weight.dtype, ctx=weight.list_ctx()[0])


def place_labels(model: Any, labels: numpy.ndarray) -> np.ndarray:
    """Labels int64 (N,) on the model's device."""
    return np.array(labels, "int64", ctx=model.head.weight.list_ctx()[0])

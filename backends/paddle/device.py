"""Devices in Paddle: which there are, where a tensor lies, how an array gets there.

Paddle's names of devices are the contract's: `cpu`, `gpu:0` and on.
"""

import os
from typing import Any

import numpy as np
import paddle
from paddle import Tensor


def devices() -> list[str]:
    """The devices there are: `cpu`, then `gpu:0` and on."""
    return ["cpu", *(f"gpu:{index}" for index in range(paddle.device.cuda.device_count()))]


def device_name(tensor: Tensor) -> str:
    """The contract's name for where a tensor lies."""
    return str(tensor.place).removeprefix("Place(").removesuffix(")")


def fastest_precision(device: str) -> str:
    """`bfloat16` where it is faster on the device, else `float32`: what `auto` stands for."""
    faster = device != "cpu" and paddle.amp.is_bfloat16_supported(device)
    return "bfloat16" if faster else "float32"


def threads() -> int:
    """How many threads compute one operation on the CPU."""
    return int(os.environ["OMP_NUM_THREADS"])  # set with the import, in `__init__`


def out_of_memory(error: BaseException) -> bool:
    """Whether Paddle means by this exception that the memory is too small."""
    return "ResourceExhausted" in str(error)


def place(model: Any, x: np.ndarray) -> Tensor:
    """A float array (N, C, H, W) as the model's input: its dtype, layout and device."""
    weight = model.head.weight
    return paddle.to_tensor(x, weight.dtype, weight.place)


def place_labels(model: Any, labels: np.ndarray) -> Tensor:
    """Labels int64 (N,) on the model's device."""
    return paddle.to_tensor(labels, place=model.head.weight.place)

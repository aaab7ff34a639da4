"""Devices in PyTorch: which there are, where a tensor lies, how an array gets there."""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from common.device import has_bfloat16


def devices() -> list[str]:
    """The devices there are: `cpu`, then `gpu:0` and on."""
    return ["cpu", *(f"gpu:{index}" for index in range(torch.cuda.device_count()))]


def native_device(device: str) -> torch.device:
    """PyTorch's device of that name; it calls a GPU `cuda`."""
    return torch.device(device.replace("gpu", "cuda"))


def device_name(tensor: Tensor) -> str:
    """The contract's name for where a tensor lies."""
    return str(tensor.device).replace("cuda", "gpu")


def fastest_precision(device: str) -> str:
    """`bfloat16` where it is faster on the device, else `float32`: what `auto` stands for."""
    if device == "cpu":
        faster = has_bfloat16()
    else:
        faster = torch.cuda.get_device_capability(native_device(device)) >= (8, 0)
    return "bfloat16" if faster else "float32"


def threads() -> int:
    """How many threads compute one operation on the CPU."""
    return torch.get_num_threads()


def out_of_memory(error: BaseException) -> bool:
    """Whether PyTorch means by this exception that the memory is too small."""
    return isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error)


def to_device(array: np.ndarray, device: torch.device) -> Tensor:
    """A NumPy array on the device; from pinned memory to a GPU, so that the host need not wait."""
    tensor = torch.from_numpy(np.ascontiguousarray(array))
    tensor = tensor.pin_memory() if device.type == "cuda" else tensor
    return tensor.to(device, non_blocking=True)


def place(model: Any, x: np.ndarray) -> Tensor:
    """A float array (N, C, H, W) as the model's input: its dtype, layout and device."""
    weight = model.head.weight
    tensor = to_device(x, weight.device).to(weight.dtype)
    return tensor.contiguous(memory_format=model.layout)


def place_labels(model: Any, labels: np.ndarray) -> Tensor:
    """Labels int64 (N,) on the model's device."""
    return to_device(labels, model.head.weight.device)

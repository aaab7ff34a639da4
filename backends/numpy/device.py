"""Devices of the reference: only the CPU."""

from typing import Any

import numpy as np

from common.processor import usable_cores


def devices() -> list[str]:
    """The only device."""
    return ["cpu"]


def device_name(tensor: Any) -> str:
    """Always `cpu`: every array is in the host's memory."""
    return "cpu"


def fastest_precision(device: str) -> str:
    """Always `float32`: the precision in which weights and optimizer states are stored."""
    return "float32"


def threads() -> int:
    """The cores: what NumPy's BLAS takes."""
    return usable_cores()


def out_of_memory(error: BaseException) -> bool:
    """Whether the exception means that NumPy has too little memory."""
    return isinstance(error, MemoryError)


def place(model: Any, x: np.ndarray) -> np.ndarray:
    """A float array (N, C, H, W) as the model's input: float64."""
    return x.astype(np.float64)


def place_labels(model: Any, labels: np.ndarray) -> np.ndarray:
    """Labels int64 (N,)."""
    return labels

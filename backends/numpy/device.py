"""Devices of the reference: the CPU alone."""

from typing import Any

import numpy as np


def devices() -> list[str]:
    """The only device."""
    return ["cpu"]


def device_name(tensor: Any) -> str:
    """Every array lies in the host's memory."""
    return "cpu"


def fastest_precision(device: str) -> str:
    """The precision that weights and states are kept in."""
    return "float32"


def out_of_memory(error: BaseException) -> bool:
    """Whether NumPy means by this exception that the memory is too small."""
    return isinstance(error, MemoryError)


def place(model: Any, x: np.ndarray) -> np.ndarray:
    """A float array (N, C, H, W) as the model's input: float64."""
    return x.astype(np.float64)


def place_labels(model: Any, labels: np.ndarray) -> np.ndarray:
    """Labels int64 (N,)."""
    return labels

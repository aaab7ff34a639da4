"""What tests and the parity checks read from the reference."""

from typing import Any

import numpy as np

from backends.numpy.googlenet import GoogLeNet
from common.weights import Weights


def forward(model: GoogLeNet, x: np.ndarray, training: bool) -> Weights:
    """The output of every stage and head by name; x is (N, C, H, W)."""
    return model.forward(x.astype(np.float64), training)


def gradients(model: GoogLeNet, x: np.ndarray, labels: np.ndarray) -> tuple[float, Weights]:
    """The loss in training mode, and its gradient by canonical name."""
    return model.gradients(x.astype(np.float64), labels)


def tensor_devices(trainer: Any) -> dict[str, set[str]]:
    """Always the CPU; there are gradients after the first step."""
    cpu, none = {"cpu"}, set[str]()
    return {
        "parameters": cpu,
        "gradients": cpu if trainer.steps else none,
        "state": cpu if trainer.state else none,
    }

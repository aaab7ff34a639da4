"""What tests and the parity checks ask of the reference, beside its training step."""

from typing import Any

import numpy as np

from backends.numpy.googlenet import GoogLeNet
from common.weights import Weights


def forward(model: GoogLeNet, x: np.ndarray, training: bool) -> Weights:
    """The output of every stage and head by name."""
    return model.forward(x.astype(np.float64), training)


def gradients(model: GoogLeNet, x: np.ndarray, labels: np.ndarray) -> tuple[float, Weights]:
    """The loss in training mode, and its gradient by canonical name."""
    return model.gradients(x.astype(np.float64), labels)


def tensor_devices(trainer: Any) -> dict[str, set[str]]:
    """Everything lies in the host's memory; a gradient is there once there was a step."""
    cpu, none = {"cpu"}, set[str]()
    return {
        "parameters": cpu,
        "gradients": cpu if trainer.steps else none,
        "state": cpu if trainer.state else none,
    }

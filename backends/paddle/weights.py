"""Paddle parameters to canonical weights and back.

Paddle's names are the canonical ones but for a norm's running statistics. Convolutions are OIHW as
in the canonical layout, linear layers (in, out).
"""

import warnings
from pathlib import Path

import numpy as np
import paddle
from paddle import Tensor

from backends.paddle.googlenet import GoogLeNet
from common.errors import WeightsError
from common.weights import Weights, check

#: what Paddle calls the running statistics
RUNNING = {"_mean": "running_mean", "_variance": "running_var"}


def read_weights(model: GoogLeNet) -> Weights:
    """Copies of the weights and running statistics by canonical name."""
    return {name: to_canonical(name, tensor) for name, tensor in tensors(model).items()}


def write_weights(model: GoogLeNet, weights: Weights) -> None:
    """Copy canonical weights into the model, on its device; WeightsError if they do not fit."""
    check(model.spec, weights)
    for name, tensor in tensors(model).items():
        array = to_native(name, weights[name])
        tensor.set_value(np.ascontiguousarray(array, dtype(tensor)))


def save(model: GoogLeNet, path: Path) -> None:
    """Write the weights in Paddle's own format: a `state_dict`, pickled."""
    paddle.save(model.state_dict(), str(path))


def save_named(arrays: Weights, path: Path) -> None:
    """Write native arrays under the names of another program's class, in the same format."""
    paddle.save({name: paddle.to_tensor(array) for name, array in arrays.items()}, str(path))


def load(model: GoogLeNet, path: Path) -> None:
    """Read the weights that `save` wrote; not for files from elsewhere (`googlenet convert`).

    WeightsError if they are not the model's: Paddle would only warn.
    """
    with warnings.catch_warnings(action="ignore"):
        missing, unexpected = model.set_state_dict(paddle.load(str(path)))
    if wrong := [*missing, *unexpected]:
        raise WeightsError(f"{path} does not fit the network: {wrong[0]} is missing or unexpected.")


def tensors(model: GoogLeNet) -> dict[str, Tensor]:
    """The native tensors that hold the weights, by canonical name."""
    found = {}
    for name, tensor in model.state_dict().items():
        owner, _, leaf = name.rpartition(".")
        found[f"{owner}.{RUNNING.get(leaf, leaf)}"] = tensor
    return found


def dtype(tensor: Tensor) -> str:
    """The NumPy dtype of a tensor, which `set_value` does not convert to."""
    return str(tensor.dtype).removeprefix("paddle.")


def to_canonical(name: str, tensor: Tensor) -> np.ndarray:
    """A native tensor, a weight or its gradient, as a canonical array."""
    array = tensor.numpy()
    return np.ascontiguousarray(array.T) if array.ndim == 2 else array


def to_native(name: str, array: np.ndarray) -> np.ndarray:
    """A canonical array in the native layout."""
    return array.T if array.ndim == 2 else array

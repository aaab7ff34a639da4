"""Paddle parameters to canonical weights and back.

Paddle's names are the canonical ones but for a norm's running statistics. Convolutions are OIHW as
in the canonical layout, linear layers (in, out).
"""

import numpy as np

from common.weights import check

#: what Paddle calls the running statistics
RUNNING = {"_mean": "running_mean", "_variance": "running_var"}


def read_weights(model):
    """Copies of the weights and running statistics by canonical name."""
    return {name: to_canonical(name, tensor) for name, tensor in tensors(model).items()}


def write_weights(model, weights):
    """Copy canonical weights into the model, on whatever device it lies."""
    check(model.spec, weights)
    for name, tensor in tensors(model).items():
        array = to_native(name, weights[name])
        tensor.set_value(np.ascontiguousarray(array, dtype(tensor)))


def tensors(model):
    """The native tensors that hold the weights, by canonical name."""
    found = {}
    for name, tensor in model.state_dict().items():
        owner, _, leaf = name.rpartition(".")
        found[f"{owner}.{RUNNING.get(leaf, leaf)}"] = tensor
    return found


def dtype(tensor):
    """The NumPy dtype of a tensor, which `set_value` does not convert to."""
    return str(tensor.dtype).removeprefix("paddle.")


def to_canonical(name, tensor):
    """A native tensor, a weight or its gradient, as a canonical array."""
    array = tensor.numpy()
    return np.ascontiguousarray(array.T) if array.ndim == 2 else array


def to_native(name, array):
    """A canonical array in the native layout."""
    return array.T if array.ndim == 2 else array

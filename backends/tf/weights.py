"""Keras variables to canonical weights and back.

Keras has no names for this: a variable is found by the path of attributes and indices that its
canonical name spells. Convolutions are HWIO, linear layers (in, out).
"""

from pathlib import Path

import numpy as np
from keras import Variable
from tensorflow import Tensor

from backends.tf.googlenet import GoogLeNet
from common.weights import Weights, check, shapes

#: the last word of a canonical name: what Keras calls it, in a norm and elsewhere
NORM = {
    "weight": "gamma",
    "bias": "beta",
    "running_mean": "moving_mean",
    "running_var": "moving_variance",
}
OTHER = {"weight": "kernel", "bias": "bias"}


def read_weights(model: GoogLeNet) -> Weights:
    """Copies of the weights and running statistics by canonical name."""
    return {name: to_canonical(name, variable.value) for name, variable in tensors(model).items()}


def write_weights(model: GoogLeNet, weights: Weights) -> None:
    """Copy canonical weights into the model, on its device; WeightsError if they do not fit."""
    check(model.spec, weights)
    for name, variable in tensors(model).items():
        variable.assign(to_native(name, weights[name]))


def save(model: GoogLeNet, path: Path) -> None:
    """Write the weights in Keras's own format: HDF5, or the whole model in a `.keras` file.

    The name of an HDF5 file must end in `.weights.h5`.
    """
    if path.suffix == ".keras":
        model.save(path)
    else:
        model.save_weights(path)


def save_named(arrays: Weights, path: Path) -> None:
    """Write native arrays under the names of another program's class, in the same format."""
    import h5py

    with h5py.File(path, "w") as file:
        for name, array in arrays.items():
            file[name] = array


def load(model: GoogLeNet, path: Path) -> None:
    """Read the weights that `save` wrote; not for files from elsewhere (`googlenet convert`)."""
    model.load_weights(path)


def tensors(model: GoogLeNet) -> dict[str, Variable]:
    """The native variables that hold the weights, by canonical name."""
    return {name: variable(model, name) for name in shapes(model.spec)}


def variable(model: GoogLeNet, name: str) -> Variable:
    """The Keras variable that a canonical name leads to."""
    *path, owner, leaf = name.split(".")
    layer = model
    for step in (*path, owner):
        if step.isdigit():
            layer = (layer if isinstance(layer, list) else layer.layers)[int(step)]
        else:
            layer = getattr(layer, step)
    return getattr(layer, (NORM if owner == "norm" else OTHER)[leaf])


def to_canonical(name: str, tensor: Tensor) -> np.ndarray:
    """A native tensor, a weight or its gradient, as a canonical array."""
    array = tensor.numpy()
    return np.ascontiguousarray(array.transpose(3, 2, 0, 1) if array.ndim == 4 else array.T)


def to_native(name: str, array: np.ndarray) -> np.ndarray:
    """A canonical array in the native layout."""
    return array.transpose(2, 3, 1, 0) if array.ndim == 4 else array.T

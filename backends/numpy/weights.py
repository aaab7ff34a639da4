"""Weights of the reference: canonical names and layouts, stored as safetensors."""

from pathlib import Path

import numpy as np
import safetensors.numpy

from backends.numpy.googlenet import GoogLeNet
from common import weights as canonical
from common.weights import Weights, check


def read_weights(model: GoogLeNet) -> Weights:
    """Copies of the weights and running statistics by canonical name, in the model's dtype."""
    return {name: array.astype(model.dtype) for name, array in model.weights.items()}


def write_weights(model: GoogLeNet, weights: Weights) -> None:
    """Copy canonical weights into the model; WeightsError if they do not fit."""
    check(model.spec, weights)
    for name, array in weights.items():
        model.weights[name][...] = array


def save(model: GoogLeNet, path: Path) -> None:
    """Write the weights as a safetensors file."""
    canonical.save(path, read_weights(model), model.spec)


def save_named(arrays: Weights, path: Path) -> None:
    """Write arrays under the names of another program, as a safetensors or `.npz` file."""
    if path.suffix == ".npz":
        np.savez(path, **arrays)  # type: ignore[arg-type]
    else:
        path.write_bytes(safetensors.numpy.save(arrays))


def load(model: GoogLeNet, path: Path) -> None:
    """Read a file that `save` wrote."""
    write_weights(model, canonical.load(path, model.spec))

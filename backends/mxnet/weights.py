"""Gluon parameters to canonical weights and back.

Gluon's layouts are the canonical ones. So are the names that `save_parameters` writes, the paths of
attributes, except that a norm has gamma and beta.
"""

from pathlib import Path

import numpy
from mxnet import gluon, np, npx

from backends.mxnet.googlenet import GoogLeNet
from common.weights import Weights, check


def read_weights(model: GoogLeNet) -> Weights:
    """Copies of the weights and running statistics by canonical name."""
    return {name: to_canonical(name, p.data()) for name, p in tensors(model).items()}


def write_weights(model: GoogLeNet, weights: Weights) -> None:
    """Copy canonical weights into the model, on its device; WeightsError if they do not fit."""
    check(model.spec, weights)
    for name, parameter in tensors(model).items():
        parameter.set_data(np.array(to_native(name, weights[name]), dtype=parameter.dtype))


def save(model: GoogLeNet, path: Path) -> None:
    """Write the weights in Gluon's own format: `save_parameters`, by Gluon's names."""
    model.save_parameters(str(path))


def save_named(arrays: Weights, path: Path) -> None:
    """Write native arrays under the names of another program's class, in the same format."""
    npx.save(str(path), {name: np.array(a, dtype=a.dtype) for name, a in arrays.items()})


def load(model: GoogLeNet, path: Path) -> None:
    """Read the weights that `save` wrote; not for files from elsewhere (`googlenet convert`)."""
    model.load_parameters(str(path), ctx=model.head.weight.list_ctx())


def tensors(model: GoogLeNet) -> dict[str, gluon.Parameter]:
    """The native parameters that hold the weights, by canonical name."""
    found = model._collect_params_with_prefix()  # as Gluon's own save_parameters does
    return {name.replace("gamma", "weight").replace("beta", "bias"): found[name] for name in found}


def to_canonical(name: str, tensor: np.ndarray) -> numpy.ndarray:
    """A native tensor, a weight or its gradient, as a canonical array."""
    return tensor.asnumpy()


def to_native(name: str, array: numpy.ndarray) -> numpy.ndarray:
    """A canonical array in the native layout."""
    return array

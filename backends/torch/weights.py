"""PyTorch parameters to canonical weights and back.

PyTorch's layouts and names are the canonical ones; `state_dict` has all of them, by reference.
"""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from backends.torch.googlenet import GoogLeNet
from common.weights import Weights, check


def read_weights(model: GoogLeNet) -> Weights:
    """Copies of the weights and running statistics by canonical name."""
    return {name: to_canonical(name, tensor) for name, tensor in tensors(model).items()}


def write_weights(model: GoogLeNet, weights: Weights) -> None:
    """Copy canonical weights into the model, on its device; WeightsError if they do not fit."""
    check(model.spec, weights)
    with torch.no_grad():
        for name, tensor in tensors(model).items():
            tensor.copy_(torch.from_numpy(to_native(name, weights[name])))


def save(model: GoogLeNet, path: Path) -> None:
    """Write the weights in PyTorch's own format: a `state_dict`, pickled, in an archive."""
    torch.save(model.state_dict(), path)


def save_named(arrays: Weights, path: Path) -> None:
    """Write native arrays under the names of another program's class, in the same format."""
    torch.save({name: torch.from_numpy(array) for name, array in arrays.items()}, path)


def load(model: GoogLeNet, path: Path) -> None:
    """Read the weights that `save` wrote; not for files from elsewhere (`googlenet convert`)."""
    model.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))


def tensors(model: GoogLeNet) -> dict[str, Tensor]:
    """The native tensors that hold the weights, by canonical name."""
    state = model.state_dict(keep_vars=True)
    return {name: state[name] for name in state if not name.endswith("num_batches_tracked")}


def to_canonical(name: str, tensor: Tensor) -> np.ndarray:
    """A native tensor, a weight or its gradient, as a canonical array."""
    return tensor.detach().cpu().numpy().copy()


def to_native(name: str, array: np.ndarray) -> np.ndarray:
    """A canonical array in the native layout."""
    return array

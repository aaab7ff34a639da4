"""The arbiter's training step: textbook formulas in float64.

Sources: stochastic gradient descent as d2l writes it; momentum as Sutskever et al. (2013) with the
learning rate outside the velocity; bilinear resize with half-pixel centres.
"""

import numpy as np

from backends.numpy.googlenet import GoogLeNet
from common.recipe import Recipe
from common.weights import Weights, is_running


def resize(images: np.ndarray, height: int, width: int) -> np.ndarray:
    """Bilinear, half-pixel centres, edges repeated: uint8 (N, C, h, w) to float64 in 0 to 1."""
    x = images / 255
    for axis, size in ((2, height), (3, width)):
        last = x.shape[axis] - 1
        centre = (np.arange(size) + 0.5) * x.shape[axis] / size - 0.5
        low = np.floor(centre).astype(int)
        shape = [1] * x.ndim
        shape[axis] = size
        part = (centre - low).reshape(shape)
        below = np.take(x, np.clip(low, 0, last), axis)
        above = np.take(x, np.clip(low + 1, 0, last), axis)
        x = below * (1 - part) + above * part
    return x


class Trainer:
    """One optimizer over the arbiter's weights, which it changes in place."""

    def __init__(self, model: GoogLeNet, recipe: Recipe) -> None:
        self.model, self.recipe = model, recipe
        self.velocity: Weights = {
            name: np.zeros_like(w) for name, w in model.weights.items() if not is_running(name)
        }

    def prepare(self, images: np.ndarray) -> np.ndarray:
        """Scale and resize uint8 images to the spec's input."""
        return resize(images, *self.model.spec.input[1:])

    def update(self, inputs: np.ndarray, labels: np.ndarray) -> float:
        """One step; the loss before it."""
        loss, gradients = self.model.gradients(inputs, labels)
        for name, gradient in gradients.items():
            self.velocity[name] = self.recipe.momentum * self.velocity[name] + gradient
            self.model.weights[name] -= self.recipe.lr * self.velocity[name]
        return loss

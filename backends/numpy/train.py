"""The arbiter's training step: textbook formulas in float64.

Sources: stochastic gradient descent as d2l writes it; momentum as Sutskever et al. (2013) with the
learning rate outside the velocity; Adam as Kingma and Ba (2015); bilinear resize with half-pixel
centres.
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
        self.rate, self.steps = recipe.lr, 0
        trained = {n: weight for n, weight in model.weights.items() if not is_running(n)}
        self.state = {
            slot: {name: np.zeros_like(weight) for name, weight in trained.items()}
            for slot in recipe.slots()
        }

    def tune(self, rate: float, seed: int) -> None:
        """The learning rate of the next step; the arbiter has no dropout to seed."""
        self.rate = rate

    def prepare(self, images: np.ndarray, flips: np.ndarray | None = None) -> np.ndarray:
        """Mirror, scale and resize uint8 images to the spec's input."""
        if flips is not None:
            images = np.where(flips[:, None, None, None], images[..., ::-1], images)
        return resize(images, *self.model.spec.input[1:])

    def update(self, inputs: np.ndarray, labels: np.ndarray) -> float:
        """One step; the loss before it."""
        loss, gradients = self.model.gradients(inputs, labels, self.recipe.label_smoothing)
        self.apply(gradients)
        return loss

    def apply(self, gradients: Weights) -> None:
        """Change every weight by its gradient: the formulas of `Recipe`."""
        self.steps += 1
        for name, gradient in gradients.items():
            weight = self.model.weights[name]
            if weight.ndim > 1:
                gradient = gradient + self.recipe.weight_decay * weight
            rule = self.adam if self.recipe.optimizer == "adam" else self.sgd
            weight -= self.rate * rule(name, gradient)

    def sgd(self, name: str, gradient: np.ndarray) -> np.ndarray:
        """The direction that momentum, Nesterov's or not, takes."""
        momentum = self.recipe.momentum
        if not momentum:
            return gradient
        velocity = self.state["velocity"][name]
        velocity[:] = momentum * velocity + gradient
        return gradient + momentum * velocity if self.recipe.nesterov else velocity

    def adam(self, name: str, gradient: np.ndarray) -> np.ndarray:
        """The direction that Adam takes."""
        recipe, mean, square = self.recipe, self.state["mean"][name], self.state["square"][name]
        mean[:] = recipe.beta1 * mean + (1 - recipe.beta1) * gradient
        square[:] = recipe.beta2 * square + (1 - recipe.beta2) * gradient**2
        corrected = mean / (1 - recipe.beta1**self.steps)
        root: np.ndarray = np.sqrt(square / (1 - recipe.beta2**self.steps))
        return corrected / (root + recipe.eps)

    def read_state(self) -> dict[str, Weights]:
        """Copies of the optimizer's state by slot and canonical name."""
        return {
            slot: {name: array.copy() for name, array in arrays.items()}
            for slot, arrays in self.state.items()
        }

    def write_state(self, state: dict[str, Weights], steps: int) -> None:
        """Take over a state, as it was after that many steps."""
        self.steps = steps
        for slot, arrays in self.state.items():
            for name, array in arrays.items():
                array[:] = state[slot][name]

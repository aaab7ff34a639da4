"""The reference's training step: textbook formulas in float64.

Sources: d2l for stochastic gradient descent; Sutskever et al. (2013) for momentum, with the
learning rate outside the velocity; Kingma and Ba (2015) for Adam.
"""

from collections.abc import Iterable

import numpy as np

from backends.numpy.googlenet import GoogLeNet, cross_entropy
from common.errors import DeviceError
from common.recipe import Recipe
from common.spec import Spec
from common.weights import Weights, draw, is_running


def build(spec: Spec, dtype: str, device: str) -> GoogLeNet:
    """The network with the initial weights of seed 0; `dtype` is `float32` or `float64`.

    DeviceError for `bfloat16`, and for any device except the CPU.
    """
    if dtype == "bfloat16" or device != "cpu":
        raise DeviceError("The reference computes only in float64 and only on the CPU.")
    return GoogLeNet(spec, draw(spec, 0), dtype)


def resize(images: np.ndarray, height: int, width: int) -> np.ndarray:
    """Bilinear resize of uint8 (N, C, h, w) to float64 (N, C, height, width) in 0 to 1.

    Pixels have half-pixel centres, and edges are repeated.
    """
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
    """An optimizer that changes the reference's weights in place."""

    def __init__(self, model: GoogLeNet, recipe: Recipe) -> None:
        self.model, self.recipe = model, recipe
        self.rate, self.steps = recipe.lr, 0
        self.gradients: Weights = {}  # of the parts of a batch until its last
        trained = {n: weight for n, weight in model.weights.items() if not is_running(n)}
        self.state = {
            slot: {name: np.zeros_like(weight) for name, weight in trained.items()}
            for slot in recipe.slots()
        }

    def set_step(self, rate: float, seed: int) -> None:
        """Set the learning rate of the next step; the reference draws no dropout, so no seed."""
        self.rate = rate

    def prepare(self, images: np.ndarray, flip_mask: np.ndarray | None = None) -> np.ndarray:
        """Mirror, scale and resize uint8 images to the spec's input."""
        if flip_mask is not None:
            images = np.where(flip_mask[:, None, None, None], images[..., ::-1], images)
        return resize(images, *self.model.spec.input[1:])

    def train_step(
        self, inputs: np.ndarray, labels: np.ndarray, weight: float = 1.0, last: bool = True
    ) -> tuple[float, int]:
        """One step; returns the mean loss and the number correct, both before the update."""
        loss, gradients = self.model.gradients(inputs, labels, self.recipe.label_smoothing)
        correct = count_correct(self.model.outputs["head"], labels)
        for name, gradient in gradients.items():
            self.gradients[name] = self.gradients.get(name, 0) + weight * gradient
        if last:
            self.apply(self.gradients)
            self.gradients = {}
        return loss, correct

    def apply(self, gradients: Weights) -> None:
        """Update every weight from its gradient with the formulas of `Recipe`."""
        self.steps += 1
        share = clip_share(gradients, self.recipe.clip)
        for name, gradient in gradients.items():
            weight, gradient = self.model.weights[name], share * gradient
            if weight.ndim > 1:
                gradient = gradient + self.recipe.weight_decay * weight
            rule = self.adam if self.recipe.optimizer == "adam" else self.sgd
            weight -= self.rate * rule(name, gradient)
        if self.model.dtype != np.float64:
            for arrays in (self.model.weights, *self.state.values()):
                for array in arrays.values():
                    array[...] = array.astype(self.model.dtype)

    def sgd(self, name: str, gradient: np.ndarray) -> np.ndarray:
        """The update direction of plain, momentum or Nesterov SGD."""
        momentum = self.recipe.momentum
        if not momentum:
            return gradient
        velocity = self.state["velocity"][name]
        velocity[:] = momentum * velocity + gradient
        return gradient + momentum * velocity if self.recipe.nesterov else velocity

    def adam(self, name: str, gradient: np.ndarray) -> np.ndarray:
        """The update direction of Adam."""
        recipe, mean, square = self.recipe, self.state["mean"][name], self.state["square"][name]
        mean[:] = recipe.beta1 * mean + (1 - recipe.beta1) * gradient
        square[:] = recipe.beta2 * square + (1 - recipe.beta2) * gradient**2
        corrected = mean / (1 - recipe.beta1**self.steps)
        root: np.ndarray = np.sqrt(square / (1 - recipe.beta2**self.steps))
        return corrected / (root + recipe.eps)

    def logits(self, images: np.ndarray) -> np.ndarray:
        """The logits of uint8 images in evaluation mode."""
        return self.model.forward(self.prepare(images))["head"]

    def evaluate(self, batches: Iterable[tuple[np.ndarray, np.ndarray]]) -> tuple[float, int, int]:
        """The summed loss, the number correct and the number of examples."""
        loss, correct, count = 0.0, 0, 0
        for images, labels in batches:
            logits = self.logits(images)
            loss += cross_entropy(logits, labels)[0] * len(labels)
            correct += count_correct(logits, labels)
            count += len(labels)
        return loss, correct, count

    def predict(self, images: np.ndarray) -> np.ndarray:
        """The probabilities (N, classes) of uint8 images."""
        logits = self.logits(images)
        exp = np.exp(logits - logits.max(1, keepdims=True))
        return exp / exp.sum(1, keepdims=True)

    def read_state(self) -> dict[str, Weights]:
        """Copies of the optimizer's state by slot and canonical name, in the model's dtype."""
        return {
            slot: {name: array.astype(self.model.dtype) for name, array in arrays.items()}
            for slot, arrays in self.state.items()
        }

    def write_state(self, state: dict[str, Weights], steps: int) -> None:
        """Set the optimizer's state to a copy of `state`, taken after `steps` steps."""
        self.steps = steps
        for slot, arrays in self.state.items():
            for name, array in arrays.items():
                array[:] = state[slot][name]


def clip_share(gradients: Weights, clip: float) -> float:
    """The factor that leaves all gradients together with an L2 norm of at most `clip`; 0 is none.

    Source: Pascanu et al. (2013).
    """
    norm = np.sqrt(sum(np.square(gradient).sum() for gradient in gradients.values()))
    return float(clip / np.maximum(clip, norm)) if clip else 1.0


def count_correct(logits: np.ndarray, labels: np.ndarray) -> int:
    """How many rows have their largest logit at the label."""
    return int((logits.argmax(1) == labels).sum())

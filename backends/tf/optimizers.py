"""The optimizers of a recipe in TensorFlow, and their state in canonical form.

Keras's own are not the textbook formulas: SGD keeps the learning rate inside the velocity, Adam
puts eps inside the corrected root, and weight decay is decoupled. So each step is written out here;
`l2` is the weight decay that is added to the gradient. Biases and norms have no weight decay.
"""

from typing import Any

import keras
import tensorflow as tf
from keras import Variable
from keras.optimizers import Optimizer
from tensorflow import Tensor

from backends.tf import parallel
from backends.tf.googlenet import GoogLeNet
from backends.tf.saving import serialisable
from backends.tf.weights import tensors, to_canonical, to_native
from common.recipe import Recipe
from common.weights import Weights, is_running

#: what Keras calls the slots of the state
SLOTS = {"velocity": "momentums", "mean": "_momentums", "square": "_velocities"}


@serialisable
class SGD(keras.optimizers.SGD):
    """Gradient descent with the learning rate outside the velocity."""

    def __init__(self, *arguments: Any, l2: float = 0.0, **kwargs: Any):
        super().__init__(*arguments, **kwargs)
        self.l2 = l2

    def update_step(self, gradient: Tensor, variable: Variable, learning_rate: Tensor) -> None:
        """Change a variable and its velocity by its gradient."""
        gradient = decayed(gradient, variable, self.l2)
        if self.momentum:
            velocity = self.momentums[self._get_variable_index(variable)].value
            velocity.assign(self.momentum * velocity + gradient)
            gradient = gradient + self.momentum * velocity if self.nesterov else velocity
        variable.assign_sub(tf.cast(learning_rate, variable.dtype) * gradient)

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        return super().get_config() | {"l2": self.l2}


@serialisable
class Adam(keras.optimizers.Adam):
    """Adam with eps outside the corrected root; the corrections in float64, as others have them."""

    def __init__(self, *arguments: Any, l2: float = 0.0, **kwargs: Any):
        super().__init__(*arguments, **kwargs)
        self.l2 = l2

    def update_step(self, gradient: Tensor, variable: Variable, learning_rate: Tensor) -> None:
        """Change a variable and its moments by its gradient."""
        gradient = decayed(gradient, variable, self.l2)
        index = self._get_variable_index(variable)
        mean, square = self._momentums[index].value, self._velocities[index].value
        mean.assign(self.beta_1 * mean + (1 - self.beta_1) * gradient)
        square.assign(self.beta_2 * square + (1 - self.beta_2) * gradient**2)
        step = tf.cast(self.iterations.value + 1, tf.float64)
        first = tf.cast(1 - self.beta_1**step, variable.dtype)
        second = tf.cast(1 - self.beta_2**step, variable.dtype)
        direction = mean / first / (tf.sqrt(square / second) + self.epsilon)
        variable.assign_sub(tf.cast(learning_rate, variable.dtype) * direction)

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        return super().get_config() | {"l2": self.l2}


def decayed(gradient: Tensor, variable: Variable, l2: float) -> Tensor:
    """The gradient with that of the weight decay added. Biases and norms have no weight decay."""
    return gradient + l2 * variable if l2 and len(variable.shape) > 1 else gradient


def make(model: GoogLeNet, recipe: Recipe) -> Optimizer:
    """The recipe's optimizer over the model's parameters, on the current device."""
    match recipe.optimizer:
        case "sgd":
            momentum = recipe.momentum, recipe.nesterov
            optimizer = SGD(recipe.lr, *momentum, l2=recipe.weight_decay)
        case "adam":
            moments = recipe.beta1, recipe.beta2, recipe.eps
            optimizer = Adam(recipe.lr, *moments, l2=recipe.weight_decay)
        case _:
            raise ValueError(f"Keras has no optimizer for {recipe.optimizer!r}")
    optimizer.build(model.trainable_variables)
    return optimizer


def set_rate(optimizer: Optimizer, rate: float) -> None:
    """The learning rate from the next step on; a variable, so no graph is traced anew."""
    optimizer.learning_rate = rate


def clip_gradients(gradients: list[Tensor], clip: float) -> list[Tensor]:
    """The gradients, scaled down to a global norm of at most `clip`; 0 is no limit.

    The norm is that of the sum over all workers. Keras's own `global_clipnorm` takes each worker's:
    it clips before `apply` sums.
    """
    if clip:
        norm = tf.linalg.global_norm(parallel.sum_gradients(gradients))
        gradients, _ = tf.clip_by_global_norm(gradients, clip, norm)
    return gradients


def read_state(optimizer: Optimizer, model: GoogLeNet, recipe: Recipe) -> dict[str, Weights]:
    """Copies of the state by slot and canonical name; zeros before the first step."""
    return {
        slot: {
            name: to_canonical(name, slot_of(optimizer, slot, variable).value)
            for name, variable in trained(model).items()
        }
        for slot in recipe.slots()
    }


def write_state(
    optimizer: Optimizer,
    model: GoogLeNet,
    recipe: Recipe,
    state: dict[str, Weights],
    steps: int,
) -> None:
    """Copy a canonical state into the optimizer, as it was after that many steps."""
    optimizer.iterations.assign(steps)
    for name, variable in trained(model).items():
        for slot in recipe.slots():
            slot_of(optimizer, slot, variable).assign(to_native(name, state[slot][name]))


def slot_of(optimizer: Optimizer, slot: str, variable: Variable) -> Variable:
    """The optimizer's variable for that one of the model."""
    return getattr(optimizer, SLOTS[slot])[optimizer._get_variable_index(variable)]


def trained(model: GoogLeNet) -> dict[str, Variable]:
    """The native parameters that the optimizer changes, by canonical name."""
    return {name: tensor for name, tensor in tensors(model).items() if not is_running(name)}

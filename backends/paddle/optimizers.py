"""The optimizers of a recipe in Paddle, and their state in canonical form.

Paddle's own are the textbook formulas: the learning rate stays outside the velocity, eps outside
the corrected root. Weight decay is added to the gradient; a group of parameters may have its own.
"""

import numpy as np
import paddle
from paddle import Tensor
from paddle.optimizer import Optimizer

from backends.paddle.googlenet import GoogLeNet
from backends.paddle.weights import dtype, tensors, to_canonical, to_native
from common.recipe import Recipe
from common.weights import Weights, is_running

#: what Paddle calls the slots of the state
SLOTS = {"velocity": "velocity", "mean": "moment1", "square": "moment2"}


def make(model: GoogLeNet, recipe: Recipe) -> Optimizer:
    """The recipe's optimizer over the model's parameters; its state lies on the current device."""
    parameters = list(trained(model).values())
    weights = [parameter for parameter in parameters if parameter.ndim > 1]
    others = [parameter for parameter in parameters if parameter.ndim <= 1]
    groups = [{"params": weights, "weight_decay": recipe.weight_decay}, {"params": others}]
    match recipe.optimizer:
        case "sgd" if recipe.momentum:
            optimizer = paddle.optimizer.Momentum(
                recipe.lr, recipe.momentum, groups, recipe.nesterov
            )
        case "sgd":
            optimizer = paddle.optimizer.SGD(recipe.lr, groups)
        case "adam":
            optimizer = paddle.optimizer.Adam(
                recipe.lr, recipe.beta1, recipe.beta2, recipe.eps, groups
            )
        case _:
            raise ValueError(f"Paddle has no optimizer for {recipe.optimizer!r}")
    # Paddle would make the state in the first step, too late to write into it or see its device
    optimizer._create_accumulators(paddle.static.default_main_program().global_block(), parameters)
    return optimizer


def set_rate(optimizer: Optimizer, rate: float) -> None:
    """The learning rate from the next step on."""
    optimizer.set_lr(rate)


def clip_gradients(model: GoogLeNet, clip: float) -> None:
    """Scale the gradients down to a global norm of at most `clip`; 0 is no limit.

    Not by the optimizer's `grad_clip`, which takes the norm of each group of parameters.
    """
    if clip:
        found = [(tensor, tensor.grad) for tensor in trained(model).values()]
        for tensor, gradient in paddle.nn.ClipGradByGlobalNorm(clip)(found):
            tensor.grad = gradient


def read_state(optimizer: Optimizer, model: GoogLeNet, recipe: Recipe) -> dict[str, Weights]:
    """Copies of the state by slot and canonical name; zeros before the first step."""
    return {
        slot: {
            name: to_canonical(name, optimizer._accumulators[SLOTS[slot]][tensor.name])
            for name, tensor in trained(model).items()
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
    for name, tensor in trained(model).items():
        for slot in recipe.slots():
            array = np.ascontiguousarray(to_native(name, state[slot][name]), dtype(tensor))
            optimizer._accumulators[SLOTS[slot]][tensor.name].set_value(array)
        if recipe.optimizer == "adam":
            for beta in ("beta1", "beta2"):  # Paddle multiplies its powers up step by step
                factors = np.full(steps + 1, getattr(recipe, beta), dtype(tensor))
                power = float(np.multiply.accumulate(factors)[-1])
                optimizer._accumulators[f"{beta}_pow_acc"][tensor.name].fill_(power)


def trained(model: GoogLeNet) -> dict[str, Tensor]:
    """The native parameters that the optimizer changes, by canonical name."""
    return {name: tensor for name, tensor in tensors(model).items() if not is_running(name)}

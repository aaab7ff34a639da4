"""The optimizers of a recipe in PyTorch, and their state in canonical form.

PyTorch's own are the textbook formulas: the learning rate stays outside the velocity, eps outside
the corrected root. What a group of parameters says overrides the optimizer's defaults.
"""

import torch
from torch import Tensor
from torch.optim import Optimizer

from backends.torch.googlenet import GoogLeNet
from backends.torch.weights import tensors, to_canonical, to_native
from common.recipe import Recipe
from common.weights import Weights, is_running

#: what PyTorch calls the slots of the state
SLOTS = {"velocity": "momentum_buffer", "mean": "exp_avg", "square": "exp_avg_sq"}


def make(model: GoogLeNet, recipe: Recipe) -> Optimizer:
    """The recipe's optimizer over the model's parameters."""
    weights = [parameter for parameter in model.parameters() if parameter.ndim > 1]
    others = [parameter for parameter in model.parameters() if parameter.ndim <= 1]
    groups = [{"params": weights, "weight_decay": recipe.weight_decay}, {"params": others}]
    match recipe.optimizer:
        case "sgd":
            return torch.optim.SGD(groups, recipe.lr, recipe.momentum, nesterov=recipe.nesterov)
        case "adam":
            return torch.optim.Adam(groups, recipe.lr, (recipe.beta1, recipe.beta2), recipe.eps)
    raise ValueError(f"PyTorch has no optimizer for {recipe.optimizer!r}")


def set_rate(optimizer: Optimizer, rate: float) -> None:
    """The learning rate from the next step on."""
    for group in optimizer.param_groups:
        group["lr"] = rate


def clip_gradients(model: GoogLeNet, clip: float) -> None:
    """Scale the gradients down to a global norm of at most `clip`; 0 is no limit.

    PyTorch's own `clip_grad_norm_` adds 1e-6 to the norm. Nothing here waits for the device.
    """
    if clip:
        gradients = [parameter.grad for parameter in model.parameters()]
        norm = torch.nn.utils.get_total_norm(gradients)
        torch._foreach_mul_(gradients, clip / norm.clamp(min=clip))


def read_state(optimizer: Optimizer, model: GoogLeNet, recipe: Recipe) -> dict[str, Weights]:
    """Copies of the state by slot and canonical name; zeros before the first step."""
    return {
        slot: {
            name: to_canonical(
                name, optimizer.state[tensor].get(SLOTS[slot], torch.zeros_like(tensor))
            )
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
        native = {"step": torch.tensor(float(steps))} if recipe.optimizer == "adam" else {}
        for slot in recipe.slots():
            array = torch.from_numpy(to_native(name, state[slot][name]))
            native[SLOTS[slot]] = torch.empty_like(tensor).copy_(array)
        optimizer.state[tensor] = native


def trained(model: GoogLeNet) -> dict[str, Tensor]:
    """The native parameters that the optimizer changes, by canonical name."""
    return {name: tensor for name, tensor in tensors(model).items() if not is_running(name)}

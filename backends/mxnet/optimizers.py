"""The optimizers of a recipe in MXNet Gluon, and their state in canonical form.

MXNet's own keep the learning rate inside the velocity and eps inside the corrected root, so the
textbook formulas are written out here. Gluon gives an optimizer one parameter at a time, as arrays
of `mx.nd`; a parameter's own `lr_mult` and `wd_mult` scale the rate and the weight decay.
"""

import mxnet as mx
from mxnet import gluon, np

from backends.mxnet.googlenet import GoogLeNet
from backends.mxnet.parallel import wrap_model
from backends.mxnet.weights import tensors, to_canonical, to_native
from common.recipe import Recipe
from common.weights import Weights, is_running

State = tuple[mx.nd.NDArray, ...]  #: of one parameter, in the order of `Recipe.slots`


class SGD(mx.optimizer.Optimizer):
    """Momentum, Nesterov's or not, with the learning rate outside the velocity."""

    def __init__(self, recipe: Recipe) -> None:
        super().__init__(learning_rate=recipe.lr, wd=recipe.weight_decay)
        self.momentum, self.nesterov = recipe.momentum, recipe.nesterov

    def create_state(self, index: int, weight: mx.nd.NDArray) -> State:
        """The velocity, if there is one."""
        return (mx.nd.zeros_like(weight),) if self.momentum else ()

    def update(self, index: int, weight: mx.nd.NDArray, grad: mx.nd.NDArray, state: State) -> None:
        """Change the weight and its state in place."""
        self._update_count(index)
        grad = grad + self._get_wd(index) * weight
        for velocity in state:
            velocity[:] = self.momentum * velocity + grad
            grad = grad + self.momentum * velocity if self.nesterov else velocity
        weight -= self._get_lr(index) * grad


class Adam(mx.optimizer.Optimizer):
    """Adam with eps outside the corrected root."""

    def __init__(self, recipe: Recipe) -> None:
        super().__init__(learning_rate=recipe.lr, wd=recipe.weight_decay)
        self.beta1, self.beta2, self.eps = recipe.beta1, recipe.beta2, recipe.eps

    def create_state(self, index: int, weight: mx.nd.NDArray) -> State:
        """The mean and the square."""
        return mx.nd.zeros_like(weight), mx.nd.zeros_like(weight)

    def update(self, index: int, weight: mx.nd.NDArray, grad: mx.nd.NDArray, state: State) -> None:
        """Change the weight and its state in place."""
        self._update_count(index)
        step, (mean, square) = self._index_update_count[index], state
        grad = grad + self._get_wd(index) * weight
        mean[:] = self.beta1 * mean + (1 - self.beta1) * grad
        square[:] = self.beta2 * square + (1 - self.beta2) * grad * grad
        root = mx.nd.sqrt(square / (1 - self.beta2**step))
        weight -= self._get_lr(index) / (1 - self.beta1**step) * mean / (root + self.eps)


def make(model: GoogLeNet, recipe: Recipe) -> gluon.Trainer:
    """The recipe's optimizer over the model's parameters."""
    parameters = list(trained(model).values())
    for parameter in parameters:
        parameter.wd_mult = float(len(parameter.shape) > 1)
    # each worker updates its own weights: otherwise the servers would hold the optimizer's state
    how = {"kvstore": wrap_model(), "update_on_kvstore": False}
    match recipe.optimizer:
        case "sgd":
            return gluon.Trainer(parameters, SGD(recipe), **how)
        case "adam":
            return gluon.Trainer(parameters, Adam(recipe), **how)
    raise ValueError(f"MXNet has no optimizer for {recipe.optimizer!r}")


def set_rate(optimizer: gluon.Trainer, rate: float) -> None:
    """The learning rate from the next step on."""
    optimizer.set_learning_rate(rate)


def clip_gradients(model: GoogLeNet, clip: float) -> None:
    """Scale the gradients down to a global norm of at most `clip`; 0 is no limit.

    Gluon's own `clip_global_norm` adds 1e-8 to the norm, and waits for it by default.
    """
    if clip:
        gradients = [parameter.grad() for parameter in trained(model).values()]
        norm = np.sqrt(sum((gradient**2).sum() for gradient in gradients))
        for gradient in gradients:
            gradient *= clip / np.maximum(norm, clip)


def read_state(optimizer: gluon.Trainer, model: GoogLeNet, recipe: Recipe) -> dict[str, Weights]:
    """Copies of the state by slot and canonical name; zeros before the first step."""
    (updater,), slots = optimizer._updaters, recipe.slots()
    found: dict[str, Weights] = {slot: {} for slot in slots}
    for index, (name, parameter) in enumerate(trained(model).items()):
        weight = parameter.data()
        state = updater.states.get(index, [np.zeros_like(weight)] * len(slots))
        for slot, tensor in zip(slots, state, strict=True):
            found[slot][name] = to_canonical(name, tensor)
    return found


def write_state(
    optimizer: gluon.Trainer,
    model: GoogLeNet,
    recipe: Recipe,
    state: dict[str, Weights],
    steps: int,
) -> None:
    """Copy a canonical state into the optimizer, as it was after that many steps."""
    (updater,), rule = optimizer._updaters, optimizer.optimizer
    rule.begin_num_update = rule.num_update = steps
    rule._all_index_update_counts.clear()  # they then start from `begin_num_update`
    for index, (name, parameter) in enumerate(trained(model).items()):
        weight = parameter.data().as_nd_ndarray()
        updater.states[index] = rule.create_state(index, weight)
        updater.states_synced[index] = True
        for slot, tensor in zip(recipe.slots(), updater.states[index], strict=True):
            tensor[:] = to_native(name, state[slot][name])


def trained(model: GoogLeNet) -> dict[str, gluon.Parameter]:
    """The native parameters that the optimizer changes, by canonical name."""
    return {name: tensor for name, tensor in tensors(model).items() if not is_running(name)}

"""What tests and the parity checks ask of a Paddle model, beside its training step."""

import numpy as np
import paddle
from paddle import Tensor

from backends.paddle import optimizers
from backends.paddle.device import device_name, place, place_labels
from backends.paddle.googlenet import GoogLeNet
from backends.paddle.train import Trainer, objective
from backends.paddle.weights import tensors, to_canonical
from common.weights import Weights, is_running


def forward(model: GoogLeNet, x: np.ndarray, training: bool) -> Weights:
    """The output of every stage and head by name, as NumPy arrays."""
    model.train() if training else model.eval()
    outputs: dict[str, Tensor] = {}
    y = place(model, x)
    with paddle.no_grad():
        for name, _ in model.spec.stages():
            if name == "stage4":
                y, aux_logits = model.run_stage4(y)
                outputs |= {f"auxiliary.{index}": each for index, each in enumerate(aux_logits)}
            else:
                y = getattr(model, name)(y)
            outputs[name] = y
        outputs["head"] = model.head(y)
    return {name: output.numpy() for name, output in outputs.items()}


def gradients(model: GoogLeNet, x: np.ndarray, labels: np.ndarray) -> tuple[float, Weights]:
    """The loss in training mode, and its gradient by canonical name."""
    model.train()
    model.clear_gradients()
    loss, _ = objective(model, model(place(model, x)), place_labels(model, labels))
    loss.backward()
    found = tensors(model)
    return loss.item(), {n: to_canonical(n, t.grad) for n, t in found.items() if not is_running(n)}


def tensor_devices(trainer: Trainer) -> dict[str, set[str]]:
    """The devices that the parameters, their gradients and the optimizer's state lie on.

    A step silently moves state from another device to the right one, so a wrong device shows only
    before the first step.
    """
    slots = [optimizers.SLOTS[slot] for slot in trainer.recipe.slots()]
    states = [trainer.optimizer._accumulators[slot].values() for slot in slots]
    found = {
        "parameters": list(trainer.model.state_dict().values()),
        "gradients": [p.grad for p in trainer.model.parameters() if p.grad is not None],
        "state": [tensor for state in states for tensor in state],
    }
    return {what: {device_name(tensor) for tensor in tensors} for what, tensors in found.items()}

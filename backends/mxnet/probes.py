"""What tests and the parity checks ask of a Gluon model, beside its training step."""

import numpy
from mxnet import autograd

from backends.mxnet import optimizers
from backends.mxnet.device import device_name, place, place_labels
from backends.mxnet.googlenet import GoogLeNet
from backends.mxnet.layers import Tensor
from backends.mxnet.train import Trainer, objective
from backends.mxnet.weights import tensors, to_canonical
from common.weights import Weights, is_running


def forward(model: GoogLeNet, x: numpy.ndarray, training: bool) -> Weights:
    """The output of every stage and head by name, as NumPy arrays."""
    outputs: dict[str, Tensor] = {}
    y = place(model, x)
    with autograd.train_mode() if training else autograd.predict_mode():
        for name, _ in model.spec.stages():
            if name == "stage4":
                y, aux_logits = model.run_stage4(y)
                outputs |= {f"auxiliary.{index}": each for index, each in enumerate(aux_logits)}
            else:
                y = getattr(model, name)(y)
            outputs[name] = y
        outputs["head"] = model.head(y)
    return {name: output.asnumpy() for name, output in outputs.items()}


def gradients(model: GoogLeNet, x: numpy.ndarray, labels: numpy.ndarray) -> tuple[float, Weights]:
    """The loss in training mode, and its gradient by canonical name."""
    x, labels = place(model, x), place_labels(model, labels)
    with autograd.record():
        loss, _ = objective(model, model(x), labels)
    loss.backward()
    found = tensors(model)
    return loss.item(), {
        n: to_canonical(n, p.grad()) for n, p in found.items() if not is_running(n)
    }


def tensor_devices(trainer: Trainer) -> dict[str, set[str]]:
    """The devices that the parameters, their gradients and the optimizer's state lie on."""
    parameters = trainer.model.collect_params().values()
    trained = optimizers.trained(trainer.model).values()
    states = trainer.optimizer._updaters[0].states.values()
    found = {
        "parameters": [data for parameter in parameters for data in parameter.list_data()],
        "gradients": [grad for parameter in trained for grad in parameter.list_grad()],
        "state": [tensor for state in states for tensor in state],
    }
    return {what: {device_name(tensor) for tensor in tensors} for what, tensors in found.items()}

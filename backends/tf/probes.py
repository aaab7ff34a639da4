"""What tests and the parity checks ask of a Keras model, beside its training step."""

import numpy as np
import tensorflow as tf
from tensorflow import Tensor

from backends.tf.device import device_name, device_of, place, place_labels
from backends.tf.googlenet import GoogLeNet
from backends.tf.train import Trainer, objective
from backends.tf.weights import tensors, to_canonical
from common.weights import Weights, is_running


def forward(model: GoogLeNet, x: np.ndarray, training: bool) -> Weights:
    """The output of every stage and head by name, as NumPy arrays."""
    outputs: dict[str, Tensor] = {}
    y = place(model, x)
    with device_of(model):
        for name, _ in model.spec.stages():
            if name == "stage4":
                y, aux_logits = model.run_stage4(y, training=training)
                outputs |= {f"auxiliary.{index}": each for index, each in enumerate(aux_logits)}
            else:
                y = getattr(model, name)(y, training=training)
            outputs[name] = y
        outputs["head"] = model.head(y)
    return {name: np.moveaxis(output.numpy(), -1, 1) for name, output in outputs.items()}


def gradients(model: GoogLeNet, x: np.ndarray, labels: np.ndarray) -> tuple[float, Weights]:
    """The loss in training mode, and its gradient by canonical name."""
    trained = {n: v for n, v in tensors(model).items() if not is_running(n)}
    inputs, labels = place(model, x), place_labels(model, labels)
    with device_of(model):
        with tf.GradientTape() as tape:
            loss, _ = objective(model, model(inputs, training=True), labels)
        found = tape.gradient(loss, [variable.value for variable in trained.values()])
    return float(loss), {n: to_canonical(n, g) for n, g in zip(trained, found, strict=True)}


def tensor_devices(trainer: Trainer) -> dict[str, set[str]]:
    """The devices that the parameters, their gradients and the optimizer's state lie on."""
    found = {
        "parameters": [variable.value for variable in trainer.model.variables],
        "gradients": trainer.gradients,
        "state": [variable.value for variable in trainer.optimizer.variables],
    }
    return {what: {device_name(tensor) for tensor in tensors} for what, tensors in found.items()}

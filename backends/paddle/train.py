"""Training in PaddlePaddle: device, precision, one step, evaluation.

Paddle's conventions: new tensors are made on the current device, which `set_device` chooses; an
operation between devices moves its inputs silently; `backward` adds to the gradients.
"""

import paddle
from paddle.nn import functional as F

from backends.paddle.googlenet import GoogLeNet
from backends.paddle.weights import tensors, to_canonical
from common.weights import is_running

VERSION = paddle.__version__


def devices():
    """The devices there are: `cpu`, then `gpu:0` and on."""
    return ["cpu", *(f"gpu:{index}" for index in range(paddle.device.cuda.device_count()))]


def device_name(tensor):
    """The contract's name for where a tensor lies."""
    return str(tensor.place).removeprefix("Place(").removesuffix(")")


def build(spec, dtype, device):
    """The network on the device, in `float32` or `float64`."""
    paddle.set_device(device)
    model = GoogLeNet(spec)
    model.to(device, dtype)
    return model


def place(model, x):
    """A NumPy array (N, C, H, W) as the model's input: its dtype, layout and device."""
    weight = model.head.weight
    return paddle.to_tensor(x, weight.dtype, weight.place)


def forward(model, x, training):
    """Every stage's output by name, as NumPy arrays."""
    model.train() if training else model.eval()
    outputs, x = {}, place(model, x)
    with paddle.no_grad():
        for name, stage in model.named_children():
            x = stage(x)
            outputs[name] = x.numpy()
    return outputs


def gradients(model, x, labels):
    """The loss in training mode, and its gradient by canonical name."""
    model.train()
    model.clear_gradients()
    loss = F.cross_entropy(model(place(model, x)), place_labels(model, labels))
    loss.backward()
    found = tensors(model)
    return loss.item(), {n: to_canonical(n, t.grad) for n, t in found.items() if not is_running(n)}


def place_labels(model, labels):
    """Labels on the model's device."""
    return paddle.to_tensor(labels, place=model.head.weight.place)


class Trainer:
    """One optimizer over the model's parameters, on the device."""

    def __init__(self, model, recipe):
        self.model = model
        paddle.set_device(device_name(model.head.weight))  # where the optimizer's state will lie
        self.optimizer = paddle.optimizer.Momentum(
            recipe.lr, recipe.momentum, parameters=model.parameters()
        )

    def prepare(self, images):
        """Move uint8 images to the device; there scale to 0..1 and resize to the spec's input."""
        weight = self.model.head.weight
        x = paddle.to_tensor(images, place=weight.place).astype(weight.dtype) / 255
        size = self.model.spec.input[1:]
        return F.interpolate(x, size, mode="bilinear", align_corners=False, align_mode=0)

    def update(self, inputs, labels):
        """One step; the mean loss and the number right before it, as scalars on the device."""
        self.model.train()
        labels = place_labels(self.model, labels)
        self.optimizer.clear_grad()
        logits = self.model(inputs)
        loss = F.cross_entropy(logits, labels)
        loss.backward()
        self.optimizer.step()
        self.batch, self.outputs = (inputs, labels), (logits.detach(), loss.detach())
        return loss.detach(), count_right(logits.detach(), labels)

    def step(self, images, labels):
        """One step on uint8 images."""
        return self.update(self.prepare(images), labels)

    def evaluate(self, batches):
        """The mean loss and the accuracy over all batches."""
        self.model.eval()
        loss, right, count = 0, 0, 0
        with paddle.no_grad():
            for images, labels in batches:
                logits, labels = self.model(self.prepare(images)), place_labels(self.model, labels)
                loss += F.cross_entropy(logits, labels, reduction="sum")
                right += count_right(logits, labels)
                count += len(labels)
        return float(loss) / count, float(right) / count

    def places(self):
        """The devices that the last step's tensors really lay on."""
        trained = [tensor for tensor in self.model.parameters() if not tensor.stop_gradient]
        states = self.optimizer._accumulators.values()
        found = {
            "parameters": list(self.model.state_dict().values()),
            "gradients": [parameter.grad for parameter in trained],
            "state": [tensor for state in states for tensor in state.values()],
            "batch": self.batch,
            "outputs": self.outputs,
        }
        return {what: {device_name(tensor) for tensor in found[what]} for what in found}


def count_right(logits, labels):
    """How many of the largest logits are the labels', as a scalar on the device."""
    return (logits.argmax(1) == labels).sum()

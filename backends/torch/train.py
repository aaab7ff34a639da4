"""Training in PyTorch: device, precision, one step, evaluation.

PyTorch's conventions: `backward` adds to the gradients, so they are cleared first; tensors are
moved to a device by hand, and an operation between devices raises.
"""

import numpy as np
import torch
from torch.nn import functional as F

from backends.torch.googlenet import GoogLeNet
from backends.torch.weights import tensors, to_canonical
from common.weights import is_running

VERSION = torch.__version__


def devices():
    """The devices there are: `cpu`, then `gpu:0` and on."""
    return ["cpu", *(f"gpu:{index}" for index in range(torch.cuda.device_count()))]


def native_device(device):
    """PyTorch's device of that name; it calls a GPU `cuda`."""
    return torch.device(device.replace("gpu", "cuda"))


def device_name(tensor):
    """The contract's name for where a tensor lies."""
    return str(tensor.device).replace("cuda", "gpu")


def build(spec, dtype, device):
    """The network on the device, in `float32` or `float64`."""
    return GoogLeNet(spec).to(native_device(device), getattr(torch, dtype))


def place(model, x):
    """A NumPy array (N, C, H, W) as the model's input: its dtype, layout and device."""
    weight = model.head.weight
    return torch.from_numpy(np.ascontiguousarray(x)).to(weight.device, weight.dtype)


def forward(model, x, training):
    """Every stage's output by name, as NumPy arrays."""
    model.train(training)
    outputs, x = {}, place(model, x)
    with torch.no_grad():
        for name, stage in model.named_children():
            x = stage(x)
            outputs[name] = x.cpu().numpy()
    return outputs


def gradients(model, x, labels):
    """The loss in training mode, and its gradient by canonical name."""
    model.train()
    model.zero_grad()
    loss = F.cross_entropy(model(place(model, x)), place_labels(model, labels))
    loss.backward()
    found = tensors(model)
    return loss.item(), {n: to_canonical(n, t.grad) for n, t in found.items() if not is_running(n)}


def place_labels(model, labels):
    """Labels on the model's device."""
    return torch.from_numpy(labels).to(model.head.weight.device)


class Trainer:
    """One optimizer over the model's parameters, on the device."""

    def __init__(self, model, recipe):
        self.model = model
        self.optimizer = torch.optim.SGD(model.parameters(), recipe.lr, recipe.momentum)

    def prepare(self, images):
        """Move uint8 images to the device; there scale to 0..1 and resize to the spec's input."""
        weight = self.model.head.weight
        x = torch.from_numpy(images).to(weight.device).to(weight.dtype) / 255
        size = self.model.spec.input[1:]
        return F.interpolate(x, size, mode="bilinear", align_corners=False)

    def update(self, inputs, labels):
        """One step; the mean loss and the number right before it, as scalars on the device."""
        self.model.train()
        labels = place_labels(self.model, labels)
        self.optimizer.zero_grad()
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
        with torch.no_grad():
            for images, labels in batches:
                logits, labels = self.model(self.prepare(images)), place_labels(self.model, labels)
                loss += F.cross_entropy(logits, labels, reduction="sum")
                right += count_right(logits, labels)
                count += len(labels)
        return float(loss) / count, float(right) / count

    def places(self):
        """The devices that the last step's tensors really lay on."""
        found = {
            "parameters": list(self.model.state_dict().values()),
            "gradients": [parameter.grad for parameter in self.model.parameters()],
            "state": [
                value
                for state in self.optimizer.state.values()
                for value in state.values()
                if value is not None
            ],
            "batch": self.batch,
            "outputs": self.outputs,
        }
        return {what: {device_name(tensor) for tensor in found[what]} for what in found}


def count_right(logits, labels):
    """How many of the largest logits are the labels', as a scalar on the device."""
    return (logits.argmax(1) == labels).sum()

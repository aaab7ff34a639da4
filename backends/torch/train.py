"""Training in PyTorch: device, precision, one step, evaluation.

PyTorch's conventions: `backward` adds to the gradients, so they are cleared first; tensors are
moved to a device by hand, and an operation between devices raises.
"""

import numpy as np
import torch
from torch.nn import functional as F

from backends.torch import optimizers, parallel
from backends.torch.googlenet import GoogLeNet, tapped
from backends.torch.graph import Graphs
from backends.torch.merged import merge
from backends.torch.weights import tensors, to_canonical
from common.device import has_bfloat16
from common.weights import is_running

VERSION = torch.__version__
WIDTH = 3  # the axis of NCHW


def devices():
    """The devices there are: `cpu`, then `gpu:0` and on."""
    return ["cpu", *(f"gpu:{index}" for index in range(torch.cuda.device_count()))]


def native_device(device):
    """PyTorch's device of that name; it calls a GPU `cuda`."""
    return torch.device(device.replace("gpu", "cuda"))


def device_name(tensor):
    """The contract's name for where a tensor lies."""
    return str(tensor.device).replace("cuda", "gpu")


def fastest(device):
    """The precision that `auto` stands for: `bfloat16` where it is faster, else `float32`."""
    if device == "cpu":
        faster = has_bfloat16()
    else:
        faster = torch.cuda.is_bf16_supported(including_emulation=False)
    return "bfloat16" if faster else "float32"


def build(spec, dtype, device):
    """The network on the device: `float32`, `float64`, or `bfloat16` for mixed precision.

    Mixed precision keeps float32 weights; the arithmetic is what `torch.autocast` makes of it.
    """
    model = GoogLeNet(spec)
    model.mixed = dtype == "bfloat16"
    # with the channels last a step on a CPU takes half the time in bfloat16, 0.7 of it in float32
    last = model.mixed or (device == "cpu" and dtype == "float32")
    model.layout = torch.channels_last if last else torch.contiguous_format
    if model.mixed and device == "cpu" and not spec.norm:
        merge(model)
    weights = torch.float32 if model.mixed else getattr(torch, dtype)
    return model.to(native_device(device), weights, memory_format=model.layout)


def autocast(model):
    """Mixed precision inside this context, if the model was built for it."""
    return torch.autocast(model.head.weight.device.type, torch.bfloat16, enabled=model.mixed)


def out_of_memory(error):
    """Whether PyTorch means by this exception that the memory is too small."""
    return isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error)


def place(model, x):
    """A NumPy array (N, C, H, W) as the model's input: its dtype, layout and device."""
    weight = model.head.weight
    x = moved(np.ascontiguousarray(x), weight.device).to(weight.dtype)
    return x.contiguous(memory_format=model.layout)


def forward(model, x, training):
    """The output of every stage and head by name, as NumPy arrays."""
    model.train(training)
    outputs, x = {}, place(model, x)
    with torch.no_grad():
        for name, _ in model.spec.stages():
            heads = model.auxiliary if name == "stage4" else ()
            x, sides = tapped(getattr(model, name), heads, x)
            outputs[name] = x
            outputs |= {f"auxiliary.{index}": side for index, side in enumerate(sides)}
        outputs["head"] = model.head(x)
    return {name: output.cpu().numpy() for name, output in outputs.items()}


def gradients(model, x, labels):
    """The loss in training mode, and its gradient by canonical name."""
    model.train()
    model.zero_grad()
    loss, _ = objective(model, model(place(model, x)), place_labels(model, labels))
    loss.backward()
    found = tensors(model)
    return loss.item(), {n: to_canonical(n, t.grad) for n, t in found.items() if not is_running(n)}


def place_labels(model, labels):
    """Labels on the model's device."""
    return moved(labels, model.head.weight.device)


def moved(array, device):
    """A NumPy array on the device; from pinned memory to a GPU, so that the host need not wait."""
    tensor = torch.from_numpy(array)
    tensor = tensor.pin_memory() if device.type == "cuda" else tensor
    return tensor.to(device, non_blocking=True)


def logits_of(model, outputs):
    """The logits, then a list of those of the auxiliary heads, all in the weights' dtype."""
    outputs = outputs if model.spec.auxiliary else (outputs,)
    logits, *sides = [output.to(model.head.weight.dtype) for output in outputs]
    return logits, sides


def objective(model, outputs, labels, smoothing=0.0):
    """The mean loss, with the share of each auxiliary head's; and the logits."""
    logits, sides = logits_of(model, outputs)
    loss = F.cross_entropy(logits, labels, label_smoothing=smoothing)
    for row, side in zip(model.spec.auxiliary, sides, strict=True):
        loss = loss + row.share * F.cross_entropy(side, labels, label_smoothing=smoothing)
    return loss, logits


class Trainer:
    """One optimizer over the model's parameters, on the model's device."""

    def __init__(self, model, recipe):
        self.model, self.recipe = model, recipe
        self.network = parallel.engine(model)
        self.optimizer = optimizers.make(model, recipe)
        alone = self.network is model
        self.passes = Graphs(model, self._passes) if alone else self._passes
        self.seen = {}  # the last tensors of a step and of an evaluation, for `places`

    def tune(self, rate, seed):
        """The learning rate of the next step, and what its dropout is drawn from."""
        optimizers.set_rate(self.optimizer, rate)
        torch.manual_seed(seed)

    def prepare(self, images, flips=None):
        """Move uint8 images to the device; there mirror, scale to 0..1, resize to the input."""
        weight = self.model.head.weight
        x = moved(images, weight.device)
        if flips is not None:
            mirrored = moved(flips, weight.device)[:, None, None, None]
            x = torch.where(mirrored, x.flip(WIDTH), x)
        x = x.to(weight.dtype) / 255
        size = self.model.spec.input[1:]
        x = F.interpolate(x, size, mode="bilinear", align_corners=False)
        return x.contiguous(memory_format=self.model.layout)

    def update(self, inputs, labels, share=1.0):
        """One step; the mean loss and the number right before it, as scalars on the device."""
        self.model.train()
        labels = place_labels(self.model, labels)
        self.optimizer.zero_grad()
        loss, logits = self.passes(inputs, labels, share)
        self.optimizer.step()
        self.seen |= {"batch": (inputs, labels), "outputs": (logits, loss)}
        return loss, count_right(logits, labels)

    def _passes(self, inputs, labels, share):
        """Forward and backward: the loss and the logits; gradients are left in the parameters."""
        with autocast(self.model):
            outputs = self.network(inputs)
        loss, logits = objective(self.model, outputs, labels, self.recipe.label_smoothing)
        parallel.weighted(loss, share).backward()
        return loss.detach(), logits.detach()

    def step(self, images, labels, flips=None, share=1.0):
        """One step on uint8 images, some of them mirrored."""
        return self.update(self.prepare(images, flips), labels, share)

    def logits(self, images):
        """The logits of uint8 images in evaluation mode, in the weights' dtype."""
        self.model.eval()
        with torch.no_grad(), autocast(self.model):
            logits, _ = logits_of(self.model, self.model(self.prepare(images)))
            return logits

    def evaluate(self, batches):
        """The mean loss and the accuracy over all batches."""
        parallel.settle(self.model)
        loss, right, count = 0, 0, 0
        for images, labels in batches:
            logits, labels = self.logits(images), place_labels(self.model, labels)
            loss += F.cross_entropy(logits, labels, reduction="sum")
            right += count_right(logits, labels)
            count += len(labels)
        self.seen["evaluation"] = (logits, labels, loss, right)
        return float(loss) / count, float(right) / count

    def predict(self, images):
        """The probabilities (N, classes) of uint8 images, as a NumPy array."""
        return self.logits(images).softmax(1).cpu().numpy()

    def read_state(self):
        """The optimizer's state by slot and canonical name."""
        return optimizers.read_state(self.optimizer, self.model, self.recipe)

    def write_state(self, state, steps):
        """Take over a canonical state, as it was after that many steps."""
        optimizers.write_state(self.optimizer, self.model, self.recipe, state, steps)

    def places(self):
        """The devices that the last tensors of a step, and of an evaluation, really lay on."""
        states = [value for state in self.optimizer.state.values() for value in state.values()]
        found = {
            "parameters": list(self.model.state_dict().values()),
            "gradients": [p.grad for p in self.model.parameters() if p.grad is not None],
            "state": [value for value in states if value is not None and value.ndim],
            **self.seen,
        }
        return {what: {device_name(tensor) for tensor in found[what]} for what in found}


def count_right(logits, labels):
    """How many of the largest logits are the labels', as a scalar on the device."""
    return (logits.argmax(1) == labels).sum()

"""Training in PyTorch: mixed precision, one step, evaluation.

PyTorch's conventions: `backward` adds to the gradients, so they are cleared first; tensors are
moved to a device by hand, and an operation between devices raises.
"""

from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from backends.torch import optimizers, parallel
from backends.torch.device import native_device, place_labels, to_device
from backends.torch.fused import fuse_1x1
from backends.torch.googlenet import GoogLeNet
from backends.torch.graph import Graphs
from common.recipe import Recipe
from common.spec import Spec
from common.weights import Weights

WIDTH = 3  # the axis of NCHW


def build(spec: Spec, dtype: str, device: str) -> GoogLeNet:
    """The network on the device: `float32`, `float64`, or `bfloat16` for mixed precision.

    Mixed precision keeps float32 weights; `torch.autocast` chooses what is computed in bfloat16.
    """
    model = GoogLeNet(spec)
    model.mixed = dtype == "bfloat16"
    # with the channels last a step on a CPU takes half the time in bfloat16, 0.7 of it in float32
    last = model.mixed or (device == "cpu" and dtype == "float32")
    model.layout = torch.channels_last if last else torch.contiguous_format
    if model.mixed and device == "cpu":
        fuse_1x1(model)
    weights = torch.float32 if model.mixed else getattr(torch, dtype)
    return model.to(native_device(device), weights, memory_format=model.layout)


def autocast(model: GoogLeNet) -> torch.autocast:
    """Mixed precision inside this context, if the model was built for it."""
    return torch.autocast(model.head.weight.device.type, torch.bfloat16, enabled=model.mixed)


def split_logits(model: GoogLeNet, outputs: Any) -> tuple[Tensor, list[Tensor]]:
    """The logits, then a list of those of the auxiliary heads, all in the weights' dtype."""
    outputs = outputs if model.spec.auxiliary else [outputs]
    logits, *aux_logits = [output.to(model.head.weight.dtype) for output in outputs]
    return logits, aux_logits


def objective(
    model: GoogLeNet, outputs: Any, labels: Tensor, smoothing: float = 0.0
) -> tuple[Tensor, Tensor]:
    """The mean loss, with the share of each auxiliary head's; and the logits."""
    logits, aux_logits = split_logits(model, outputs)
    loss = F.cross_entropy(logits, labels, label_smoothing=smoothing)
    for row, side in zip(model.spec.auxiliary, aux_logits, strict=True):
        loss = loss + row.share * F.cross_entropy(side, labels, label_smoothing=smoothing)
    return loss, logits


class Trainer:
    """One optimizer over the model's parameters, on the model's device."""

    def __init__(self, model: GoogLeNet, recipe: Recipe) -> None:
        self.model, self.recipe = model, recipe
        self.network = parallel.wrap_model(model)
        self.optimizer = optimizers.make(model, recipe)
        self.waiting = False  # whether there are gradients of earlier parts of the batch
        alone = self.network is model
        self.passes = Graphs(model, self.forward_backward) if alone else self.forward_backward

    def set_step(self, rate: float, seed: int) -> None:
        """The learning rate of the next step, and the seed of its dropout."""
        optimizers.set_rate(self.optimizer, rate)
        torch.manual_seed(seed)

    def prepare(self, images: np.ndarray, flip_mask: np.ndarray | None = None) -> Tensor:
        """Move uint8 images to the device; there mirror, scale to 0..1, resize to the input."""
        weight = self.model.head.weight
        x = to_device(images, weight.device)
        if flip_mask is not None:
            mirrored = to_device(flip_mask, weight.device)[:, None, None, None]
            x = torch.where(mirrored, x.flip(WIDTH), x)
        x = x.to(weight.dtype) / 255
        size = self.model.spec.input[1:]
        x = F.interpolate(x, size, mode="bilinear", align_corners=False)
        return x.contiguous(memory_format=self.model.layout)

    def train_step(
        self, inputs: Tensor, labels: Tensor, weight: float = 1.0, last: bool = True
    ) -> tuple[Tensor, Tensor]:
        """One step; the mean loss and the number correct before it, as scalars on the device."""
        self.model.train()
        if not self.waiting:
            self.optimizer.zero_grad()
        with parallel.sync_gradients(self.network, last):
            loss, correct = self.passes(inputs, labels, weight)
        self.waiting = not last
        if last:
            optimizers.clip_gradients(self.model, self.recipe.clip)
            self.optimizer.step()
        return loss, correct

    def forward_backward(
        self, inputs: Tensor, labels: Tensor, weight: float
    ) -> tuple[Tensor, Tensor]:
        """Loss and number correct; the gradients are left in the parameters."""
        with autocast(self.model):
            outputs = self.network(inputs)
        loss, logits = objective(self.model, outputs, labels, self.recipe.label_smoothing)
        parallel.scale_loss(loss, weight).backward()
        return loss.detach(), count_correct(logits, labels)

    def logits(self, images: np.ndarray) -> Tensor:
        """The logits of uint8 images in evaluation mode, in the weights' dtype."""
        self.model.eval()
        with torch.no_grad(), autocast(self.model):
            logits, _ = split_logits(self.model, self.model(self.prepare(images)))
            return logits

    def evaluate(
        self, batches: Iterable[tuple[np.ndarray, np.ndarray]]
    ) -> tuple[Tensor, Tensor, int]:
        """The summed loss and the number correct, on the device; and how many examples."""
        parallel.sync_batch_norm_stats(self.model)
        loss, correct, count = 0, 0, 0
        for images, labels in batches:
            logits, labels = self.logits(images), place_labels(self.model, labels)
            loss += F.cross_entropy(logits, labels, reduction="sum")
            correct += count_correct(logits, labels)
            count += len(labels)
        return loss, correct, count

    def predict(self, images: np.ndarray) -> np.ndarray:
        """The probabilities (N, classes) of uint8 images, as a NumPy array."""
        return self.logits(images).softmax(1).cpu().numpy()

    def read_state(self) -> dict[str, Weights]:
        """The optimizer's state by slot and canonical name."""
        return optimizers.read_state(self.optimizer, self.model, self.recipe)

    def write_state(self, state: dict[str, Weights], steps: int) -> None:
        """Take over a canonical state, as it was after that many steps."""
        optimizers.write_state(self.optimizer, self.model, self.recipe, state, steps)


def count_correct(logits: Tensor, labels: Tensor) -> Tensor:
    """How many of the largest logits are the labels', as a scalar on the device."""
    return (logits.argmax(1) == labels).sum()

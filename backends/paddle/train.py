"""Training in Paddle: mixed precision, one step, evaluation.

Paddle's conventions: `backward` adds to the gradients, so they are cleared first; new tensors are
made on the current device, which `set_device` chooses; an operation between devices moves its
inputs silently.
"""

from collections.abc import Iterable
from typing import Any

import numpy as np
import paddle
from paddle import Tensor, nn
from paddle.nn import functional as F

from backends.paddle import optimizers, parallel
from backends.paddle.bias import use_matmul_bias
from backends.paddle.device import device_name, place_labels
from backends.paddle.googlenet import GoogLeNet
from backends.paddle.layers import WIDTH
from backends.paddle.split import SplitPasses
from common.errors import DeviceError
from common.recipe import Recipe
from common.spec import Spec
from common.weights import Weights

CLASSES = 1  # the axis of logits


def build(spec: Spec, dtype: str, device: str) -> GoogLeNet:
    """The network on the device: `float32`, `float64`, or `bfloat16` for mixed precision.

    Mixed precision keeps float32 weights; `paddle.amp` chooses what is computed in bfloat16.
    DeviceError on a CPU, where Paddle has no bfloat16 kernels and would go on in float32.
    """
    mixed = dtype == "bfloat16"
    if mixed and (device == "cpu" or not paddle.amp.is_bfloat16_supported(device)):
        raise DeviceError(
            f"Paddle cannot compute in bfloat16 on {device}: give `--precision float32`."
        )
    paddle.set_device(device)
    model = GoogLeNet(spec)
    model.mixed = mixed
    if device == "cpu":
        use_matmul_bias(model)
    return model.to(device, "float32" if mixed else dtype)


def autocast(model: GoogLeNet) -> paddle.amp.auto_cast:
    """Mixed precision inside this context, if the model was built for it."""
    return paddle.amp.auto_cast(model.mixed, dtype="bfloat16")


def cross_entropy(logits: Tensor, labels: Tensor, smoothing: float = 0.0) -> Tensor:
    """The mean loss.

    Paddle's own treats a logit that is more than 64 below the largest as exactly 64 below, and its
    smoothing is rounded to float32, even in float64.
    """
    classes = logits.shape[CLASSES]
    target = F.one_hot(labels, classes).astype(logits.dtype) * (1 - smoothing) + smoothing / classes
    return (paddle.logsumexp(logits, CLASSES) - (target * logits).sum(CLASSES)).mean()


def split_logits(model: GoogLeNet, outputs: Any) -> tuple[Tensor, list[Tensor]]:
    """The logits, then a list of those of the auxiliary heads, all in the weights' dtype."""
    outputs = outputs if model.spec.auxiliary else [outputs]
    logits, *aux_logits = [output.astype(model.head.weight.dtype) for output in outputs]
    return logits, aux_logits


def objective(
    model: GoogLeNet, outputs: Any, labels: Tensor, smoothing: float = 0.0
) -> tuple[Tensor, Tensor]:
    """The mean loss, with the share of each auxiliary head's; and the logits."""
    logits, aux_logits = split_logits(model, outputs)
    loss = cross_entropy(logits, labels, smoothing)
    for row, side in zip(model.spec.auxiliary, aux_logits, strict=True):
        loss = loss + row.share * cross_entropy(side, labels, smoothing)
    return loss, logits


class Trainer:
    """One optimizer over the model's parameters, on the model's device."""

    def __init__(self, model: GoogLeNet, recipe: Recipe) -> None:
        self.model, self.recipe = model, recipe
        self.network = parallel.wrap_model(model)
        paddle.set_device(device_name(model.head.weight))  # where the optimizer's state will lie
        self.optimizer = optimizers.make(model, recipe)
        self.waiting = False  # whether there are gradients of earlier parts of the batch
        self.passes = SplitPasses(self.network, self.forward_backward)

    def set_step(self, rate: float, seed: int) -> None:
        """The learning rate of the next step, and the seed of its dropout."""
        optimizers.set_rate(self.optimizer, rate)
        paddle.seed(seed)

    def prepare(self, images: np.ndarray, flip_mask: np.ndarray | None = None) -> Tensor:
        """Move uint8 images to the device; there mirror, scale to 0..1, resize to the input."""
        weight = self.model.head.weight
        x = paddle.to_tensor(images, place=weight.place).astype(weight.dtype)
        if flip_mask is not None:  # Paddle mirrors no uint8
            mirrored = paddle.to_tensor(flip_mask, place=weight.place)[:, None, None, None]
            x = paddle.where(mirrored, x.flip(WIDTH), x)
        x = x / 255
        sides = self.model.spec.input[1:]
        # one pixel would be the corner's: the middle one of three lies where it should
        size = [3 if side == 1 else side for side in sides]
        x = F.interpolate(x, size, mode="bilinear", align_corners=False, align_mode=0)
        middle = tuple(slice(1, 2) if side == 1 else slice(None) for side in sides)
        return x[(..., *middle)] if 1 in sides else x

    def train_step(
        self, inputs: Tensor, labels: Tensor, weight: float = 1.0, last: bool = True
    ) -> tuple[Tensor, Tensor]:
        """One step; the mean loss and the number correct before it, as scalars on the device."""
        self.model.train()
        if not self.waiting:
            self.optimizer.clear_grad()
        with parallel.sync_gradients(self.network, last):
            loss, correct = self.passes(inputs, labels, weight)
        self.waiting = not last
        if last:
            optimizers.clip_gradients(self.model, self.recipe.clip)
            self.optimizer.step()
        return loss, correct

    def forward_backward(
        self, network: nn.Layer, inputs: Tensor, labels: Tensor, weight: float
    ) -> tuple[Tensor, Tensor]:
        """Loss and number correct; the gradients are left in the network's parameters."""
        with autocast(self.model):
            outputs = network(inputs)
        loss, logits = objective(self.model, outputs, labels, self.recipe.label_smoothing)
        parallel.scale_loss(loss, weight).backward()
        return loss.detach(), count_correct(logits, labels)

    def logits(self, images: np.ndarray) -> Tensor:
        """The logits of uint8 images in evaluation mode, in the weights' dtype."""
        self.model.eval()
        with paddle.no_grad(), autocast(self.model):
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
            loss += cross_entropy(logits, labels) * len(labels)
            correct += count_correct(logits, labels)
            count += len(labels)
        return loss, correct, count

    def predict(self, images: np.ndarray) -> np.ndarray:
        """The probabilities (N, classes) of uint8 images, as a NumPy array."""
        return F.softmax(self.logits(images)).numpy()

    def read_state(self) -> dict[str, Weights]:
        """The optimizer's state by slot and canonical name."""
        return optimizers.read_state(self.optimizer, self.model, self.recipe)

    def write_state(self, state: dict[str, Weights], steps: int) -> None:
        """Take over a canonical state, as it was after that many steps."""
        optimizers.write_state(self.optimizer, self.model, self.recipe, state, steps)


def count_correct(logits: Tensor, labels: Tensor) -> Tensor:
    """How many of the largest logits are the labels', as a scalar on the device."""
    return (logits.argmax(CLASSES) == labels).sum()

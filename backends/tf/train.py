"""Training in TensorFlow: precision, one step, evaluation.

TensorFlow's conventions: `tf.function` turns a step into a graph; the tape returns gradients and
never adds them up; everything made inside `tf.device` lies on that device.
"""

from collections.abc import Iterable
from typing import Any

import numpy as np
import tensorflow as tf
from tensorflow import Tensor

from backends.tf import optimizers, parallel
from backends.tf.device import device_of, native_device, place_labels
from backends.tf.googlenet import GoogLeNet
from backends.tf.layers import WIDTH
from common.recipe import Recipe
from common.spec import Spec
from common.weights import Weights


def build(spec: Spec, dtype: str, device: str) -> GoogLeNet:
    """The network on the device: `float32`, `float64`, or `bfloat16` for mixed precision.

    Mixed precision keeps float32 weights; the arithmetic is what Keras's `mixed_bfloat16` makes.
    """
    channels, height, width = spec.input
    with native_device(device):
        model = GoogLeNet(spec, dtype="mixed_bfloat16" if dtype == "bfloat16" else dtype)
        model.build((None, height, width, channels))
    return model


def cross_entropy(logits: Tensor, labels: Tensor, smoothing: float = 0.0) -> Tensor:
    """The mean over the batch, of one-hot labels: the sparse loss has no float64 GPU kernel."""
    classes = logits.shape[-1]
    hot = tf.one_hot(labels, classes, dtype=logits.dtype)
    hot = (1 - smoothing) * hot + smoothing / classes
    return tf.reduce_mean(tf.nn.softmax_cross_entropy_with_logits(hot, logits))


def split_logits(model: GoogLeNet, outputs: Any) -> tuple[Tensor, list[Tensor]]:
    """The logits, then a list of those of the auxiliary heads, all in the weights' dtype."""
    outputs = outputs if model.spec.auxiliary else [outputs]
    logits, *aux_logits = [tf.cast(output, model.variable_dtype) for output in outputs]
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
        parallel.sync_batch_norm_stats(model)
        with device_of(model):  # where the optimizer's state will lie
            self.optimizer = optimizers.make(model, recipe)
        self.gradients: list[Tensor] = []  # of the last step
        # One graph for all batches and images: a resumed run goes through the very same one.
        inputs = tf.TensorSpec((None, None, None, model.spec.input[0]), model.variable_dtype)
        labels = tf.TensorSpec((None,), tf.int64)
        weight = tf.TensorSpec((), model.variable_dtype)
        with device_of(model):
            trained = model.trainable_variables if recipe.accumulate > 1 else []
            self.zeros = [tf.zeros_like(variable) for variable in trained]
        self.earlier = self.zeros  # the gradients of the batch's parts until now
        earlier = [tf.TensorSpec.from_tensor(gradient) for gradient in self.zeros]
        signature = (inputs, labels, weight, earlier)
        self.part_graph = tf.function(parallel.wrap_model(self.part_step), signature)
        self.step_graph = tf.function(parallel.wrap_model(self.whole_step), signature)
        self.logits_graph = tf.function(self.eval_logits, (inputs,))

    def set_step(self, rate: float, seed: int) -> None:
        """The learning rate of the next step, and the seed of its dropout."""
        with device_of(self.model):
            optimizers.set_rate(self.optimizer, rate)
            heads: list[Any] = [self.model, *self.model.auxiliary]
            for index, head in enumerate(heads):
                if head.dropout.rate:  # each head draws its own; the second number counts draws
                    head.dropout.seed_generator.state.assign((seed + index, 0))

    def prepare(self, images: np.ndarray, flip_mask: np.ndarray | None = None) -> Tensor:
        """Move uint8 images to the device; there mirror, scale to 0..1, resize to the input."""
        with device_of(self.model):
            x = tf.cast(tf.constant(images.transpose(0, 2, 3, 1)), self.model.variable_dtype)
            if flip_mask is not None:  # after the cast: TensorFlow selects no uint8 on a GPU
                mirrored = tf.constant(flip_mask[:, None, None, None])
                x = tf.where(mirrored, tf.reverse(x, (WIDTH,)), x)
            x = tf.image.resize(x / 255, self.model.spec.input[1:], "bilinear")
            return tf.cast(x, self.model.variable_dtype)  # the resize gives float32, always

    def train_step(
        self, inputs: Tensor, labels: Tensor, weight: float = 1.0, last: bool = True
    ) -> tuple[Tensor, Tensor]:
        """One step; the mean loss and the number correct before it, as scalars on the device."""
        with device_of(self.model):
            weight = tf.constant(weight, self.model.variable_dtype)
            graph = self.step_graph if last else self.part_graph
            loss, correct, self.gradients = graph(inputs, labels, weight, self.earlier)
            self.earlier = self.zeros if last else self.gradients
        return loss, correct

    def whole_step(
        self, inputs: Tensor, labels: Tensor, weight: Tensor, earlier: list[Tensor]
    ) -> tuple[Tensor, Tensor, list[Tensor]]:
        """The whole step, as it becomes a graph: loss, number correct, gradients."""
        loss, correct, gradients = self.part_step(inputs, labels, weight, earlier)
        gradients = optimizers.clip_gradients(gradients, self.recipe.clip)
        self.optimizer.apply(gradients)
        return loss, correct, gradients

    def part_step(
        self, inputs: Tensor, labels: Tensor, weight: Tensor, earlier: list[Tensor]
    ) -> tuple[Tensor, Tensor, list[Tensor]]:
        """Loss, number correct and summed gradients of a part of a batch; no weight changes."""
        with tf.GradientTape() as tape:
            outputs = self.model(inputs, training=True)
            loss, logits = objective(self.model, outputs, labels, self.recipe.label_smoothing)
            scaled = parallel.scale_loss(loss, weight)
        gradients = tape.gradient(scaled, self.model.trainable_variables)
        if earlier:
            gradients = [new + old for new, old in zip(gradients, earlier, strict=True)]
        return loss, count_correct(logits, labels), gradients

    def logits(self, images: np.ndarray) -> Tensor:
        """The logits of uint8 images in evaluation mode, in the weights' dtype."""
        inputs = self.prepare(images)
        with device_of(self.model):
            return self.logits_graph(inputs)

    def eval_logits(self, inputs: Tensor) -> Tensor:
        """The same of native inputs, as it becomes a graph."""
        logits, _ = split_logits(self.model, self.model(inputs, training=False))
        return logits

    def evaluate(
        self, batches: Iterable[tuple[np.ndarray, np.ndarray]]
    ) -> tuple[Tensor, Tensor, int]:
        """The summed loss and the number correct, on the device; and how many examples."""
        loss, correct, count = 0, 0, 0
        for images, labels in batches:
            logits, labels = self.logits(images), place_labels(self.model, labels)
            with device_of(self.model):
                loss += cross_entropy(logits, labels) * len(labels)
                correct += count_correct(logits, labels)
            count += len(labels)
        return loss, correct, count

    def predict(self, images: np.ndarray) -> np.ndarray:
        """The probabilities (N, classes) of uint8 images, as a NumPy array."""
        with device_of(self.model):
            return tf.nn.softmax(self.logits(images)).numpy()

    def read_state(self) -> dict[str, Weights]:
        """The optimizer's state by slot and canonical name."""
        return optimizers.read_state(self.optimizer, self.model, self.recipe)

    def write_state(self, state: dict[str, Weights], steps: int) -> None:
        """Take over a canonical state, as it was after that many steps."""
        optimizers.write_state(self.optimizer, self.model, self.recipe, state, steps)


def count_correct(logits: Tensor, labels: Tensor) -> Tensor:
    """How many of the largest logits are the labels', as a scalar on the device."""
    hits = tf.equal(tf.argmax(logits, axis=1), labels)
    return tf.reduce_sum(tf.cast(hits, tf.float32))  # int32 would lie in the host's memory

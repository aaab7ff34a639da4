"""Training in TensorFlow: device, precision, one step, evaluation.

TensorFlow's conventions: `tf.function` turns a step into a graph; the tape returns gradients and
never adds them up; everything made inside `tf.device` lies on that device.
"""

import keras
import numpy as np
import tensorflow as tf

from backends.tf.googlenet import GoogLeNet
from backends.tf.weights import tensors, to_canonical
from common.weights import is_running

VERSION = tf.__version__

# By default TensorFlow runs an operation elsewhere when the device asked for cannot.
tf.config.set_soft_device_placement(False)

for gpu in tf.config.list_physical_devices("GPU"):  # else the first process takes all its memory
    tf.config.experimental.set_memory_growth(gpu, True)


def devices():
    """The devices there are: `cpu`, then `gpu:0` and on."""
    return [
        "cpu",
        *(f"gpu:{index}" for index in range(len(tf.config.list_physical_devices("GPU")))),
    ]


def native_device(device):
    """TensorFlow's device of that name."""
    return tf.device(f"/{device.upper()}")


def device_name(tensor):
    """The contract's name for where a tensor lies."""
    found = tf.DeviceSpec.from_string(tensor.device)
    kind = found.device_type.lower()
    return kind if (kind, found.device_index) == ("cpu", 0) else f"{kind}:{found.device_index}"


def build(spec, dtype, device):
    """The network on the device, in `float32` or `float64`."""
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(dtype)  # layers take theirs when they are made
    try:
        with native_device(device):
            model = GoogLeNet(spec)
            channels, height, width = spec.input
            model(tf.zeros((1, height, width, channels), dtype))  # makes the variables
    finally:
        keras.config.set_dtype_policy(before)
    model.device = device
    return model


def place(model, x):
    """A NumPy array (N, C, H, W) as the model's input: its dtype, layout and device."""
    with native_device(model.device):
        return tf.constant(x.transpose(0, 2, 3, 1), model.head.kernel.dtype)


def forward(model, x, training):
    """Every stage's output by name, as NumPy arrays."""
    outputs, x = {}, place(model, x)
    with native_device(model.device):
        for name in (*(name for name, _ in model.spec.stages()), "head"):
            x = getattr(model, name)(x, training=training)
            outputs[name] = np.moveaxis(x.numpy(), -1, 1)
    return outputs


def gradients(model, x, labels):
    """The loss in training mode, and its gradient by canonical name."""
    trained = {n: v for n, v in tensors(model).items() if not is_running(n)}
    inputs, labels = place(model, x), place_labels(model, labels)
    with native_device(model.device):
        with tf.GradientTape() as tape:
            loss = cross_entropy(model(inputs, training=True), labels)
        found = tape.gradient(loss, [v.value for v in trained.values()])
    return float(loss), {n: to_canonical(n, g) for n, g in zip(trained, found, strict=True)}


def place_labels(model, labels):
    """Labels on the model's device."""
    with native_device(model.device):
        return tf.constant(labels)


def cross_entropy(logits, labels):
    """The mean over the batch, of one-hot labels: the sparse loss has no float64 GPU kernel."""
    hot = tf.one_hot(labels, logits.shape[-1], dtype=logits.dtype)
    return tf.reduce_mean(tf.nn.softmax_cross_entropy_with_logits(hot, logits))


class Trainer:
    """One optimizer over the model's parameters, on the device."""

    def __init__(self, model, recipe):
        self.model = model
        with native_device(model.device):  # where the optimizer's state will lie
            # Keras keeps the learning rate inside the velocity: the same while the rate is constant
            self.optimizer = keras.optimizers.SGD(recipe.lr, recipe.momentum)
            self.optimizer.build(model.trainable_variables)

    def prepare(self, images):
        """Move uint8 images to the device; there scale to 0..1 and resize to the spec's input."""
        with native_device(self.model.device):
            x = tf.cast(tf.constant(images.transpose(0, 2, 3, 1)), tf.float32) / 255
            x = tf.image.resize(x, self.model.spec.input[1:], "bilinear")
            return tf.cast(x, self.model.head.kernel.dtype)

    def update(self, inputs, labels):
        """One step; the mean loss and the number right before it, as scalars on the device."""
        labels = place_labels(self.model, labels)
        with native_device(self.model.device):
            loss, right, logits, self.gradients = self._update(inputs, labels)
        self.batch, self.outputs = (inputs, labels), (logits, loss)
        return loss, right

    @tf.function(reduce_retracing=True)
    def _update(self, inputs, labels):
        with tf.GradientTape() as tape:
            logits = self.model(inputs, training=True)
            loss = cross_entropy(logits, labels)
        gradients = tape.gradient(loss, self.model.trainable_variables)
        self.optimizer.apply(gradients)
        return loss, count_right(logits, labels), logits, gradients

    def step(self, images, labels):
        """One step on uint8 images."""
        return self.update(self.prepare(images), labels)

    def evaluate(self, batches):
        """The mean loss and the accuracy over all batches."""
        loss, right, count = 0, 0, 0
        for images, labels in batches:
            with native_device(self.model.device):
                inputs, labels = self.prepare(images), place_labels(self.model, labels)
                batch_loss, batch_right = self._evaluate(inputs, labels)
                loss += batch_loss * len(labels)
                right += batch_right
                count += len(labels)
        return float(loss) / count, float(right) / count

    @tf.function(reduce_retracing=True)
    def _evaluate(self, inputs, labels):
        logits = self.model(inputs, training=False)
        return cross_entropy(logits, labels), count_right(logits, labels)

    def places(self):
        """The devices that the last step's tensors really lay on."""
        found = {
            "parameters": [variable.value for variable in self.model.variables],
            "gradients": self.gradients,
            "state": [variable.value for variable in self.optimizer.variables],
            "batch": self.batch,
            "outputs": self.outputs,
        }
        return {what: {device_name(tensor) for tensor in found[what]} for what in found}


def count_right(logits, labels):
    """How many of the largest logits are the labels', as a scalar on the device."""
    hits = tf.equal(tf.argmax(logits, axis=1), labels)
    return tf.reduce_sum(tf.cast(hits, tf.float32))

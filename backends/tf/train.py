"""Training in TensorFlow: device, precision, one step, evaluation.

TensorFlow's conventions: `tf.function` turns a step into a graph; the tape returns gradients and
never adds them up; everything made inside `tf.device` lies on that device.
"""

import keras
import numpy as np
import tensorflow as tf

from backends.tf import optimizers, parallel
from backends.tf.googlenet import GoogLeNet, run_stage
from backends.tf.weights import tensors, to_canonical
from common.device import has_bfloat16
from common.weights import is_running

VERSION = tf.__version__
WIDTH = 2  # the axis of NHWC

# By default TensorFlow runs an operation elsewhere when the device asked for cannot.
tf.config.set_soft_device_placement(False)

# This pass sums in an order that differs from process to process: no run could be repeated.
tf.config.optimizer.set_experimental_options({"arithmetic_optimization": False})

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


def fastest(device):
    """The precision that `auto` stands for: `bfloat16` where it is faster, else `float32`."""
    if device == "cpu":
        faster = has_bfloat16()
    else:
        gpu = tf.config.list_physical_devices("GPU")[int(device.removeprefix("gpu:"))]
        found = tf.config.experimental.get_device_details(gpu)
        faster = found.get("compute_capability", (0, 0)) >= (8, 0)
    return "bfloat16" if faster else "float32"


def build(spec, dtype, device):
    """The network on the device: `float32`, `float64`, or `bfloat16` for mixed precision.

    Mixed precision keeps float32 weights; the arithmetic is what Keras's `mixed_bfloat16` makes.
    """
    before = keras.config.dtype_policy()
    policy = "mixed_bfloat16" if dtype == "bfloat16" else dtype
    keras.config.set_dtype_policy(policy)  # layers take theirs when they are made
    try:
        with native_device(device):
            model = GoogLeNet(spec)
            channels, height, width = spec.input
            model(tf.zeros((1, height, width, channels), model.variable_dtype))  # makes variables
    finally:
        keras.config.set_dtype_policy(before)
    model.device = device
    return model


def out_of_memory(error):
    """Whether TensorFlow means by this exception that the memory is too small."""
    return isinstance(error, tf.errors.ResourceExhaustedError)


def place(model, x):
    """A NumPy array (N, C, H, W) as the model's input: its dtype, layout and device."""
    with native_device(model.device):
        return tf.constant(x.transpose(0, 2, 3, 1), model.head.kernel.dtype)


def forward(model, x, training):
    """The output of every stage and head by name, as NumPy arrays."""
    outputs, x = {}, place(model, x)
    with native_device(model.device):
        for name, _ in model.spec.stages():
            heads = model.auxiliary if name == "stage4" else ()
            x, sides = run_stage(getattr(model, name), heads, x, training=training)
            outputs[name] = x
            outputs |= {f"auxiliary.{index}": side for index, side in enumerate(sides)}
        outputs["head"] = model.head(x)
    return {name: np.moveaxis(output.numpy(), -1, 1) for name, output in outputs.items()}


def gradients(model, x, labels):
    """The loss in training mode, and its gradient by canonical name."""
    trained = {n: v for n, v in tensors(model).items() if not is_running(n)}
    inputs, labels = place(model, x), place_labels(model, labels)
    with native_device(model.device):
        with tf.GradientTape() as tape:
            loss, _ = objective(model, model(inputs, training=True), labels)
        found = tape.gradient(loss, [v.value for v in trained.values()])
    return float(loss), {n: to_canonical(n, g) for n, g in zip(trained, found, strict=True)}


def place_labels(model, labels):
    """Labels on the model's device."""
    with native_device(model.device):
        return tf.constant(labels)


def cross_entropy(logits, labels, smoothing=0.0):
    """The mean over the batch, of one-hot labels: the sparse loss has no float64 GPU kernel."""
    classes = logits.shape[-1]
    hot = tf.one_hot(labels, classes, dtype=logits.dtype)
    hot = (1 - smoothing) * hot + smoothing / classes
    return tf.reduce_mean(tf.nn.softmax_cross_entropy_with_logits(hot, logits))


def logits_of(model, outputs):
    """The logits, then a list of those of the auxiliary heads, all in the weights' dtype."""
    outputs = outputs if model.spec.auxiliary else (outputs,)
    logits, *sides = [tf.cast(output, model.variable_dtype) for output in outputs]
    return logits, sides


def objective(model, outputs, labels, smoothing=0.0):
    """The mean loss, with the share of each auxiliary head's; and the logits."""
    logits, sides = logits_of(model, outputs)
    loss = cross_entropy(logits, labels, smoothing)
    for row, side in zip(model.spec.auxiliary, sides, strict=True):
        loss = loss + row.share * cross_entropy(side, labels, smoothing)
    return loss, logits


class Trainer:
    """One optimizer over the model's parameters, on the model's device."""

    def __init__(self, model, recipe):
        self.model, self.recipe = model, recipe
        parallel.sync_batch_norm_stats(model)
        with native_device(model.device):  # where the optimizer's state will lie
            self.optimizer = optimizers.make(model, recipe)
        inputs = tf.TensorSpec((None, None, None, model.spec.input[0]), model.variable_dtype)
        labels = tf.TensorSpec((None,), tf.int64)
        # One graph for all batches and images: a resumed run goes through the very same one.
        share = tf.TensorSpec((), model.variable_dtype)
        self._update = tf.function(parallel.wrap_model(self._update), (inputs, labels, share))
        self._logits = tf.function(self._logits, (inputs,))
        self.seen = {}  # the last tensors of a step and of an evaluation, for `places`

    def set_step(self, rate, seed):
        """The learning rate of the next step, and what its dropout is drawn from."""
        with native_device(self.model.device):
            optimizers.set_rate(self.optimizer, rate)
            for index, head in enumerate((self.model, *self.model.auxiliary)):
                if head.dropout.rate:  # each head draws its own; the second number counts draws
                    head.dropout.seed_generator.state.assign((seed + index, 0))

    def prepare(self, images, flip_mask=None):
        """Move uint8 images to the device; there scale to 0..1, mirror, resize to the input."""
        with native_device(self.model.device):
            x = tf.cast(tf.constant(images.transpose(0, 2, 3, 1)), tf.float32) / 255
            if flip_mask is not None:
                mirrored = tf.constant(flip_mask[:, None, None, None])
                x = tf.where(mirrored, tf.reverse(x, (WIDTH,)), x)
            x = tf.image.resize(x, self.model.spec.input[1:], "bilinear")
            return tf.cast(x, self.model.variable_dtype)

    def update(self, inputs, labels, share=1.0):
        """One step; the mean loss and the number right before it, as scalars on the device."""
        labels = place_labels(self.model, labels)
        with native_device(self.model.device):
            share = tf.constant(share, self.model.variable_dtype)
            loss, right, logits, gradients = self._update(inputs, labels, share)
        self.seen |= {"gradients": gradients, "batch": (inputs, labels), "outputs": (logits, loss)}
        return loss, right

    def _update(self, inputs, labels, share):
        with tf.GradientTape() as tape:
            outputs = self.model(inputs, training=True)
            loss, logits = objective(self.model, outputs, labels, self.recipe.label_smoothing)
            goal = parallel.scale_loss(loss, share)
        gradients = tape.gradient(goal, self.model.trainable_variables)
        self.optimizer.apply(gradients)
        return loss, count_correct(logits, labels), logits, gradients

    def step(self, images, labels, flip_mask=None, share=1.0):
        """One step on uint8 images, some of them mirrored."""
        return self.update(self.prepare(images, flip_mask), labels, share)

    def logits(self, images):
        """The logits of uint8 images in evaluation mode, in the weights' dtype."""
        inputs = self.prepare(images)
        with native_device(self.model.device):
            return self._logits(inputs)

    def _logits(self, inputs):
        logits, _ = logits_of(self.model, self.model(inputs, training=False))
        return logits

    def evaluate(self, batches):
        """The mean loss and the accuracy over all batches."""
        loss, right, count = 0, 0, 0
        for images, labels in batches:
            logits, labels = self.logits(images), place_labels(self.model, labels)
            with native_device(self.model.device):
                loss += cross_entropy(logits, labels) * len(labels)
                right += count_correct(logits, labels)
            count += len(labels)
        self.seen["evaluation"] = (logits, labels, loss, right)
        return float(loss) / count, float(right) / count

    def predict(self, images):
        """The probabilities (N, classes) of uint8 images, as a NumPy array."""
        with native_device(self.model.device):
            return tf.nn.softmax(self.logits(images)).numpy()

    def read_state(self):
        """The optimizer's state by slot and canonical name."""
        return optimizers.read_state(self.optimizer, self.model, self.recipe)

    def write_state(self, state, steps):
        """Take over a canonical state, as it was after that many steps."""
        optimizers.write_state(self.optimizer, self.model, self.recipe, state, steps)

    def places(self):
        """The devices that the last tensors of a step, and of an evaluation, really lay on."""
        found = {
            "parameters": [variable.value for variable in self.model.variables],
            "gradients": [],
            "state": [variable.value for variable in self.optimizer.variables],
            **self.seen,
        }
        return {what: {device_name(tensor) for tensor in found[what]} for what in found}


def count_correct(logits, labels):
    """How many of the largest logits are the labels', as a scalar on the device."""
    hits = tf.equal(tf.argmax(logits, axis=1), labels)
    return tf.reduce_sum(tf.cast(hits, tf.float32))

"""The book's training step in TensorFlow: Keras's compiled `fit`, float32, metrics every batch."""

import keras
import tensorflow as tf

from backends.tf import GoogLeNet

#: what a user would write today, with `fit` over all steps: the name, and the line for a new loop
TODAY = {
    "fit": lambda loop: setattr(loop.net, "jit_compile", False),
    "fit, jit_compile": lambda loop: setattr(loop.net, "jit_compile", True),
}


class Published:
    """d2l's `compile` and `fit` on a device, one batch at a time; our network, with its padding."""

    def __init__(self, spec, device="cpu", lr=0.1):
        # TensorFlow's defaults, which our backend changes for the whole process
        tf.config.optimizer.set_experimental_options({"arithmetic_optimization": True})
        tf.config.set_soft_device_placement(True)
        with tf.distribute.OneDeviceStrategy(f"/{device.upper()}").scope():
            self.net = GoogLeNet(spec)
            self.net.compile(
                optimizer=keras.optimizers.SGD(lr),
                loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
                metrics=["accuracy"],
            )

    def step(self, images, labels):
        """One step on images (N, C, H, W) and labels (N,), NumPy; both means so far."""
        loss, accuracy = self.net.train_on_batch(images.transpose(0, 2, 3, 1), labels)
        return float(loss), float(accuracy)

    def fit(self, images, labels, steps, begin):
        """That many steps by `fit`, on images and labels as above; both means of all steps.

        It calls `begin` before the first: the start of an epoch takes longer than a small step.
        """
        batch = tf.data.Dataset.from_tensors((images.transpose(0, 2, 3, 1), labels))
        first = keras.callbacks.LambdaCallback(
            on_train_batch_begin=lambda step, logs: step or begin()
        )
        found = self.net.fit(
            batch.repeat(), steps_per_epoch=steps, verbose=0, callbacks=[first]
        ).history
        return found["loss"][0], found["accuracy"][0]

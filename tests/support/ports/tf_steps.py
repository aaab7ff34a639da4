"""Training steps for Keras as people write them, right and wrong, of a network with norms."""

import keras
import tensorflow as tf

from backends.tf import GoogLeNet
from common.spec import MINI

keras.config.set_dtype_policy("float64")
net = GoogLeNet(MINI)

crossentropy = keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def trains(
    optimizer,
    loss=crossentropy,
    weights=lambda net: net.trainable_variables,
    mode=True,
    graph=False,
):
    """A function that makes a step of these parts."""

    def make_step(net):
        update = optimizer()

        def step(images, labels):
            with tf.GradientTape() as tape:
                value = loss(labels, net(images, training=mode))
            update.apply(tape.gradient(value, weights(net)), weights(net))

        return tf.function(step) if graph else step

    return make_step


def fitted(net):
    """What `fit` does with one batch."""
    net.compile(keras.optimizers.SGD(0.1), crossentropy)
    return lambda images, labels: net.train_on_batch(images, labels)


def sgd():
    """Plain SGD at the book's rate."""
    return keras.optimizers.SGD(0.1)


def with_rate(net):
    """A step that takes a rate: Keras puts it into the velocity."""
    update = keras.optimizers.SGD(0.1, momentum=0.9)

    def step(images, labels, rate):
        update.learning_rate = rate
        with tf.GradientTape() as tape:
            value = crossentropy(labels, net(images, training=True))
        variables = net.trainable_variables
        update.apply(tape.gradient(value, variables), variables)

    return step


def validating_in_training_mode(net):
    """A step that also runs the network on other images."""
    update = trains(sgd)(net)

    def step(images, labels):
        update(images, labels)
        net(images[:, ::-1] / 2, training=True)

    return step


book = trains(sgd, graph=True)
adam = trains(lambda: keras.optimizers.Adam(1e-3))
adamw = trains(lambda: keras.optimizers.AdamW(1e-3, weight_decay=0.01))
# not in a graph: there Keras finds the softmax right in front of the loss, and goes around it
twice = trains(sgd, lambda y, z: crossentropy(y, tf.nn.softmax(z)))
summed = trains(sgd, keras.losses.SparseCategoricalCrossentropy(from_logits=True, reduction="sum"))
probabilities = keras.losses.SparseCategoricalCrossentropy()
sparse = trains(sgd, lambda y, z: probabilities(y, z))
hot = trains(sgd, lambda y, z: keras.losses.categorical_crossentropy(tf.one_hot(y, 10), z))
frozen = trains(sgd, weights=lambda net: net.trainable_variables[:-2])
evaluating = trains(sgd, mode=False)
velocity = with_rate
validates = validating_in_training_mode

#: by the function: the recipe that it is compared with, words of the rule, the mistakes
STEPS = {
    "book": ("d2l", "SGD without momentum, rate 0.1, no weight decay", set()),
    "fitted": ("d2l", "SGD without momentum, rate 0.1, no weight decay", set()),
    "adam": ("blog-224", "Adam, eps 1e-07 beside the root before", {"update-rule"}),
    "adamw": (None, "rate 0.001, weight decay 0.01 on every weight, beside", set()),
    "twice": (None, "SGD", {"double-softmax"}),
    "summed": ("d2l", "SGD", {"summed-loss"}),
    "sparse": (None, "SGD", {"from-logits"}),
    "hot": (None, "SGD", {"from-logits"}),
    "frozen": (None, "SGD", {"frozen-weights"}),
    "evaluating": (None, "SGD", {"norm-evaluation-mode", "norm-not-updated"}),
    "validates": ("d2l", "SGD", {"norm-statistics"}),
    "velocity": (None, "SGD with momentum 0.9", {"rate-in-velocity"}),
}

"""Ports of GoogLeNet to TensorFlow as people write them, with an eighth of the widths.

`RIGHT` has networks that are the reference's function, `WRONG` those with mistakes and their names.
"""

import keras
import numpy as np
import tensorflow as tf
from keras import layers

BLOCKS = [
    (8, (12, 16), (2, 4), 4),
    (16, (16, 24), (4, 12), 8),
    None,
    (24, (12, 26), (2, 6), 8),
    (20, (14, 28), (3, 8), 8),
    (16, (16, 32), (3, 8), 8),
    (14, (18, 36), (4, 8), 8),
    (32, (20, 40), (4, 16), 16),
    None,
    (32, (20, 40), (4, 16), 16),
    (48, (24, 48), (6, 16), 16),
]


class Block(keras.Model):
    """The book's block."""

    order = (0, 1, 2, 3)

    def __init__(self, c1, c2, c3, c4, reduce="relu"):
        super().__init__()
        self.p1_1 = layers.Conv2D(c1, 1, activation="relu")
        self.p2_1 = layers.Conv2D(c2[0], 1, activation=reduce)
        self.p2_2 = layers.Conv2D(c2[1], 3, padding="same", activation="relu")
        self.p3_1 = layers.Conv2D(c3[0], 1, activation="relu")
        self.p3_2 = layers.Conv2D(c3[1], 5, padding="same", activation="relu")
        self.p4_1 = layers.MaxPool2D(3, 1, padding="same")
        self.p4_2 = layers.Conv2D(c4, 1, activation="relu")

    def call(self, x):
        parts = [
            self.p1_1(x),
            self.p2_2(self.p2_1(x)),
            self.p3_2(self.p3_1(x)),
            self.p4_2(self.p4_1(x)),
        ]
        return layers.Concatenate()([parts[i] for i in self.order])


class SwappedBlock(Block):
    order = (0, 1, 3, 2)


def padded(window, side):
    """A layer behind zeros on all four sides."""
    return [layers.ZeroPadding2D(side), window]


def book(block=Block, same=False, end=None, rows=None, around=1):
    """The book's Sequential; `same` is its own padding, which is off centre.

    `around` is the padding of the pools.
    """
    if same:
        first = [layers.Conv2D(8, 7, strides=2, padding="same", activation="relu")]

        def pool():
            return [layers.MaxPool2D(3, 2, padding="same")]
    else:
        first = padded(layers.Conv2D(8, 7, strides=2, activation="relu"), 3)

        def pool():
            return padded(layers.MaxPool2D(3, 2), around)

    parts = [*first, *pool(), layers.Conv2D(8, 1, activation="relu")]
    parts += [layers.Conv2D(24, 3, padding="same", activation="relu"), *pool()]
    for row in rows or BLOCKS:
        parts += pool() if row is None else [block(*row)]
    end = [layers.GlobalAvgPool2D(), layers.Dense(10)] if end is None else end
    return keras.Sequential([*parts, *end])


class Fused(keras.Model):
    """One convolution makes three branches."""

    def __init__(self, c1, c2, c3, c4):
        super().__init__()
        self.widths = c1, c2[0], c3[0]
        self.first = layers.Conv2D(sum(self.widths), 1, activation="relu")
        self.p2_2 = layers.Conv2D(c2[1], 3, padding="same", activation="relu")
        self.p3_2 = layers.Conv2D(c3[1], 5, padding="same", activation="relu")
        self.p4_2 = layers.Conv2D(c4, 1, activation="relu")

    def call(self, x):
        p1, p2, p3 = tf.split(self.first(x), self.widths, 3)
        p4 = self.p4_2(tf.nn.max_pool2d(x, 3, 1, "SAME"))
        return tf.concat([p1, self.p2_2(p2), self.p3_2(p3), p4], 3)


class Each(keras.Model):
    """A loop over the images."""

    def __init__(self):
        super().__init__()
        self.net = book()

    def call(self, x):
        return tf.concat([self.net(x[i : i + 1]) for i in range(len(x))], 0)


class Half(keras.Model):
    """Computes in half precision."""

    def __init__(self):
        super().__init__()
        self.net = book(end=[layers.GlobalAvgPool2D(), layers.Dense(10, dtype="mixed_float16")])

    def call(self, x):
        return tf.cast(self.net(x), tf.float32)


class Odd(keras.Model):
    """An input that no simple step makes."""

    def __init__(self, net):
        super().__init__()
        self.net = net

    def call(self, x):
        return self.net(tf.sin(3 * x) + 0.2 * tf.reverse(x, [2]))


class OwnNorm(layers.Layer):
    """The book's norm, written out."""

    def __init__(self, epsilon, momentum):
        super().__init__()
        self.eps = epsilon

    def build(self, shape):
        kinds = {"gamma": "ones", "beta": "zeros", "mean": "zeros", "var": "ones"}
        for name, first in kinds.items():
            setattr(self, name, self.add_weight(shape=shape[-1:], initializer=first))

    def call(self, x):
        scale = tf.math.rsqrt(self.var + self.eps) * self.gamma
        return x * scale + (self.beta - self.mean * scale)


def functional(
    eps=1e-3,
    act_first=False,
    bias=True,
    softmax=False,
    kind=layers.BatchNormalization,
    lone=False,
    pool=None,
):
    """Keras's functional style, with batch norm."""

    def conv(x, c, k, s=1, p=0, missing=False):
        if p:
            x = layers.ZeroPadding2D(p)(x)
        x = layers.Conv2D(c, k, s, use_bias=bias, activation="relu" if act_first else None)(x)
        if not missing:
            x = kind(epsilon=eps, momentum=0.9)(x)
        return x if act_first else layers.ReLU()(x)

    def down(x):
        return layers.MaxPooling2D(3, 2)(layers.ZeroPadding2D(1)(x))

    i = layers.Input((None, None, 1))
    x = down(conv(i, 8, 7, 2, 3))
    x = down(conv(conv(x, 8, 1), 24, 3, 1, 1, lone))
    for row in BLOCKS:
        if row is None:
            x = down(x)
            continue
        c1, c2, c3, c4 = row
        a = conv(x, c1, 1)
        b = conv(conv(x, c2[0], 1), c2[1], 3, 1, 1)
        c = conv(conv(x, c3[0], 1), c3[1], 5, 1, 2)
        d = conv(layers.MaxPooling2D(3, 1, padding="same")(x), c4, 1)
        x = layers.Concatenate()([a, b, c, d])
    x = (pool or layers.GlobalAveragePooling2D)()(x)
    return keras.Model(i, layers.Dense(10, activation="softmax" if softmax else None)(x))


class Dropped(layers.Layer):
    """Drops always, by TensorFlow's own function."""

    def call(self, x):
        return tf.nn.dropout(x, 0.4)


def raw(relu=tf.nn.relu):
    """Variables and functions of `tf.nn`; the network is a `tf.function`."""
    weights = {}

    def variable(name, shape):
        if name not in weights:
            weights[name] = tf.Variable(np.random.RandomState(0).normal(0, 0.1, shape))
        return weights[name]

    def conv(x, name, o, k, stride=1, pad=0):
        x = tf.pad(x, [(0, 0), (pad, pad), (pad, pad), (0, 0)])
        x = tf.nn.conv2d(x, variable(name, (k, k, x.shape[3], o)), stride, "VALID")
        return relu(tf.nn.bias_add(x, variable(f"{name} bias", (o,))))

    def down(x):
        return tf.nn.max_pool2d(tf.pad(x, [(0, 0), (1, 1), (1, 1), (0, 0)]), 3, 2, "VALID")

    @tf.function
    def net(x):
        x = down(conv(x, "a", 8, 7, 2, 3))
        x = down(conv(conv(x, "b", 8, 1), "c", 24, 3, 1, 1))
        for n, row in enumerate(BLOCKS):
            if row is None:
                x = down(x)
                continue
            c1, c2, c3, c4 = row
            a = conv(x, f"{n}a", c1, 1)
            b = conv(conv(x, f"{n}b", c2[0], 1), f"{n}c", c2[1], 3, 1, 1)
            c = conv(conv(x, f"{n}d", c3[0], 1), f"{n}e", c3[1], 5, 1, 2)
            d = conv(tf.nn.max_pool2d(x, 3, 1, "SAME"), f"{n}f", c4, 1)
            x = tf.concat([a, b, c, d], -1)
        x = tf.reduce_mean(x, [1, 2])
        return tf.matmul(x, variable("head", (128, 10))) + variable("head bias", (10,))

    return net


class First(keras.Model):
    """Takes (N, C, H, W) and returns a dictionary."""

    def __init__(self):
        super().__init__()
        self.body = book()

    def call(self, x):
        tf.debugging.assert_equal(tf.shape(x)[1], 1)
        return {"logits": self.body(tf.transpose(x, (0, 2, 3, 1)))}


class Scaled(keras.Model):
    def __init__(self, body):
        super().__init__()
        self.body = body

    def call(self, x):
        return self.body(x / 255.0)


def reduced(c1, c2, c3, c4):
    return Block(c1, c2, c3, c4, reduce=None)


def exchanged():
    rows = list(BLOCKS)
    rows[4], rows[5] = rows[5], rows[4]
    return book(rows=rows)


#: a last pool with a window of its own: right at 96 pixels
FIXED = book, {"end": [layers.AvgPool2D(3), layers.Flatten(), layers.Dense(10)]}

RIGHT = {
    "sequential": book,
    "a convolution, then the mean": lambda: book(
        end=[layers.Conv2D(10, 1), layers.GlobalAvgPool2D()]
    ),
    "a class: channels first, a dictionary": lambda: First,
    "raw variables in a tf.function": raw,
    "factory": lambda: book,
}
RIGHT_NORM = {
    "functional": functional,
    "own norm": lambda: functional(kind=OwnNorm),
    "no bias in front of a norm": lambda: functional(bias=False),
}
WRONG = {
    "same": (lambda: book(same=True), {"same-padding"}),
    "ceil": (lambda: book(around=((1, 2), (1, 2))), {"ceil-pool"}),
    "swapped": (lambda: book(SwappedBlock), {"swapped-branches"}),
    "no relu": (lambda: book(reduced), {"missing-relu"}),
    "same and no relu": (lambda: book(reduced, same=True), {"missing-relu", "same-padding"}),
    "softmax": (
        lambda: book(end=[layers.GlobalAvgPool2D(), layers.Dense(10, activation="softmax")]),
        {"softmax-at-end"},
    ),
    "tf.nn.dropout": (
        lambda: book(end=[layers.GlobalAvgPool2D(), Dropped(), layers.Dense(10)]),
        {"dropout-active"},
    ),
    "flatten": (
        lambda: book(end=[layers.Flatten(), layers.Dense(10)]),
        {"missing-global-pool"},
    ),
    "scaled input and swapped": (
        lambda: Scaled(book(SwappedBlock)),
        {"input-scaled", "swapped-branches"},
    ),
    "exchanged": (exchanged, {"exchanged-blocks"}),
    "elu in raw variables": (lambda: raw(tf.nn.elu), {"activation", "zero-padded-pool"}),
}
WRONG_NORM = {
    "eps": (lambda: functional(eps=1e-5), {"norm-eps"}),
    "relu before the norm": (
        lambda: functional(act_first=True),
        {"norm-order", "zero-padded-pool"},
    ),
    "a norm is missing": (lambda: functional(lone=True), {"norm-missing"}),
    "softmax and global max": (
        lambda: functional(softmax=True, pool=layers.GlobalMaxPooling2D),
        {"softmax-at-end", "global-pool"},
    ),
}
#: networks that no list of mistakes explains: the outcome, and names that may be said beside it
REFUSED = {
    "one convolution for three branches": (lambda: book(Fused), "makes several branches"),
    "a loop over the images": (Each, "takes one image at a time at "),
    "half precision": (Half, "computes in float16"),
}
OPEN = {"odd input": (lambda: Odd(book()), "unexplained", set())}

"""The network `mini`, with its norms, in Keras with names of its user's own."""

import keras
from keras import layers

WIDTHS = [
    (16, (16, 24), (4, 12), 8),
    None,
    (32, (20, 40), (4, 16), 16),
    None,
    (48, (24, 48), (6, 16), 16),
]


def conv(x, width, side, stride=1, padding="same"):
    x = layers.Conv2D(width, side, stride, padding=padding, use_bias=False)(x)
    return layers.ReLU()(layers.BatchNormalization(epsilon=0.001)(x))


def pool(x):
    x = layers.ZeroPadding2D(1)(x)  # behind a ReLU a zero is as good as minus infinity
    return layers.MaxPooling2D(3, 2)(x)


def mix(x, a, b, c, d):
    kept = layers.MaxPooling2D(3, 1, padding="same")(x)
    one = conv(x, a, 1)
    three = conv(conv(x, b[0], 1), b[1], 3)
    five = conv(conv(x, c[0], 1), c[1], 5)
    return layers.Concatenate()([one, three, five, conv(kept, d, 1)])


def net():
    x = inputs = keras.Input((None, None, 1))
    x = layers.ZeroPadding2D(3)(x)
    x = pool(conv(x, 8, 7, 2, "valid"))
    x = pool(conv(conv(x, 8, 1), 24, 3))
    for widths in WIDTHS:
        x = mix(x, *widths) if widths else pool(x)
    x = layers.GlobalAveragePooling2D()(x)
    return keras.Model(inputs, layers.Dense(10, name="classify")(x))

"""A GoogLeNet as someone writes it in Keras. It has a mistake: `googlenet check` names it."""

from keras import Sequential, layers


class Inception(layers.Layer):
    """Four branches, joined along the channels."""

    def __init__(self, c1, c2, c3, c4):
        super().__init__()

        def conv(width, kernel):
            return layers.Conv2D(width, kernel, padding="same", activation="relu")

        self.p1 = conv(c1, 1)
        self.p2 = Sequential([conv(c2[0], 1), conv(c2[1], 3)])
        self.p3 = Sequential([conv(c3[0], 1), conv(c3[1], 5)])
        self.p4 = Sequential([layers.MaxPool2D(3, 1, padding="same"), conv(c4, 1)])

    def call(self, x):
        """(N, H, W, C) in and out."""
        return layers.concatenate([self.p1(x), self.p2(x), self.p3(x), self.p4(x)])


def net():
    """The network, for images of 96 x 96 pixels."""
    return Sequential(
        [
            layers.Conv2D(64, 7, strides=2, padding="same", activation="relu"),
            layers.MaxPool2D(3, 2, padding="same"),
            layers.Conv2D(64, 1, activation="relu"),
            layers.Conv2D(192, 3, padding="same", activation="relu"),
            layers.MaxPool2D(3, 2, padding="same"),
            Inception(64, (96, 128), (16, 32), 32),
            Inception(128, (128, 192), (32, 96), 64),
            layers.MaxPool2D(3, 2, padding="same"),
            Inception(192, (96, 208), (16, 48), 64),
            Inception(160, (112, 224), (24, 64), 64),
            Inception(128, (128, 256), (24, 64), 64),
            Inception(112, (144, 288), (32, 64), 64),
            Inception(256, (160, 320), (32, 128), 128),
            layers.MaxPool2D(3, 2, padding="same"),
            Inception(256, (160, 320), (32, 128), 128),
            Inception(384, (192, 384), (48, 128), 128),
            layers.GlobalAvgPool2D(),
            layers.Dense(10),
        ]
    )

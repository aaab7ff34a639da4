"""The book's network as its readers build it, each framework saving it in its own words.

`python d2l_reference.py BACKEND FOLDER` writes files of random weights and running statistics, and
beside each what the network itself gives for the images in FOLDER/images.npy. float64, so that a
wrong layout or a wrong order cannot hide; 33 pixels, where Keras's `'same'` pads as the others do.
"""

import sys
from pathlib import Path

import numpy as np

#: the widths of the first three convolutions, then c1, (c2, c2), (c3, c3), c4 of every Inception
#: block in the third, fourth and fifth block: the book's, written down here once more
FULL = (
    (64, 64, 192),
    ((64, (96, 128), (16, 32), 32), (128, (128, 192), (32, 96), 64)),
    (
        (192, (96, 208), (16, 48), 64),
        (160, (112, 224), (24, 64), 64),
        (128, (128, 256), (24, 64), 64),
        (112, (144, 288), (32, 64), 64),
        (256, (160, 320), (32, 128), 128),
    ),
    ((256, (160, 320), (32, 128), 128), (384, (192, 384), (48, 128), 128)),
)
#: the last block of each, an eighth as wide
NARROW = (
    (8, 8, 24),
    ((16, (16, 24), (4, 12), 8),),
    ((32, (20, 40), (4, 16), 16),),
    ((48, (24, 48), (6, 16), 16),),
)

#: how readers write it: file name, widths, letter of the paths, inside another module, norm
KINDS = (
    ("book", FULL, "p", False, None),
    ("newer", NARROW, "b", True, None),
    ("norm", NARROW, "p", False, "sequential"),
    ("norms", NARROW, "b", False, "beside"),
)
EPS = float(np.float32(1e-3))  # as the spec has it, and Paddle


def lively(name, shape, seed):
    """Values by which every tensor can be told from every other; variances are positive."""
    random = np.random.RandomState(seed)
    if len(shape) > 1:
        incoming = np.prod(shape) / max(shape)
        return random.standard_normal(shape) * np.sqrt(2 / incoming)
    around = 1 if "var" in name or name in ("gamma", "weight") else 0
    return random.uniform(-0.5, 0.5, shape) + around


def images(folder):
    return np.load(folder / "images.npy")


def torch(folder):
    import torch
    from torch import nn
    from torch.nn import functional as F

    def conv(channels, width, norm, **how):
        layers = [nn.Conv2d(channels, width, **how)]
        return [*layers, nn.BatchNorm2d(width, eps=EPS)] if norm else layers

    class Inception(nn.Module):
        def __init__(self, channels, c1, c2, c3, c4, letter, norm):
            super().__init__()
            self.letter = letter
            for path, step, incoming, width, how in (
                (1, 1, channels, c1, {"kernel_size": 1}),
                (2, 1, channels, c2[0], {"kernel_size": 1}),
                (2, 2, c2[0], c2[1], {"kernel_size": 3, "padding": 1}),
                (3, 1, channels, c3[0], {"kernel_size": 1}),
                (3, 2, c3[0], c3[1], {"kernel_size": 5, "padding": 2}),
                (4, 2, channels, c4, {"kernel_size": 1}),
            ):
                layers = conv(incoming, width, norm, **how)
                name = f"{letter}{path}_{step}"
                if norm == "sequential":
                    layers = [nn.Sequential(*layers)]
                for word, layer in zip((name, f"bn{path}_{step}"), layers, strict=False):
                    setattr(self, word, layer)
            self.pool = nn.MaxPool2d(3, 1, 1)

        def go(self, x, *steps):
            for step in steps:
                x = getattr(self, f"{self.letter}{step}")(x)
                beside = getattr(self, f"bn{step}", None)
                x = F.relu(beside(x) if beside else x)
            return x

        def forward(self, x):
            paths = self.go(x, "1_1"), self.go(x, "2_1", "2_2"), self.go(x, "3_1", "3_2")
            return torch.cat((*paths, self.go(self.pool(x), "4_2")), 1)

    def network(widths, letter, norm):
        (w1, w2, w3), *inceptions = widths
        b1 = nn.Sequential(*conv(1, w1, norm, kernel_size=7, stride=2, padding=3), nn.ReLU())
        b1.append(nn.MaxPool2d(3, 2, 1))
        b2 = nn.Sequential(*conv(w1, w2, norm, kernel_size=1), nn.ReLU())
        b2.extend([*conv(w2, w3, norm, kernel_size=3, padding=1), nn.ReLU()])
        b2.append(nn.MaxPool2d(3, 2, 1))
        blocks, channels = [b1, b2], w3
        for block in inceptions:
            layers = nn.Sequential()
            for c1, c2, c3, c4 in block:
                layers.append(Inception(channels, c1, c2, c3, c4, letter, norm))
                channels = c1 + c2[1] + c3[1] + c4
            blocks.append(layers)
        blocks[2].append(nn.MaxPool2d(3, 2, 1))
        blocks[3].append(nn.MaxPool2d(3, 2, 1))
        blocks[4].extend([nn.AdaptiveAvgPool2d(1), nn.Flatten()])
        return nn.Sequential(*blocks, nn.Linear(channels, 10))

    class Whole(nn.Module):
        def __init__(self, net):
            super().__init__()
            self.net = net

        def forward(self, x):
            return self.net(x)

    for name, widths, letter, inside, norm in KINDS:
        net = network(widths, letter, norm)
        net = (Whole(net) if inside else net).double().eval()
        with torch.no_grad():
            for seed, (word, tensor) in enumerate(net.state_dict().items()):
                if tensor.is_floating_point():
                    values = lively(word.rpartition(".")[2], tuple(tensor.shape), seed)
                    tensor.copy_(torch.from_numpy(values))
            logits = net(torch.from_numpy(images(folder))).numpy()
        torch.save(net.state_dict(), folder / f"torch-{name}.pt")
        np.save(folder / f"torch-{name}.npy", logits)


def paddle(folder):
    import paddle
    from paddle import nn
    from paddle.nn import functional as F

    paddle.set_default_dtype("float64")

    def conv(channels, width, norm, **how):
        layers = [nn.Conv2D(channels, width, **how)]
        return [*layers, nn.BatchNorm2D(width, epsilon=EPS)] if norm else layers

    class Inception(nn.Layer):
        def __init__(self, channels, c1, c2, c3, c4, letter, norm):
            super().__init__()
            self.letter = letter
            for path, step, incoming, width, how in (
                (1, 1, channels, c1, {"kernel_size": 1}),
                (2, 1, channels, c2[0], {"kernel_size": 1}),
                (2, 2, c2[0], c2[1], {"kernel_size": 3, "padding": 1}),
                (3, 1, channels, c3[0], {"kernel_size": 1}),
                (3, 2, c3[0], c3[1], {"kernel_size": 5, "padding": 2}),
                (4, 2, channels, c4, {"kernel_size": 1}),
            ):
                layers = conv(incoming, width, norm, **how)
                name = f"{letter}{path}_{step}"
                if norm == "sequential":
                    layers = [nn.Sequential(*layers)]
                for word, layer in zip((name, f"bn{path}_{step}"), layers, strict=False):
                    setattr(self, word, layer)
            self.pool = nn.MaxPool2D(3, 1, 1)

        def go(self, x, *steps):
            for step in steps:
                x = getattr(self, f"{self.letter}{step}")(x)
                beside = getattr(self, f"bn{step}", None)
                x = F.relu(beside(x) if beside else x)
            return x

        def forward(self, x):
            paths = self.go(x, "1_1"), self.go(x, "2_1", "2_2"), self.go(x, "3_1", "3_2")
            return paddle.concat((*paths, self.go(self.pool(x), "4_2")), 1)

    def network(widths, letter, norm):
        (w1, w2, w3), *inceptions = widths
        pool = nn.MaxPool2D(3, 2, 1)
        blocks = [
            [*conv(1, w1, norm, kernel_size=7, stride=2, padding=3), nn.ReLU(), pool],
            [
                *(*conv(w1, w2, norm, kernel_size=1), nn.ReLU()),
                *(*conv(w2, w3, norm, kernel_size=3, padding=1), nn.ReLU(), pool),
            ],
        ]
        channels = w3
        for block in inceptions:
            layers = []
            for c1, c2, c3, c4 in block:
                layers.append(Inception(channels, c1, c2, c3, c4, letter, norm))
                channels = c1 + c2[1] + c3[1] + c4
            blocks.append([*layers, pool])
        blocks[4][-1:] = [nn.AdaptiveAvgPool2D((1, 1)), nn.Flatten()]
        return nn.Sequential(*(nn.Sequential(*block) for block in blocks), nn.Linear(channels, 10))

    class Whole(nn.Layer):
        def __init__(self, net):
            super().__init__()
            self.net = net

        def forward(self, x):
            return self.net(x)

    for name, widths, letter, inside, norm in KINDS:
        net = network(widths, letter, norm)
        net = Whole(net) if inside else net
        net.eval()
        for seed, (word, tensor) in enumerate(net.state_dict().items()):
            tensor.set_value(lively(word.rpartition(".")[2], tuple(tensor.shape), seed))
        with paddle.no_grad():
            logits = net(paddle.to_tensor(images(folder))).numpy()
        paddle.save(net.state_dict(), str(folder / f"paddle-{name}.pdparams"))
        np.save(folder / f"paddle-{name}.npy", logits)


def mxnet(folder):
    from backends import mxnet as _  # noqa: F401  # what MXNet needs to be imported

    # isort: split
    import mxnet as mx
    from mxnet.gluon import nn

    def conv(width, norm, **how):
        if not norm:
            return [nn.Conv2D(width, activation="relu", **how)]
        return [nn.Conv2D(width, **how), nn.BatchNorm(epsilon=EPS), nn.Activation("relu")]

    class Inception(nn.Block):
        def __init__(self, c1, c2, c3, c4, letter, norm):
            super().__init__()
            self.letter = letter
            for path, step, width, how in (
                (1, 1, c1, {"kernel_size": 1}),
                (2, 1, c2[0], {"kernel_size": 1}),
                (2, 2, c2[1], {"kernel_size": 3, "padding": 1}),
                (3, 1, c3[0], {"kernel_size": 1}),
                (3, 2, c3[1], {"kernel_size": 5, "padding": 2}),
                (4, 2, c4, {"kernel_size": 1}),
            ):
                layers = conv(width, norm, **how)
                name = f"{letter}{path}_{step}"
                if norm == "sequential":
                    layers = [sequential(*layers)]
                words = name, f"bn{path}_{step}", f"relu{path}_{step}"
                for word, layer in zip(words, layers, strict=False):
                    setattr(self, word, layer)
            self.pool = nn.MaxPool2D(3, 1, 1)

        def go(self, x, *steps):
            for step in steps:
                for word in (self.letter, "bn", "relu"):
                    layer = getattr(self, f"{word}{step}", None)
                    x = layer(x) if layer else x
            return x

        def forward(self, x):
            paths = self.go(x, "1_1"), self.go(x, "2_1", "2_2"), self.go(x, "3_1", "3_2")
            return mx.np.concatenate((*paths, self.go(self.pool(x), "4_2")), 1)

    def sequential(*layers):
        block = nn.Sequential()
        block.add(*layers)
        return block

    def network(widths, letter, norm):
        (w1, w2, w3), *inceptions = widths
        blocks = [
            [*conv(w1, norm, kernel_size=7, strides=2, padding=3), nn.MaxPool2D(3, 2, 1)],
            [
                *conv(w2, norm, kernel_size=1),
                *conv(w3, norm, kernel_size=3, padding=1),
                nn.MaxPool2D(3, 2, 1),
            ],
            *([Inception(*each, letter, norm) for each in block] for block in inceptions),
        ]
        blocks[2].append(nn.MaxPool2D(3, 2, 1))
        blocks[3].append(nn.MaxPool2D(3, 2, 1))
        blocks[4].append(nn.GlobalAvgPool2D())
        return sequential(*(sequential(*block) for block in blocks), nn.Dense(10))

    class Whole(nn.Block):
        def __init__(self, net):
            super().__init__()
            self.net = net

        def forward(self, x):
            return self.net(x)

    x = mx.np.array(images(folder), dtype="float64")
    for name, widths, letter, inside, norm in KINDS:
        net = network(widths, letter, norm)
        net = Whole(net) if inside else net
        net.cast("float64")
        net.initialize(mx.init.Zero())
        net(x)
        for seed, (word, tensor) in enumerate(net._collect_params_with_prefix().items()):
            values = lively(word.rpartition(".")[2], tensor.shape, seed)
            tensor.set_data(mx.np.array(values, dtype="float64"))
        net.save_parameters(str(folder / f"mxnet-{name}.params"))
        np.save(folder / f"mxnet-{name}.npy", net(x).asnumpy())


def tf(folder):
    import keras
    from keras import layers

    keras.config.set_floatx("float64")

    def conv(width, norm, kernel, **how):
        if not norm:
            return [layers.Conv2D(width, kernel, padding="same", activation="relu", **how)]
        found = layers.Conv2D(width, kernel, padding="same", **how)
        return [found, layers.BatchNormalization(epsilon=EPS), layers.ReLU()]

    def inception(base):
        class Inception(base):
            def __init__(self, c1, c2, c3, c4, letter, norm):
                super().__init__()
                self.letter = letter
                for path, step, width, kernel in (
                    *((1, 1, c1, 1), (2, 1, c2[0], 1), (2, 2, c2[1], 3)),
                    *((3, 1, c3[0], 1), (3, 2, c3[1], 5), (4, 2, c4, 1)),
                ):
                    made = conv(width, norm, kernel)
                    name = f"{letter}{path}_{step}"
                    if norm == "sequential":
                        made = [keras.Sequential(made)]
                    words = name, f"bn{path}_{step}", f"relu{path}_{step}"
                    for word, layer in zip(words, made, strict=False):
                        setattr(self, word, layer)
                self.pool = layers.MaxPool2D(3, 1, padding="same")

            def go(self, x, *steps):
                for step in steps:
                    for word in (self.letter, "bn", "relu"):
                        layer = getattr(self, f"{word}{step}", None)
                        x = layer(x) if layer else x
                return x

            def call(self, x):
                paths = self.go(x, "1_1"), self.go(x, "2_1", "2_2"), self.go(x, "3_1", "3_2")
                return layers.Concatenate()((*paths, self.go(self.pool(x), "4_2")))

        return Inception

    def network(widths, letter, norm, block_of):
        (w1, w2, w3), *inceptions = widths
        blocks = [
            [*conv(w1, norm, 7, strides=2), layers.MaxPool2D(3, 2, padding="same")],
            [*conv(w2, norm, 1), *conv(w3, norm, 3), layers.MaxPool2D(3, 2, padding="same")],
            *([block_of(*each, letter, norm) for each in block] for block in inceptions),
        ]
        blocks[2].append(layers.MaxPool2D(3, 2, padding="same"))
        blocks[3].append(layers.MaxPool2D(3, 2, padding="same"))
        blocks[4] += [layers.GlobalAvgPool2D(), layers.Flatten()]
        return keras.Sequential([*map(keras.Sequential, blocks), layers.Dense(10)])

    class Whole(keras.Model):
        def __init__(self, net):
            super().__init__()
            self.net = net

        def call(self, x):
            return self.net(x)

    x = images(folder).transpose(0, 2, 3, 1)
    for kind, base in (("", keras.Model), ("-layer", layers.Layer)):
        for name, widths, letter, inside, norm in KINDS[1 if kind else 0 :]:
            net = network(widths, letter, norm, inception(base))
            net = Whole(net) if inside else net
            net(x)
            for seed, variable in enumerate(net.weights):
                word = variable.path.rpartition("/")[2]
                variable.assign(lively(word, tuple(variable.shape), seed))
            net.save_weights(folder / f"tf-{name}{kind}.weights.h5")
            np.save(folder / f"tf-{name}{kind}.npy", net(x).numpy())


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[2]))
    {"torch": torch, "tf": tf, "mxnet": mxnet, "paddle": paddle}[sys.argv[1]](Path(sys.argv[2]))

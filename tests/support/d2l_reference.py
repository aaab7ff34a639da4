"""The book's network as its readers build it, each framework saving it in its own words.

`python d2l_reference.py BACKEND FOLDER` writes files of random weights and running statistics, and
beside each what the network itself gives for the images in FOLDER/images.npy. float64, so that a
wrong layout or a wrong order cannot hide; 33 pixels, where Keras's `'same'` pads as the others do.
If FOLDER has files `given-KIND`, they are loaded into the reader's network instead.
"""

import sys
from pathlib import Path
from types import SimpleNamespace

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
    """Values that differ for every tensor; variances are positive."""
    random = np.random.RandomState(seed)
    if len(shape) > 1:
        incoming = np.prod(shape) / max(shape)
        return random.standard_normal(shape) * np.sqrt(2 / incoming)
    around = 1 if "var" in name or name in ("gamma", "weight") else 0
    return random.uniform(-0.5, 0.5, shape) + around


def images(folder):
    return np.load(folder / "images.npy")


def kinds(folder, first=0):
    """The kinds to make: those that FOLDER has files of, or all from the first one."""
    given = [each for each in KINDS if list(folder.glob(f"given-{each[0]}.*"))]
    return given or KINDS[first:]


def steps(channels, c1, c2, c3, c4):
    """Each convolution of a block: path, step in it, incoming channels, width, kernel."""
    yield 1, 1, channels, c1, 1
    yield 2, 1, channels, c2[0], 1
    yield 2, 2, c2[0], c2[1], 3
    yield 3, 1, channels, c3[0], 1
    yield 3, 2, c3[0], c3[1], 5
    yield 4, 2, channels, c4, 1


def inception(base, method, tools):
    """The book's block as a subclass of `base`, whose `method` runs it."""

    class Inception(base):
        def __init__(self, channels, widths, letter, norm):
            super().__init__()
            self.letter, self.pool = letter, tools.pool(1)
            for path, step, incoming, width, kernel in steps(channels, *widths):
                layers = tools.conv(incoming, width, kernel, norm)
                if norm == "sequential":
                    layers = [tools.sequential(layers)]
                at = f"{path}_{step}"
                words = (f"{letter}{at}", f"bn{at}", f"relu{at}")
                for word, layer in zip(words, layers, strict=False):
                    setattr(self, word, layer)

        def path(self, x, *steps):
            for step in steps:
                for word in (self.letter, "bn", "relu"):
                    layer = getattr(self, f"{word}{step}", None)
                    x = layer(x) if layer else x
            return x

    def run(self, x):
        paths = self.path(x, "1_1"), self.path(x, "2_1", "2_2"), self.path(x, "3_1", "3_2")
        return tools.concatenate((*paths, self.path(self.pool(x), "4_2")))

    setattr(Inception, method, run)
    return Inception


def network(base, method, tools, widths, letter, inside, norm):
    """The book's network; `inside` another module, as its newer editions have it."""
    block, ((w1, w2, w3), *inceptions) = inception(base, method, tools), widths
    stages = [
        [*tools.conv(1, w1, 7, norm, 2), tools.pool(2)],
        [*tools.conv(w1, w2, 1, norm), *tools.conv(w2, w3, 3, norm), tools.pool(2)],
    ]
    channels = w3
    for stage in inceptions:
        stages.append([])
        for each in stage:
            stages[-1].append(block(channels, each, letter, norm))
            channels = each[0] + each[1][1] + each[2][1] + each[3]
        stages[-1] += [tools.pool(2)] if len(stages) < 5 else tools.global_pool()
    net = tools.sequential([*map(tools.sequential, stages), tools.head(channels)])

    class Whole(tools.model):
        def __init__(self):
            super().__init__()
            self.net = net

    setattr(Whole, method, lambda self, x: self.net(x))
    return Whole() if inside else net


def torch(folder):
    import torch
    from torch import nn

    def conv(channels, width, kernel, norm, stride=1):
        norms = [nn.BatchNorm2d(width, eps=EPS)] if norm else []
        return [nn.Conv2d(channels, width, kernel, stride, kernel // 2), *norms, nn.ReLU()]

    tools = SimpleNamespace(
        conv=conv,
        pool=lambda stride: nn.MaxPool2d(3, stride, 1),
        sequential=lambda layers: nn.Sequential(*layers),
        global_pool=lambda: [nn.AdaptiveAvgPool2d(1), nn.Flatten()],
        head=lambda channels: nn.Linear(channels, 10),
        concatenate=lambda paths: torch.cat(paths, 1),
        model=nn.Module,
    )
    for name, *kind in kinds(folder):
        net = network(nn.Module, "forward", tools, *kind).double().eval()
        given = folder / f"given-{name}.pt"
        if given.exists():
            net.load_state_dict(torch.load(given, weights_only=True))
        with torch.no_grad():
            for seed, (word, tensor) in enumerate(net.state_dict().items()):
                if tensor.is_floating_point() and not given.exists():
                    values = lively(word.rpartition(".")[2], tuple(tensor.shape), seed)
                    tensor.copy_(torch.from_numpy(values))
            logits = net(torch.from_numpy(images(folder))).numpy()
        torch.save(net.state_dict(), folder / f"torch-{name}.pt")
        np.save(folder / f"torch-{name}.npy", logits)


def paddle(folder):
    import paddle
    from paddle import nn

    paddle.set_default_dtype("float64")

    def conv(channels, width, kernel, norm, stride=1):
        norms = [nn.BatchNorm2D(width, epsilon=EPS)] if norm else []
        return [nn.Conv2D(channels, width, kernel, stride, kernel // 2), *norms, nn.ReLU()]

    tools = SimpleNamespace(
        conv=conv,
        pool=lambda stride: nn.MaxPool2D(3, stride, 1),
        sequential=lambda layers: nn.Sequential(*layers),
        global_pool=lambda: [nn.AdaptiveAvgPool2D((1, 1)), nn.Flatten()],
        head=lambda channels: nn.Linear(channels, 10),
        concatenate=lambda paths: paddle.concat(paths, 1),
        model=nn.Layer,
    )
    for name, *kind in kinds(folder):
        net = network(nn.Layer, "forward", tools, *kind)
        net.eval()
        given = folder / f"given-{name}.pdparams"
        if given.exists():
            missing, unexpected = net.set_state_dict(paddle.load(str(given)))
            assert not missing + unexpected
        for seed, (word, tensor) in enumerate(
            net.state_dict().items() if not given.exists() else ()
        ):
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

    def conv(channels, width, kernel, norm, stride=1):
        if not norm:
            return [nn.Conv2D(width, kernel, stride, kernel // 2, activation="relu")]
        made = nn.Conv2D(width, kernel, stride, kernel // 2)
        return [made, nn.BatchNorm(epsilon=EPS), nn.Activation("relu")]

    def sequential(layers):
        block = nn.Sequential()
        block.add(*layers)
        return block

    tools = SimpleNamespace(
        conv=conv,
        pool=lambda stride: nn.MaxPool2D(3, stride, 1),
        sequential=sequential,
        global_pool=lambda: [nn.GlobalAvgPool2D()],
        head=lambda channels: nn.Dense(10),
        concatenate=lambda paths: mx.np.concatenate(paths, 1),
        model=nn.Block,
    )
    x = mx.np.array(images(folder), dtype="float64")
    for name, *kind in kinds(folder):
        net = network(nn.Block, "forward", tools, *kind)
        net.cast("float64")
        net.initialize(mx.init.Zero())
        net(x)
        given = folder / f"given-{name}.params"
        if given.exists():
            net.load_parameters(str(given))
        tensors = {} if given.exists() else net._collect_params_with_prefix()
        for seed, (word, tensor) in enumerate(tensors.items()):
            values = lively(word.rpartition(".")[2], tensor.shape, seed)
            tensor.set_data(mx.np.array(values, dtype="float64"))
        net.save_parameters(str(folder / f"mxnet-{name}.params"))
        np.save(folder / f"mxnet-{name}.npy", net(x).asnumpy())


def tf(folder):
    import keras
    from keras import layers

    keras.config.set_floatx("float64")

    def conv(channels, width, kernel, norm, stride=1):
        if not norm:
            return [layers.Conv2D(width, kernel, stride, "same", activation="relu")]
        made = layers.Conv2D(width, kernel, stride, "same")
        return [made, layers.BatchNormalization(epsilon=EPS), layers.ReLU()]

    tools = SimpleNamespace(
        conv=conv,
        pool=lambda stride: layers.MaxPool2D(3, stride, "same"),
        sequential=keras.Sequential,
        global_pool=lambda: [layers.GlobalAvgPool2D(), layers.Flatten()],
        head=lambda channels: layers.Dense(10),
        concatenate=lambda paths: layers.Concatenate()(paths),
        model=keras.Model,
    )
    x = images(folder).transpose(0, 2, 3, 1)
    for suffix, base in (("", keras.Model), ("-layer", layers.Layer)):
        for name, *kind in kinds(folder, 1 if suffix else 0):
            net = network(base, "call", tools, *kind)
            net(x)
            given = folder / f"given-{name}.weights.h5"
            if given.exists() and not suffix:
                net.load_weights(given)
            for seed, variable in enumerate(() if given.exists() else net.weights):
                word = variable.path.rpartition("/")[2]
                variable.assign(lively(word, tuple(variable.shape), seed))
            net.save_weights(folder / f"tf-{name}{suffix}.weights.h5")
            np.save(folder / f"tf-{name}{suffix}.npy", net(x).numpy())


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[2]))
    {"torch": torch, "tf": tf, "mxnet": mxnet, "paddle": paddle}[sys.argv[1]](Path(sys.argv[2]))

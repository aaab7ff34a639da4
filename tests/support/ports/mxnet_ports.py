"""Ports of GoogLeNet to MXNet as people write them, with an eighth of the widths.

`RIGHT` has networks that are the reference's function, `WRONG` those with mistakes and their names.
"""

import mxnet as mx
from mxnet import np, npx
from mxnet.gluon import nn

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


class Block(nn.Block):
    """The book's block."""

    order = (0, 1, 2, 3)
    reduce = "relu"

    def __init__(self, c1, c2, c3, c4, **kwargs):
        super().__init__(**kwargs)
        self.p1_1 = nn.Conv2D(c1, kernel_size=1, activation="relu")
        self.p2_1 = nn.Conv2D(c2[0], kernel_size=1, activation=self.reduce)
        self.p2_2 = nn.Conv2D(c2[1], kernel_size=3, padding=1, activation="relu")
        self.p3_1 = nn.Conv2D(c3[0], kernel_size=1, activation="relu")
        self.p3_2 = nn.Conv2D(c3[1], kernel_size=5, padding=2, activation="relu")
        self.p4_1 = self.pool()
        self.p4_2 = nn.Conv2D(c4, kernel_size=1, activation="relu")

    def pool(self):
        return nn.MaxPool2D(pool_size=3, strides=1, padding=1)

    def forward(self, x):
        parts = (
            self.p1_1(x),
            self.p2_2(self.p2_1(x)),
            self.p3_2(self.p3_1(x)),
            self.p4_2(self.p4_1(x)),
        )
        return np.concatenate([parts[i] for i in self.order], axis=1)


class Swapped(Block):
    order = (0, 2, 1, 3)


class Linear(Block):
    reduce = None


class Average(Block):
    def pool(self):
        return nn.AvgPool2D(pool_size=3, strides=1, padding=1)


def book(block=Block, last=nn.GlobalAvgPool2D, rows=None, stride=2, end=None):
    """The book's network, not initialized."""
    net = nn.Sequential()
    net.add(nn.Conv2D(8, kernel_size=7, strides=stride, padding=3, activation="relu"))
    net.add(nn.MaxPool2D(pool_size=3, strides=2, padding=1))
    net.add(nn.Conv2D(8, kernel_size=1, activation="relu"))
    net.add(nn.Conv2D(24, kernel_size=3, padding=1, activation="relu"))
    net.add(nn.MaxPool2D(pool_size=3, strides=2, padding=1))
    for row in rows or BLOCKS:
        net.add(nn.MaxPool2D(3, 2, 1) if row is None else block(*row))
    if last:
        net.add(last())
    net.add(*([nn.Dense(10)] if end is None else end))
    return net


class Fused(nn.Block):
    """One convolution makes three branches."""

    def __init__(self, c1, c2, c3, c4, **kwargs):
        super().__init__(**kwargs)
        self.ends = [c1, c1 + c2[0]]
        self.first = nn.Conv2D(c1 + c2[0] + c3[0], kernel_size=1, activation="relu")
        self.p2_2 = nn.Conv2D(c2[1], kernel_size=3, padding=1, activation="relu")
        self.p3_2 = nn.Conv2D(c3[1], kernel_size=5, padding=2, activation="relu")
        self.p4_1 = nn.MaxPool2D(pool_size=3, strides=1, padding=1)
        self.p4_2 = nn.Conv2D(c4, kernel_size=1, activation="relu")

    def forward(self, x):
        p1, p2, p3 = np.split(self.first(x), self.ends, axis=1)
        return np.concatenate([p1, self.p2_2(p2), self.p3_2(p3), self.p4_2(self.p4_1(x))], axis=1)


class Odd(nn.Block):
    """An input that no simple step makes."""

    def __init__(self, net):
        super().__init__()
        self.net = net

    def forward(self, x):
        return self.net(np.sin(3 * x) + 0.2 * np.flip(x, 3))


class OwnNorm(nn.HybridBlock):
    """The book's norm, written out."""

    def __init__(self, channels):
        super().__init__()
        for name, first in (("gamma", 1), ("beta", 0), ("mean", 0), ("var", 1)):
            start, shape = mx.init.Constant(first), (1, channels, 1, 1)
            setattr(self, name, self.params.get(name, shape=shape, init=start))

    def hybrid_forward(self, F, x, gamma, beta, mean, var):
        return gamma * (x - mean) / F.np.sqrt(var + 1e-3) + beta


class Hybrid(nn.HybridBlock):
    """The style of Gluon's model zoo; `F` is the old or the new interface."""

    def __init__(self, concat, relu, norm=None, **kwargs):
        super().__init__(**kwargs)
        self.concat, self.relu, self.rows = concat, relu, []
        self.norms = norm
        with self.name_scope():
            self.conv1 = self.unit(8, 7, 2, 3)
            self.conv2 = self.unit(8, 1)
            self.conv3 = self.unit(24, 3, 1, 1)
            self.pool = nn.MaxPool2D(3, 2, 1)
            self.side = nn.MaxPool2D(3, 1, 1)
            for n, row in enumerate(BLOCKS):
                if row:
                    c1, c2, c3, c4 = row
                    units = [
                        (c1, 1),
                        (c2[0], 1),
                        (c2[1], 3, 1, 1),
                        (c3[0], 1),
                        (c3[1], 5, 1, 2),
                        (c4, 1),
                    ]
                    for k, each in enumerate(units):
                        setattr(self, f"conv{n}_{k}", self.unit(*each))
            self.global_pool = nn.GlobalAvgPool2D()
            self.output = nn.Dense(10)

    def unit(self, width, kernel, stride=1, pad=0):
        if not self.norms:
            return nn.Conv2D(width, kernel, stride, pad)
        both = nn.HybridSequential(prefix="")
        norm = OwnNorm(width) if self.norms == "own" else nn.BatchNorm(**self.norms)
        both.add(nn.Conv2D(width, kernel, stride, pad, use_bias=False), norm)
        return both

    def hybrid_forward(self, F, x):
        def conv(name, x):
            return self.relu(F, getattr(self, name)(x))

        x = self.pool(conv("conv1", x))
        x = self.pool(conv("conv3", conv("conv2", x)))
        for n, row in enumerate(BLOCKS):
            if row is None:
                x = self.pool(x)
                continue
            b = conv(f"conv{n}_2", conv(f"conv{n}_1", x))
            c = conv(f"conv{n}_4", conv(f"conv{n}_3", x))
            d = conv(f"conv{n}_5", self.side(x))
            x = self.concat(F, [conv(f"conv{n}_0", x), b, c, d])
        return self.output(self.global_pool(x))


def new(norm=None):
    """`F.np` and `F.npx`."""
    return Hybrid(
        lambda F, parts: F.np.concatenate(parts, axis=1), lambda F, x: F.npx.relu(x), norm
    )


def old(norm=None, relu="relu"):
    """The old interface, `mx.nd`."""
    mx.npx.reset_np()
    try:
        net = Hybrid(
            lambda F, parts: F.concat(*parts, dim=1),
            lambda F, x: F.Activation(x, act_type=relu),
            norm,
        )
        net.initialize()
        return net
    finally:
        mx.npx.set_np()


def hybridized():
    net = new()
    net.initialize()
    net.hybridize()
    return net


class Pair(nn.Block):
    """Returns a tuple, and scales its input."""

    def __init__(self, body, scale=1.0):
        super().__init__()
        self.body, self.scale = body, scale

    def forward(self, x):
        x = x * self.scale if self.scale != 1 else x
        return self.body(x), npx.softmax(self.body(x))


def exchanged():
    rows = list(BLOCKS)
    rows[4], rows[5] = rows[5], rows[4]
    return book(rows=rows)


NORM = {"epsilon": 1e-3, "momentum": 0.9}
#: a last pool with a window of its own: right at 96 pixels
FIXED = book, {"last": lambda: nn.AvgPool2D(3, 3)}

RIGHT = {
    "not initialized": book,
    "a convolution, then the mean": lambda: book(
        last=None, end=[nn.Conv2D(10, kernel_size=1), nn.GlobalAvgPool2D(), nn.Flatten()]
    ),
    "function": lambda: book,
    "hybrid, F.np": new,
    "hybridized": hybridized,
    "hybrid, mx.nd": old,
}
RIGHT_NORM = {
    "norm": lambda: new(NORM),
    "norm, mx.nd": lambda: old(NORM),
    "own norm": lambda: new("own"),
}
WRONG = {
    "swapped": (lambda: book(Swapped), {"swapped-branches"}),
    "no relu": (lambda: book(Linear), {"missing-relu"}),
    "average and global max": (
        lambda: book(Average, nn.GlobalMaxPool2D),
        {"avg-pool", "global-pool"},
    ),
    "flatten": (lambda: book(last=None), {"missing-global-pool"}),
    "stride": (lambda: book(stride=1), {"stride"}),
    "exchanged": (exchanged, {"exchanged-blocks"}),
    "sigmoid, mx.nd": (lambda: old(relu="sigmoid"), {"activation"}),
}
WRONG_NORM = {
    "eps": (lambda: new({"momentum": 0.9}), {"norm-eps"}),
    "no scale": (lambda: new({**NORM, "scale": False}), {"norm-affine"}),
    "no shift": (lambda: new({**NORM, "center": False}), {"norm-affine"}),
}
#: networks that no list of mistakes explains: the outcome, and names that may be said beside it
REFUSED = {
    "one convolution for three branches": (lambda: book(Fused), "makes several branches"),
}
OPEN = {"odd input": (lambda: Odd(book()), "unexplained", set())}

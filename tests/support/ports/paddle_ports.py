"""Ports of GoogLeNet to Paddle as people write them, with an eighth of the widths.

`RIGHT` has networks that are the reference's function, `WRONG` those with mistakes and their names.
"""

import paddle
import paddle.nn.functional as F
from paddle import nn

BLOCKS = [
    (24, 8, (12, 16), (2, 4), 4),
    (32, 16, (16, 24), (4, 12), 8),
    None,
    (60, 24, (12, 26), (2, 6), 8),
    (64, 20, (14, 28), (3, 8), 8),
    (64, 16, (16, 32), (3, 8), 8),
    (64, 14, (18, 36), (4, 8), 8),
    (66, 32, (20, 40), (4, 16), 16),
    None,
    (104, 32, (20, 40), (4, 16), 16),
    (104, 48, (24, 48), (6, 16), 16),
]


class Block(nn.Layer):
    """The book's block."""

    order = (0, 1, 2, 3)

    def __init__(self, i, c1, c2, c3, c4):
        super().__init__()
        self.p1_1 = nn.Conv2D(i, c1, 1)
        self.p2_1 = nn.Conv2D(i, c2[0], 1)
        self.p2_2 = nn.Conv2D(c2[0], c2[1], 3, padding=1)
        self.p3_1 = nn.Conv2D(i, c3[0], 1)
        self.p3_2 = nn.Conv2D(c3[0], c3[1], 5, padding=2)
        self.p4_1 = nn.MaxPool2D(3, stride=1, padding=1)
        self.p4_2 = nn.Conv2D(i, c4, 1)

    def reduce(self, x):
        return F.relu(x)

    def forward(self, x):
        parts = [
            F.relu(self.p1_1(x)),
            F.relu(self.p2_2(self.reduce(self.p2_1(x)))),
            F.relu(self.p3_2(F.relu(self.p3_1(x)))),
            F.relu(self.p4_2(self.p4_1(x))),
        ]
        return paddle.concat(x=[parts[i] for i in self.order], axis=1)


class Swapped(Block):
    order = (0, 1, 3, 2)


class Linear(Block):
    def reduce(self, x):
        return x


class Silu(Block):
    def reduce(self, x):
        return F.silu(x)


def book(block=Block, pad=3, ceil=False, end=None, rows=None):
    """The book's network."""

    def pool():
        return nn.MaxPool2D(3, stride=2, padding=1, ceil_mode=ceil)

    parts = [nn.Conv2D(1, 8, 7, stride=2, padding=pad), nn.ReLU(), pool()]
    parts += [nn.Conv2D(8, 8, 1), nn.ReLU(), nn.Conv2D(8, 24, 3, padding=1), nn.ReLU(), pool()]
    parts += [pool() if row is None else block(*row) for row in rows or BLOCKS]
    end = [nn.AdaptiveAvgPool2D((1, 1)), nn.Flatten(), nn.Linear(128, 10)] if end is None else end
    return nn.Sequential(*parts, *end)


class Fused(nn.Layer):
    """One convolution makes three branches."""

    def __init__(self, i, c1, c2, c3, c4):
        super().__init__()
        self.widths = [c1, c2[0], c3[0]]
        self.first = nn.Conv2D(i, sum(self.widths), 1)
        self.p2_2 = nn.Conv2D(c2[0], c2[1], 3, padding=1)
        self.p3_2 = nn.Conv2D(c3[0], c3[1], 5, padding=2)
        self.p4_2 = nn.Conv2D(i, c4, 1)

    def forward(self, x):
        p1, p2, p3 = paddle.split(F.relu(self.first(x)), self.widths, axis=1)
        p4 = F.relu(self.p4_2(F.max_pool2d(x, 3, 1, 1)))
        return paddle.concat([p1, F.relu(self.p2_2(p2)), F.relu(self.p3_2(p3)), p4], axis=1)


class Each(nn.Layer):
    """A loop over the images."""

    def __init__(self):
        super().__init__()
        self.net = book()

    def forward(self, x):
        return paddle.concat([self.net(image) for image in paddle.split(x, len(x))])


class Odd(nn.Layer):
    """An input that no simple step makes."""

    def __init__(self, net):
        super().__init__()
        self.net = net

    def forward(self, x):
        return self.net(paddle.sin(3 * x) + 0.2 * paddle.flip(x, [3]))


class OwnNorm(nn.Layer):
    """The book's norm, written out."""

    def __init__(self, channels, epsilon, data_format):
        super().__init__()
        self.eps, shape = epsilon, [1, channels, 1, 1]
        self.gamma = self.create_parameter(shape, default_initializer=nn.initializer.Constant(1.0))
        self.beta = self.create_parameter(shape, is_bias=True)
        self.register_buffer("mean", paddle.zeros(shape))
        self.register_buffer("var", paddle.ones(shape))

    def forward(self, x):
        return self.gamma * (x - self.mean) / (self.var + self.eps) ** 0.5 + self.beta


class Unit(nn.Layer):
    """A unit in the style of paddle.vision's models."""

    def __init__(
        self, i, o, k, stride=1, eps=1e-3, act="relu", order="NCHW", kind=nn.BatchNorm2D, **norm
    ):
        super().__init__()
        pad = (k - 1) // 2
        self._conv = nn.Conv2D(i, o, k, stride, pad, bias_attr=False, data_format=order)
        self._batch_norm = kind(o, epsilon=eps, data_format=order, **norm)
        self.act = act

    def forward(self, x):
        x = self._batch_norm(self._conv(x))
        return getattr(F, self.act)(x)


class WithNorm(nn.Layer):
    def __init__(self, drop=0.0, order="NCHW", **unit):
        super().__init__()
        self.order, unit = order, {"order": order, **unit}
        pool = nn.MaxPool2D(3, 2, 1, data_format=order)
        self.stem = nn.Sequential(Unit(1, 8, 7, 2, **unit), pool)
        self.second = nn.Sequential(Unit(8, 8, 1, **unit), Unit(8, 24, 3, **unit), pool)
        self.blocks = nn.LayerList()
        for row in BLOCKS:
            if row is None:
                self.blocks.append(nn.LayerList([pool]))
                continue
            i, c1, c2, c3, c4 = row
            units = [
                Unit(i, c1, 1, **unit),
                Unit(i, c2[0], 1, **unit),
                Unit(c2[0], c2[1], 3, **unit),
            ]
            units += [
                Unit(i, c3[0], 1, **unit),
                Unit(c3[0], c3[1], 5, **unit),
                Unit(i, c4, 1, **unit),
            ]
            self.blocks.append(nn.LayerList(units))
        self.drop = drop
        self.fc = nn.Linear(128, 10)

    def forward(self, x):
        x = self.second(self.stem(x))
        for parts in self.blocks:
            if len(parts) == 1:
                x = parts[0](x)
                continue
            a, b1, b2, c1, c2, d = parts
            side = F.max_pool2d(x, 3, 1, 1, data_format=self.order)
            parts = [a(x), b2(b1(x)), c2(c1(x)), d(side)]
            x = paddle.concat(parts, axis=self.order.index("C"))
        x = F.adaptive_avg_pool2d(x, 1, data_format=self.order).flatten(1)
        if self.drop:
            x = F.dropout(x, self.drop)  # `training` is True by default
        return self.fc(x)


def raw():
    """Raw parameters and one function."""
    weights = {}

    def conv(x, name, o, k, stride=1, pad=0):
        if name not in weights:
            shape = [o, x.shape[1], k, k]
            weights[name] = paddle.randn(shape) * 0.1, paddle.zeros([o])
        w, b = weights[name]
        return F.relu(F.conv2d(x, w.astype(x.dtype), b.astype(x.dtype), stride, pad))

    def net(x):
        x = F.max_pool2d(conv(x, "a", 8, 7, 2, 3), 3, 2, 1)
        x = F.max_pool2d(conv(conv(x, "b", 8, 1), "c", 24, 3, 1, 1), 3, 2, 1)
        for n, row in enumerate(BLOCKS):
            if row is None:
                x = F.max_pool2d(x, 3, 2, 1)
                continue
            _, c1, c2, c3, c4 = row
            a = conv(x, f"{n}a", c1, 1)
            b = conv(conv(x, f"{n}b", c2[0], 1), f"{n}c", c2[1], 3, 1, 1)
            c = conv(conv(x, f"{n}d", c3[0], 1), f"{n}e", c3[1], 5, 1, 2)
            d = conv(F.max_pool2d(x, 3, 1, 1), f"{n}f", c4, 1)
            x = paddle.concat([a, b, c, d], 1)
        x = x.mean([2, 3])
        if "head" not in weights:
            weights["head"] = paddle.randn([128, 10]) * 0.1, paddle.zeros([10])
        w, b = weights["head"]
        return x @ w.astype(x.dtype) + b.astype(x.dtype)

    return net


class Normalised(nn.Layer):
    """Normalises its input, and returns a dictionary."""

    def __init__(self, body):
        super().__init__()
        self.body = body

    def forward(self, x):
        return {"out": self.body((x - 0.2860) / 0.3530)}


def exchanged():
    rows = list(BLOCKS)
    rows[4], rows[5] = rows[5], rows[4]
    return book(rows=rows)


class Single(nn.Layer):
    """A network that casts what it gets to float32."""

    def __init__(self):
        super().__init__()
        self.net = book()

    def forward(self, x):
        return self.net.to(dtype="float32")(x.astype("float32"))


#: a last pool with a window of its own: right at 96 pixels
FIXED = book, {"end": [nn.AvgPool2D(3), nn.Flatten(), nn.Linear(128, 10)]}

RIGHT = {
    "float32": Single,
    "a convolution, then the mean": lambda: book(
        end=[nn.Conv2D(128, 10, 1), nn.AdaptiveAvgPool2D(1), nn.Flatten()]
    ),
    "sequential": book,
    "factory": lambda: book,
    "raw parameters": raw,
    "to_static": lambda: paddle.jit.to_static(book()),
    "a whole graph": lambda: paddle.jit.to_static(book(), full_graph=True),
}
RIGHT_NORM = {
    "norm": WithNorm,
    "class": lambda: WithNorm,
    "channels last": lambda: WithNorm(order="NHWC"),
    "own norm": lambda: WithNorm(kind=OwnNorm),
}
WRONG = {
    "swapped": (lambda: book(Swapped), {"swapped-branches"}),
    "no relu": (lambda: book(Linear), {"missing-relu"}),
    "silu": (lambda: book(Silu), {"activation"}),
    "same": (lambda: book(pad="same"), {"same-padding"}),
    "ceil": (lambda: book(ceil=True), {"ceil-pool"}),
    "softmax": (lambda: nn.Sequential(book(), nn.Softmax()), {"softmax-at-end"}),
    "log softmax": (lambda: nn.Sequential(book(), nn.LogSoftmax()), {"softmax-at-end"}),
    "flatten": (lambda: book(end=[nn.Flatten(), nn.Linear(512, 10)]), {"missing-global-pool"}),
    "normalised and swapped": (
        lambda: Normalised(book(Swapped)),
        {"input-scaled", "swapped-branches"},
    ),
    "exchanged": (exchanged, {"exchanged-blocks"}),
}
WRONG_NORM = {
    "eps": (lambda: WithNorm(eps=1e-5), {"norm-eps"}),
    "eps, channels last": (lambda: WithNorm(order="NHWC", eps=1e-5), {"norm-eps"}),
    "no shift": (lambda: WithNorm(bias_attr=False), {"norm-affine"}),
    "hardswish": (lambda: WithNorm(act="hardswish"), {"activation"}),
    "dropout": (lambda: WithNorm(drop=0.4), {"dropout-active"}),
}
#: networks that no list of mistakes explains: the outcome, and names that may be said beside it
REFUSED = {
    "one convolution for three branches": (lambda: book(Fused), "makes several branches"),
    "a loop over the images": (Each, "takes one image at a time at "),
}
OPEN = {"odd input": (lambda: Odd(book()), "unexplained", set())}

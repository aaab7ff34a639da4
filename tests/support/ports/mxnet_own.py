"""The network `mini`, with its norms, in Gluon with names of its user's own."""

from mxnet import np, npx
from mxnet.gluon import nn

npx.set_np()

WIDTHS = [
    (16, (16, 24), (4, 12), 8),
    None,
    (32, (20, 40), (4, 16), 16),
    None,
    (48, (24, 48), (6, 16), 16),
]


def conv(width, side, stride=1):
    found = nn.Sequential()
    found.add(nn.Conv2D(width, side, stride, side // 2), nn.BatchNorm(epsilon=0.001))
    found.add(nn.Activation("relu"))
    return found


class Mix(nn.Block):
    def __init__(self, a, b, c, d, **kwargs):
        super().__init__(**kwargs)
        self.one = conv(a, 1)
        self.three = nn.Sequential()
        self.three.add(conv(b[0], 1), conv(b[1], 3))
        self.five = nn.Sequential()
        self.five.add(conv(c[0], 1), conv(c[1], 5))
        self.pool = nn.Sequential()
        self.pool.add(nn.MaxPool2D(3, 1, 1), conv(d, 1))

    def forward(self, x):
        return np.concatenate([self.one(x), self.three(x), self.five(x), self.pool(x)], axis=1)


def net():
    whole = nn.Sequential()
    whole.add(conv(8, 7, 2), nn.MaxPool2D(3, 2, 1))
    whole.add(conv(8, 1), conv(24, 3), nn.MaxPool2D(3, 2, 1))
    for widths in WIDTHS:
        whole.add(Mix(*widths) if widths else nn.MaxPool2D(3, 2, 1))
    whole.add(nn.GlobalAvgPool2D(), nn.Dense(10))
    return whole

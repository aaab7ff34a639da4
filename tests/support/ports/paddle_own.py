"""The network `mini`, with its norms, in Paddle with names of its user's own."""

import paddle
from paddle import nn

WIDTHS = [
    (24, 16, (16, 24), (4, 12), 8),
    None,
    (60, 32, (20, 40), (4, 16), 16),
    None,
    (104, 48, (24, 48), (6, 16), 16),
]


def conv(i, o, side, **kwargs):
    convolution = nn.Conv2D(i, o, side, padding=side // 2, **kwargs)
    return nn.Sequential(convolution, nn.BatchNorm2D(o, epsilon=0.001), nn.ReLU())


class Mix(nn.Layer):
    def __init__(self, i, a, b, c, d):
        super().__init__()
        self.one = conv(i, a, 1)
        self.three = nn.Sequential(conv(i, b[0], 1), conv(b[0], b[1], 3))
        self.five = nn.Sequential(conv(i, c[0], 1), conv(c[0], c[1], 5))
        self.pool = nn.Sequential(nn.MaxPool2D(3, 1, 1), conv(i, d, 1))

    def forward(self, x):
        return paddle.concat([self.one(x), self.three(x), self.five(x), self.pool(x)], 1)


class Net(nn.Layer):
    def __init__(self):
        super().__init__()
        self.begin = nn.Sequential(
            conv(1, 8, 7, stride=2),
            nn.MaxPool2D(3, 2, 1),
            conv(8, 8, 1),
            conv(8, 24, 3),
            nn.MaxPool2D(3, 2, 1),
        )
        self.middle = nn.Sequential(*(Mix(*w) if w else nn.MaxPool2D(3, 2, 1) for w in WIDTHS))
        self.classify = nn.Linear(128, 10)

    def forward(self, x):
        x = self.middle(self.begin(x))
        return self.classify(x.mean([2, 3]))


net = Net

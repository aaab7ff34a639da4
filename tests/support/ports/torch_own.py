"""The network `mini`, with its norms, in PyTorch with names of its user's own."""

import torch
from torch import nn

WIDTHS = [
    (24, 16, (16, 24), (4, 12), 8),
    None,
    (60, 32, (20, 40), (4, 16), 16),
    None,
    (104, 48, (24, 48), (6, 16), 16),
]


def conv(i, o, **kwargs):
    norm = nn.BatchNorm2d(o, eps=0.001)
    return nn.Sequential(nn.Conv2d(i, o, bias=False, **kwargs), norm, nn.ReLU(inplace=True))


class Mix(nn.Module):
    def __init__(self, i, a, b, c, d):
        super().__init__()
        self.paths = nn.ModuleDict(
            {
                "one": conv(i, a, kernel_size=1),
                "three": nn.Sequential(
                    conv(i, b[0], kernel_size=1), conv(b[0], b[1], kernel_size=3, padding=1)
                ),
                "five": nn.Sequential(
                    conv(i, c[0], kernel_size=1), conv(c[0], c[1], kernel_size=5, padding=2)
                ),
                "pool": nn.Sequential(nn.MaxPool2d(3, 1, 1), conv(i, d, kernel_size=1)),
            }
        )

    def forward(self, x):
        return torch.cat([path(x) for path in self.paths.values()], 1)


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.begin = nn.Sequential(
            conv(1, 8, kernel_size=7, stride=2, padding=3),
            nn.MaxPool2d(3, 2, 1),
            conv(8, 8, kernel_size=1),
            conv(8, 24, kernel_size=3, padding=1),
            nn.MaxPool2d(3, 2, 1),
        )
        self.middle = nn.ModuleList(Mix(*w) if w else nn.MaxPool2d(3, 2, 1) for w in WIDTHS)
        self.classify = nn.Linear(128, 10)

    def forward(self, x):
        x = self.begin(x)
        for part in self.middle:
            x = part(x)
        return self.classify(x.mean((2, 3)))


net = Net

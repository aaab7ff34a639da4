"""AlexNet, VGG-11 and NiN, which an exercise of the book compares with GoogLeNet.

Source: the book's definitions (d2l, chapter Modern Convolutional Neural Networks), for one input
channel and ten classes.
"""

from __future__ import annotations

from common.spec.rows import Conv, GlobalAvgPool, Linear, MaxPool, Row

_TWO_HIDDEN = (Linear(4096, activation=True), Linear(4096, activation=True), Linear(10))
_HALVE = MaxPool(2, stride=2)

#: name: the input (channels, height, width) and the rows
PEERS: dict[str, tuple[tuple[int, int, int], tuple[Row, ...]]] = {
    "AlexNet": (
        (1, 224, 224),
        (
            Conv(96, 11, stride=4, padding=1),
            MaxPool(3, stride=2),
            Conv(256, 5, padding=2),
            MaxPool(3, stride=2),
            Conv(384, 3, padding=1),
            Conv(384, 3, padding=1),
            Conv(256, 3, padding=1),
            MaxPool(3, stride=2),
            *_TWO_HIDDEN,
        ),
    ),
    "VGG-11": (
        (1, 224, 224),
        (
            *(Conv(64, 3, padding=1), _HALVE),
            *(Conv(128, 3, padding=1), _HALVE),
            *(Conv(256, 3, padding=1), Conv(256, 3, padding=1), _HALVE),
            *(Conv(512, 3, padding=1), Conv(512, 3, padding=1), _HALVE),
            *(Conv(512, 3, padding=1), Conv(512, 3, padding=1), _HALVE),
            *_TWO_HIDDEN,
        ),
    ),
    "NiN": (
        (1, 224, 224),
        (
            *(Conv(96, 11, stride=4), Conv(96), Conv(96), MaxPool(3, stride=2)),
            *(Conv(256, 5, padding=2), Conv(256), Conv(256), MaxPool(3, stride=2)),
            *(Conv(384, 3, padding=1), Conv(384), Conv(384), MaxPool(3, stride=2)),
            *(Conv(10, 3, padding=1), Conv(10), Conv(10), GlobalAvgPool()),
        ),
    ),
}

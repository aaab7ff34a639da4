"""The networks that torchvision and paddle.vision call GoogLeNet.

Both have three input channels, 1000 classes and two auxiliary heads, after the blocks 4a and 4d.
Their convolutions have no bias. Neither network is the paper's or the book's: the comments below
list the differences. Sources: torchvision/models/googlenet.py of pytorch/vision, and
python/paddle/vision/models/googlenet.py of PaddlePaddle/Paddle. `tests/upstream` checks the specs
against the packages.
"""

from __future__ import annotations

from dataclasses import replace

from common.spec.networks import D2L, each_conv
from common.spec.rows import (
    AdaptiveAvgPool,
    Affine,
    Auxiliary,
    AvgPool,
    Conv,
    GlobalAvgPool,
    Inception,
    Linear,
    MaxPool,
    Norm,
    Row,
    Spec,
)


def _without_bias(rows: tuple[Row, ...]) -> tuple[Row, ...]:
    return each_conv(rows, lambda conv: replace(conv, bias=False))


def _torchvision_blocks(blocks: tuple[Row, ...]) -> tuple[Row, ...]:
    """No bias, and a 3x3 kernel in `branch5x5`, where the paper and the book have 5x5."""

    def changed(block: Row) -> Row:
        assert isinstance(block, Inception)
        reduce, last = block.branch5x5
        return replace(block, branch5x5=(reduce, replace(last, kernel=3, padding=1)))

    return _without_bias(tuple(map(changed, blocks)))


_CEIL = MaxPool(3, stride=2, ceil=True)
_TORCHVISION_HEAD = Auxiliary(
    after=0,
    pool=AdaptiveAvgPool(4),
    conv=Conv(128, bias=False),
    features=128 * 4 * 4,
    hidden=Linear(1024, activation=True),
)

#: torchvision's `googlenet(aux_logits=False)`: batch norm, no bias, pools that round up, a 3x3
#: kernel in the 5x5 branch (pytorch/vision issue 906), a 2x2 pool after stage4.
TORCHVISION = Spec(
    name="torchvision",
    input=(3, 224, 224),
    stage1=(*_without_bias(D2L.stage1[:1]), _CEIL),
    stage2=(*_without_bias(D2L.stage2[:2]), _CEIL),
    stage3=(*_torchvision_blocks(D2L.stage3[:2]), _CEIL),
    stage4=(*_torchvision_blocks(D2L.stage4[:5]), MaxPool(2, stride=2, ceil=True)),
    stage5=(*_torchvision_blocks(D2L.stage5[:2]), GlobalAvgPool()),
    head=Linear(1000),
    norm=Norm(eps=1e-3, momentum=0.9),
    dropout=0.2,
)

#: The same network with its auxiliary heads, as torchvision trains it.
TORCHVISION_AUX = replace(
    TORCHVISION,
    name="torchvision-aux",
    auxiliary=(_TORCHVISION_HEAD, replace(_TORCHVISION_HEAD, after=3)),
)


def imagenet_input(spec: Spec, name: str) -> Spec:
    """The spec with torchvision's `transform_input`: from ImageNet's mean and deviation to 0.5."""
    statistics = ((0.485, 0.229), (0.456, 0.224), (0.406, 0.225))
    scale = tuple(deviation / 0.5 for _, deviation in statistics)
    shift = tuple((mean - 0.5) / 0.5 for mean, _ in statistics)
    return replace(spec, name=name, stage1=(Affine(scale, shift), *spec.stage1))


#: The networks that torchvision builds for its published ImageNet weights.
TORCHVISION_IMAGENET = imagenet_input(TORCHVISION, "torchvision-imagenet")
TORCHVISION_IMAGENET_AUX = imagenet_input(TORCHVISION_AUX, "torchvision-imagenet-aux")

_ROUNDED_DOWN = MaxPool(3, stride=2)


def _linear(rows: tuple[Row, ...]) -> tuple[Row, ...]:
    """The same rows without bias and without ReLU."""
    return each_conv(rows, lambda conv: replace(conv, activation=False, bias=False))


def _paddle_blocks(blocks: tuple[Row, ...]) -> tuple[Row, ...]:
    """No bias, and no ReLU after a reducing convolution.

    paddle.vision applies one ReLU after the concatenation. A ReLU in each branch is the same.
    """

    def changed(block: Row) -> Row:
        assert isinstance(block, Inception)
        branches = {name: (*_linear(rows[:-1]), rows[-1]) for name, rows in block.branches()}
        return Inception(**branches)  # type: ignore[arg-type]

    return _without_bias(tuple(map(changed, blocks)))


_PADDLE_HEAD = Auxiliary(
    after=0,
    pool=AvgPool(5, stride=3),
    conv=Conv(128, activation=False, bias=False),
    features=128 * 3 * 3,
    hidden=Linear(1024, activation=True),
)

#: paddle.vision's `googlenet`: no norm, no bias, pools without padding. The stem, the reducing
#: convolutions and the second auxiliary head have no ReLU. Its auxiliary heads accept images of 189
#: to 236 pixels.
PADDLE_VISION = Spec(
    name="paddle-vision",
    input=(3, 224, 224),
    stage1=(*_linear(D2L.stage1[:1]), _ROUNDED_DOWN),
    stage2=(*_linear(D2L.stage2[:2]), _ROUNDED_DOWN),
    stage3=(*_paddle_blocks(D2L.stage3[:2]), _ROUNDED_DOWN),
    stage4=(*_paddle_blocks(D2L.stage4[:5]), _ROUNDED_DOWN),
    stage5=(*_paddle_blocks(D2L.stage5[:2]), GlobalAvgPool()),
    head=Linear(1000),
    dropout=0.4,
    auxiliary=(
        _PADDLE_HEAD,
        replace(_PADDLE_HEAD, after=3, hidden=Linear(1024)),
    ),
)

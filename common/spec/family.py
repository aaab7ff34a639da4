"""The networks that other packages call GoogLeNet: torchvision's and paddle.vision's."""

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
    """No bias, and a 3x3 kernel in the branch that the paper and the book give a 5x5."""

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

#: torchvision's `googlenet(aux_logits=False)`: batch norm and no bias, pools that round up, 3x3
#: in the 5x5 branch (pytorch/vision issue 906), a last pool of 2x2.
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

#: The same with its auxiliary heads, as torchvision trains it.
TORCHVISION_AUX = replace(
    TORCHVISION,
    name="torchvision-aux",
    auxiliary=(_TORCHVISION_HEAD, replace(_TORCHVISION_HEAD, after=3)),
)


def _shifted(spec: Spec) -> Spec:
    """With torchvision's `transform_input`: from ImageNet's mean and deviation to 0.5 and 0.5."""
    statistics = ((0.485, 0.229), (0.456, 0.224), (0.406, 0.225))
    scale = tuple(deviation / 0.5 for _, deviation in statistics)
    shift = tuple((mean - 0.5) / 0.5 for mean, _ in statistics)
    stage1 = (Affine(scale, shift), *spec.stage1)
    return replace(
        spec, name=spec.name.replace("torchvision", "torchvision-imagenet"), stage1=stage1
    )


#: As torchvision builds it for its published ImageNet weights.
TORCHVISION_IMAGENET, TORCHVISION_IMAGENET_AUX = map(_shifted, (TORCHVISION, TORCHVISION_AUX))

_ROUNDED_DOWN = MaxPool(3, stride=2)


def _linear(rows: tuple[Row, ...]) -> tuple[Row, ...]:
    """The same rows with neither bias nor ReLU."""
    return each_conv(rows, lambda conv: replace(conv, activation=False, bias=False))


def _paddle_blocks(blocks: tuple[Row, ...]) -> tuple[Row, ...]:
    """No bias, and the only ReLU behind the concatenation: none after a reducing convolution."""

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

#: paddle.vision's `googlenet`: no norm, no bias, no ReLU in the stem and after the reducing
#: convolutions (nor in the second auxiliary head), pools without padding. Images of 189 to 236
#: pixels fit its auxiliary heads.
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

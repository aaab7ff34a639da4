"""The networks that came after GoogLeNet: batch-norm Inception, v3, v4 and Inception-ResNet-v2.

Sources: Ioffe and Szegedy, "Batch Normalization" (2015); Szegedy et al., "Rethinking the Inception
Architecture for Computer Vision" (2015), for v3; Szegedy et al., "Inception-v4, Inception-ResNet
and the Impact of Residual Connections on Learning" (2016). Where the packages that publish weights
differ from the papers or from each other, the specs follow the packages. `tests/upstream` and
`tests/packages` check them against the packages.
"""

from __future__ import annotations

from dataclasses import replace

from common.spec.family import imagenet_input
from common.spec.networks import each_row
from common.spec.rows import (
    Auxiliary,
    AvgPool,
    Branches,
    Conv,
    GlobalAvgPool,
    Linear,
    MaxPool,
    Norm,
    Residual,
    Row,
    Size,
    Spec,
)

_AVERAGE = AvgPool(3, stride=1, padding=1)
_HALVE = MaxPool(3, stride=2)


def _conv(width: int, kernel: Size = 1, stride: Size = 1, padding: Size = 0) -> Conv:
    """A convolution without bias: the norm after it has one."""
    return Conv(width, kernel, stride, padding, bias=False)


def _wide(width: int, kernel: int = 7) -> Conv:
    """A kernel of one row."""
    return _conv(width, (1, kernel), padding=(0, kernel // 2))


def _tall(width: int, kernel: int = 7) -> Conv:
    """A kernel of one column."""
    return _conv(width, (kernel, 1), padding=(kernel // 2, 0))


def _fork(width: int) -> Branches:
    """The row and the column of a 3x3 kernel, side by side (figure 7 of the v3 paper)."""
    return Branches(((_wide(width, 3),), (_tall(width, 3),)))


def _uncounted(spec: Spec, name: str) -> Spec:
    """The spec with the mean of the image's pixels, without the padding, in every average pool."""

    def changed(row: Row) -> Row:
        return replace(row, counted=False) if row == _AVERAGE else row

    stages = {stage: each_row(rows, changed) for stage, rows in spec.stages()}
    return replace(spec, name=name, **stages)  # type: ignore[arg-type]


# --- batch-norm Inception, or v2: two 3x3 convolutions in place of a 5x5


def _biased(width: int, kernel: Size = 1, stride: Size = 1, padding: Size = 0) -> Conv:
    return Conv(width, kernel, stride, padding)


_ROUNDED_UP = MaxPool(3, stride=2, ceil=True)


def _v2(c1: int, c2: tuple[int, int], c3: tuple[int, int], pool: Row, c4: int) -> Branches:
    return Branches(
        (
            (_biased(c1),),
            (_biased(c2[0]), _biased(c2[1], 3, padding=1)),
            (_biased(c3[0]), _biased(c3[1], 3, padding=1), _biased(c3[1], 3, padding=1)),
            (pool, _biased(c4)),
        )
    )


def _v2_smaller(c2: tuple[int, int], c3: tuple[int, int]) -> Branches:
    """A block that halves height and width: no 1x1 branch, no convolution after the pool."""
    return Branches(
        (
            (_biased(c2[0]), _biased(c2[1], 3, stride=2, padding=1)),
            (_biased(c3[0]), _biased(c3[1], 3, padding=1), _biased(c3[1], 3, 2, 1)),
            (_ROUNDED_UP,),
        )
    )


#: Batch-norm Inception in the Caffe lineage: pretrainedmodels' `bninception`. Its convolutions keep
#: a bias. Its published weights expect BGR images of 0 to 255, minus the means 104, 117 and 128.
BN_INCEPTION = Spec(
    name="bn-inception",
    input=(3, 224, 224),
    stage1=(_biased(64, 7, stride=2, padding=3), _ROUNDED_UP),
    stage2=(_biased(64), _biased(192, 3, padding=1), _ROUNDED_UP),
    stage3=(
        _v2(64, (64, 64), (64, 96), _AVERAGE, 32),
        _v2(64, (64, 96), (64, 96), _AVERAGE, 64),
        _v2_smaller((128, 160), (64, 96)),
    ),
    stage4=(
        _v2(224, (64, 96), (96, 128), _AVERAGE, 128),
        _v2(192, (96, 128), (96, 128), _AVERAGE, 128),
        _v2(160, (128, 160), (128, 160), _AVERAGE, 128),
        _v2(96, (128, 192), (160, 192), _AVERAGE, 128),
        _v2_smaller((128, 192), (192, 256)),
    ),
    stage5=(
        _v2(352, (192, 320), (160, 224), _AVERAGE, 128),
        _v2(352, (192, 320), (192, 224), MaxPool(3, stride=1, padding=1), 128),
        GlobalAvgPool(),
    ),
    head=Linear(1000),
    norm=Norm(eps=1e-5, momentum=0.9),
)


# --- Inception-v3: rows and columns in place of large kernels


def _v3_a(pool: int) -> Branches:
    """35x35: a 5x5 kernel beside two 3x3 (figure 5)."""
    return Branches(
        (
            (_conv(64),),
            (_conv(48), _conv(64, 5, padding=2)),
            (_conv(64), _conv(96, 3, padding=1), _conv(96, 3, padding=1)),
            (_AVERAGE, _conv(pool)),
        )
    )


def _v3_c(inner: int) -> Branches:
    """17x17: rows and columns of 7 (figure 6)."""
    return Branches(
        (
            (_conv(192),),
            (_conv(inner), _wide(inner), _tall(192)),
            (_conv(inner), _tall(inner), _wide(inner), _tall(inner), _wide(192)),
            (_AVERAGE, _conv(192)),
        )
    )


def _v3_e() -> Branches:
    """8x8: forks (figure 7)."""
    return Branches(
        (
            (_conv(320),),
            (_conv(384), _fork(384)),
            (_conv(448), _conv(384, 3, padding=1), _fork(384)),
            (_AVERAGE, _conv(192)),
        )
    )


def _stem(*more: Row) -> tuple[Row, ...]:
    """The first three convolutions of v3, v4 and Inception-ResNet-v2: from 299x299 to 147x147."""
    return _conv(32, 3, stride=2), _conv(32, 3), _conv(64, 3, padding=1), *more


#: Inception-v3 of torchvision, timm and Gluon: the padding counts in the averages.
INCEPTION_V3 = Spec(
    name="inception-v3",
    input=(3, 299, 299),
    stage1=_stem(_HALVE),
    stage2=(_conv(80), _conv(192, 3), _HALVE),
    stage3=(_v3_a(32), _v3_a(64), _v3_a(64)),
    stage4=(
        Branches(  # to 17x17
            (
                (_conv(384, 3, stride=2),),
                (_conv(64), _conv(96, 3, padding=1), _conv(96, 3, stride=2)),
                (_HALVE,),
            )
        ),
        *(_v3_c(128), _v3_c(160), _v3_c(160), _v3_c(192)),
    ),
    stage5=(
        Branches(  # to 8x8
            (
                (_conv(192), _conv(320, 3, stride=2)),
                (_conv(192), _wide(192), _tall(192), _conv(192, 3, stride=2)),
                (_HALVE,),
            )
        ),
        *(_v3_e(), _v3_e()),
        GlobalAvgPool(),
    ),
    head=Linear(1000),
    norm=Norm(eps=1e-3, momentum=0.9),
    dropout=0.5,
)

#: The same network with its auxiliary head, as torchvision trains it. The head takes 299 pixels.
INCEPTION_V3_AUX = replace(
    INCEPTION_V3,
    name="inception-v3-aux",
    auxiliary=(
        Auxiliary(
            after=4,
            pool=AvgPool(5, stride=3),
            conv=_conv(128),
            hidden=_conv(768, 5),
            features=768,
            dropout=0.0,
            share=0.4,
        ),
    ),
)

#: The networks that torchvision builds for its published ImageNet weights.
INCEPTION_V3_IMAGENET = imagenet_input(INCEPTION_V3, "inception-v3-imagenet")
INCEPTION_V3_IMAGENET_AUX = imagenet_input(INCEPTION_V3_AUX, "inception-v3-imagenet-aux")

#: Keras Applications': `padding="same"` leaves the padding out of the averages. Its norms have no
#: weight (`scale=False`); ours have one, which is 1 after a conversion. So Keras counts 17,216
#: fewer trained parameters. Its `count_params` also counts 34,432 running statistics.
INCEPTION_V3_KERAS = replace(
    _uncounted(INCEPTION_V3, "inception-v3-keras"),
    norm=Norm(eps=1e-3, momentum=0.99),
    dropout=0.0,
)

#: paddle.vision's: an eps of 1e-5, and another dropout.
INCEPTION_V3_PADDLE = replace(
    INCEPTION_V3, name="inception-v3-paddle", norm=Norm(eps=1e-5, momentum=0.9), dropout=0.2
)


# --- Inception-v4


def _v4_a() -> Branches:
    """35x35 (figure 4 of the v4 paper)."""
    return Branches(
        (
            (_conv(96),),
            (_conv(64), _conv(96, 3, padding=1)),
            (_conv(64), _conv(96, 3, padding=1), _conv(96, 3, padding=1)),
            (_AVERAGE, _conv(96)),
        )
    )


def _v4_b() -> Branches:
    """17x17 (figure 5)."""
    return Branches(
        (
            (_conv(384),),
            (_conv(192), _wide(224), _tall(256)),
            (_conv(192), _tall(192), _wide(224), _tall(224), _wide(256)),
            (_AVERAGE, _conv(128)),
        )
    )


def _v4_c() -> Branches:
    """8x8 (figure 6)."""
    return Branches(
        (
            (_conv(256),),
            (_conv(384), _fork(256)),
            (_conv(384), _tall(448, 3), _wide(512, 3), _fork(256)),
            (_AVERAGE, _conv(256)),
        )
    )


#: Inception-v4 of timm. The dropout is the paper's, which keeps 0.8; timm has none by default.
INCEPTION_V4 = _uncounted(
    Spec(
        name="counted",
        input=(3, 299, 299),
        stage1=_stem(Branches(((_HALVE,), (_conv(96, 3, stride=2),)))),
        stage2=(
            Branches(
                (
                    (_conv(64), _conv(96, 3)),
                    (_conv(64), _wide(64), _tall(64), _conv(96, 3)),
                )
            ),
            Branches(((_conv(192, 3, stride=2),), (_HALVE,))),  # to 35x35
        ),
        stage3=(_v4_a(),) * 4,
        stage4=(
            Branches(  # to 17x17
                (
                    (_conv(384, 3, stride=2),),
                    (_conv(192), _conv(224, 3, padding=1), _conv(256, 3, stride=2)),
                    (_HALVE,),
                )
            ),
            *(_v4_b(),) * 7,
        ),
        stage5=(
            Branches(  # to 8x8
                (
                    (_conv(192), _conv(192, 3, stride=2)),
                    (_conv(256), _wide(256), _tall(320), _conv(320, 3, stride=2)),
                    (_HALVE,),
                )
            ),
            *(_v4_c(),) * 3,
            GlobalAvgPool(),
        ),
        head=Linear(1000),
        norm=Norm(eps=1e-3, momentum=0.9),
        dropout=0.2,
    ),
    "inception-v4",
)


# --- Inception-ResNet-v2


def _added(scale: float, *branches: tuple[Row, ...], width: int) -> Residual:
    """Branches, then a 1x1 convolution back to the width of the input, with bias and no norm."""
    back = Conv(width, activation=False, norm=False)
    return Residual((Branches(branches), back), scale=scale)


_RESIDUAL_A = _added(  # 35x35 (figure 16 of the v4 paper)
    0.17,
    (_conv(32),),
    (_conv(32), _conv(32, 3, padding=1)),
    (_conv(32), _conv(48, 3, padding=1), _conv(64, 3, padding=1)),
    width=320,
)
_RESIDUAL_B = _added(  # 17x17 (figure 17)
    0.10, (_conv(192),), (_conv(128), _wide(160), _tall(192)), width=1088
)
_RESIDUAL_C = _added(  # 8x8 (figure 19)
    0.20, (_conv(192),), (_conv(192), _wide(224, 3), _tall(256, 3)), width=2080
)

#: Inception-ResNet-v2 of timm: the widths are TensorFlow's, which are not the paper's. The scales
#: stand before the sum. The last block is neither scaled nor followed by a ReLU. The dropout is the
#: paper's, as in Inception-v4.
INCEPTION_RESNET_V2 = _uncounted(
    Spec(
        name="counted",
        input=(3, 299, 299),
        stage1=_stem(_HALVE),
        stage2=(_conv(80), _conv(192, 3), _HALVE),
        stage3=(
            Branches(
                (
                    (_conv(96),),
                    (_conv(48), _conv(64, 5, padding=2)),
                    (_conv(64), _conv(96, 3, padding=1), _conv(96, 3, padding=1)),
                    (_AVERAGE, _conv(64)),
                )
            ),
            *(_RESIDUAL_A,) * 10,
        ),
        stage4=(
            Branches(  # to 17x17
                (
                    (_conv(384, 3, stride=2),),
                    (_conv(256), _conv(256, 3, padding=1), _conv(384, 3, stride=2)),
                    (_HALVE,),
                )
            ),
            *(_RESIDUAL_B,) * 20,
        ),
        stage5=(
            Branches(  # to 8x8
                (
                    (_conv(256), _conv(384, 3, stride=2)),
                    (_conv(256), _conv(288, 3, stride=2)),
                    (_conv(256), _conv(288, 3, padding=1), _conv(320, 3, stride=2)),
                    (_HALVE,),
                )
            ),
            *(_RESIDUAL_C,) * 9,
            replace(_RESIDUAL_C, scale=1.0, activation=False),
            _conv(1536),
            GlobalAvgPool(),
        ),
        head=Linear(1000),
        norm=Norm(eps=1e-3, momentum=0.9),
        dropout=0.2,
    ),
    "inception-resnet-v2",
)

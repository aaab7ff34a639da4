"""The book's network `d2l`, its variants `d2l-bn` and `blog-224`, and the small network `mini`.

Sources: Szegedy et al., "Going Deeper with Convolutions" (2014), in the version of *Dive into Deep
Learning* (d2l), section GoogLeNet; two published posts for the variants (docs/porting.md describes
them). `D2L` has the order of the book's page, so the two can be compared line by line.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from common.spec.rows import Conv, GlobalAvgPool, Inception, Linear, MaxPool, Norm, Row, Spec


def inception(c1: int, c2: tuple[int, int], c3: tuple[int, int], c4: int) -> Inception:
    """One Inception block with the book's arguments: the widths c1 to c4 of its four paths."""
    return Inception(
        branch1x1=(Conv(c1, 1),),
        branch3x3=(Conv(c2[0], 1), Conv(c2[1], 3, padding=1)),
        branch5x5=(Conv(c3[0], 1), Conv(c3[1], 5, padding=2)),
        branch_pool=(MaxPool(3, stride=1, padding=1), Conv(c4, 1)),
    )


#: The book's network: d2l, section GoogLeNet.
D2L = Spec(
    name="d2l",
    input=(1, 96, 96),
    stage1=(
        Conv(64, 7, stride=2, padding=3),
        MaxPool(3, stride=2, padding=1),
    ),
    stage2=(
        Conv(64, 1),
        Conv(192, 3, padding=1),
        MaxPool(3, stride=2, padding=1),
    ),
    stage3=(
        inception(64, (96, 128), (16, 32), 32),  # 3a
        inception(128, (128, 192), (32, 96), 64),  # 3b
        MaxPool(3, stride=2, padding=1),
    ),
    stage4=(
        inception(192, (96, 208), (16, 48), 64),  # 4a
        inception(160, (112, 224), (24, 64), 64),  # 4b
        inception(128, (128, 256), (24, 64), 64),  # 4c
        inception(112, (144, 288), (32, 64), 64),  # 4d
        inception(256, (160, 320), (32, 128), 128),  # 4e
        MaxPool(3, stride=2, padding=1),
    ),
    stage5=(
        inception(256, (160, 320), (32, 128), 128),  # 5a
        inception(384, (192, 384), (48, 128), 128),  # 5b
        GlobalAvgPool(),
    ),
    head=Linear(10),
)

#: The book's network with batch norm after every convolution, as in a published PyTorch variant.
#: The convolutions keep their bias, as in that variant. The bias has no effect in training, because
#: the norm subtracts the mean: its gradient is zero.
D2L_BN = replace(D2L, name="d2l-bn", norm=Norm(eps=1e-3, momentum=0.9))

#: A published 224-pixel variant. Its stem has no padding, a first convolution of stride 1 and pools
#: of stride 3. It has no block 4c.
BLOG_224 = Spec(
    name="blog-224",
    input=(1, 224, 224),
    stage1=(
        Conv(64, 7),
        MaxPool(3, stride=3),
    ),
    stage2=(
        Conv(64, 1),
        Conv(192, 3),
        MaxPool(3, stride=3),
    ),
    stage3=D2L.stage3,
    stage4=D2L.stage4[:2] + D2L.stage4[3:],
    stage5=D2L.stage5,
    head=Linear(10),
)


def each_conv(rows: tuple[Row, ...], change: Callable[[Conv], Conv]) -> tuple[Row, ...]:
    """The same rows with `change` applied to every convolution, also inside Inception blocks."""

    def changed(row: Row) -> Row:
        if isinstance(row, Inception):
            return Inception(**{name: each_conv(inner, change) for name, inner in row.branches()})  # type: ignore[arg-type]
        return change(row) if isinstance(row, Conv) else row

    return tuple(map(changed, rows))


def divide_widths(rows: tuple[Row, ...], by: int) -> tuple[Row, ...]:
    """The same rows with every convolution's width divided by `by`."""
    return each_conv(rows, lambda conv: replace(conv, width=conv.width // by))


#: d2l-bn with one Inception block per stage, an eighth of the widths and 33 pixels, for tests and
#: first experiments: it trains in seconds.
MINI = replace(
    D2L_BN,
    name="mini",
    input=(1, 33, 33),
    stage1=divide_widths(D2L.stage1, 8),
    stage2=divide_widths(D2L.stage2, 8),
    stage3=divide_widths(D2L.stage3[1:], 8),
    stage4=divide_widths(D2L.stage4[4:], 8),
    stage5=divide_widths(D2L.stage5[1:], 8),
)

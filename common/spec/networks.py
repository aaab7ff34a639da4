"""The book's network `d2l`, its variants, the paper's network, and two small networks for tests.

Sources: Szegedy et al., "Going Deeper with Convolutions" (2014), in the version of *Dive into Deep
Learning* (d2l), section GoogLeNet; two published posts for the variants (docs/porting describes
them). `D2L` has the order of the book's page, so the two can be compared line by line. Three
variants answer an exercise of the book, which asks for the ideas of the later papers: Szegedy et
al., "Rethinking the Inception Architecture" (2015) and "Inception-v4" (2016).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from common.spec.rows import (
    Auxiliary,
    AvgPool,
    Branches,
    Conv,
    GlobalAvgPool,
    Inception,
    Linear,
    LocalNorm,
    MaxPool,
    Norm,
    Residual,
    Row,
    Spec,
    inner_rows,
)


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


def each_row(rows: tuple[Row, ...], change: Callable[[Row], Row]) -> tuple[Row, ...]:
    """The same rows with `change` applied to every row that is not a block, also inside blocks."""

    def changed(row: Row) -> Row:
        inner = {name: each_row(within, change) for name, within in inner_rows(row)}
        match row:
            case Inception():
                return Inception(**inner)  # type: ignore[arg-type]
            case Branches():
                return Branches(tuple(inner.values()))
            case Residual():
                return replace(row, rows=inner["rows"])
        return change(row)

    return tuple(map(changed, rows))


def each_conv(rows: tuple[Row, ...], change: Callable[[Conv], Conv]) -> tuple[Row, ...]:
    """The same rows with `change` applied to every convolution, also inside blocks."""
    return each_row(rows, lambda row: change(row) if isinstance(row, Conv) else row)


def divide_widths(rows: tuple[Row, ...], by: int) -> tuple[Row, ...]:
    """The same rows with every convolution's width divided by `by`, at least 1."""
    return each_conv(rows, lambda conv: replace(conv, width=max(1, conv.width // by)))


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


# --- an exercise of the book: the ideas of the later papers, at the size of d2l


def _each_block(name: str, change: Callable[[Inception, int], Row]) -> Spec:
    """d2l-bn with every Inception block changed; `change` gets the block and its input channels."""
    stages = {}
    for (stage, rows), incoming in zip(D2L_BN.stages(), D2L_BN.channels(), strict=False):
        changed = list(rows)
        for index, row in enumerate(rows):
            if isinstance(row, Inception):
                changed[index] = change(row, incoming)
            incoming = row.channels(incoming)
        stages[stage] = tuple(changed)
    return replace(D2L_BN, name=name, **stages)  # type: ignore[arg-type]


def _two_3x3(block: Inception, incoming: int) -> Inception:
    reduce, last = block.branch5x5
    small = replace(last, kernel=3, padding=1)
    return replace(block, branch5x5=(reduce, small, small))


def _row_and_column(block: Inception, incoming: int) -> Inception:
    reduce, last = block.branch5x5
    row, column = (
        replace(last, kernel=k, padding=p) for k, p in (((1, 5), (0, 2)), ((5, 1), (2, 0)))
    )
    return replace(block, branch5x5=(reduce, row, column))


def _with_shortcut(block: Inception, incoming: int) -> Row:
    return Residual((block,), activation=False) if block.channels(incoming) == incoming else block


#: d2l-bn with two 3x3 convolutions in place of each 5x5, both as wide as the 5x5. That takes more
#: parameters, not fewer: the 5x5 has a narrow input, the second 3x3 has not.
D2L_V2 = _each_block("d2l-v2", _two_3x3)

#: d2l-bn with a row of 5 and a column of 5 in place of each 5x5.
D2L_FACTORIZED = _each_block("d2l-factorized", _row_and_column)

#: d2l-bn with x + block(x) where the block leaves as many channels as enter it: 4b, 4c and 5a. A
#: ReLU after the sum would change nothing, because neither side is negative.
D2L_RESIDUAL = _each_block("d2l-residual", _with_shortcut)


# --- the paper's network

_CEIL = MaxPool(3, stride=2, ceil=True)
_LOCAL_NORM = LocalNorm(size=5, alpha=1e-4, beta=0.75)
_PAPER_HEAD = Auxiliary(
    after=0,
    pool=AvgPool(5, stride=3),
    conv=Conv(128),
    features=128 * 4 * 4,
    hidden=Linear(1024, activation=True),
)

#: The network of the paper (table 1), with what the paper leaves to its implementation taken from
#: Caffe's `bvlc_googlenet`: local norms in the stem, and pools that round up.
GOOGLENET_PAPER = replace(
    D2L,
    name="googlenet-paper",
    input=(3, 224, 224),
    stage1=(D2L.stage1[0], _CEIL, _LOCAL_NORM),
    stage2=(*D2L.stage2[:2], _LOCAL_NORM, _CEIL),
    stage3=(*D2L.stage3[:2], _CEIL),
    stage4=(*D2L.stage4[:5], _CEIL),
    head=Linear(1000),
    dropout=0.4,
    auxiliary=(_PAPER_HEAD, replace(_PAPER_HEAD, after=3)),
)


# --- for tests

_ROW, _COLUMN = Conv(4, (1, 3), padding=(0, 1)), Conv(6, (3, 1), padding=(1, 0))

#: A small network with every kind of row and every option that `mini` lacks. Its maps are not
#: square, so height and width cannot be exchanged unseen.
MINI_FAMILY = replace(
    MINI,
    name="mini-family",
    stage2=(
        LocalNorm(size=3, alpha=0.5, beta=0.75),
        *MINI.stage2[:2],
        AvgPool((3, 2), stride=(2, 1), padding=(1, 0)),
    ),
    stage3=(
        Branches(
            (
                (Conv(8, bias=False), Branches(((_ROW,), (_COLUMN,)))),
                (AvgPool(3, stride=1, padding=1), Conv(12)),
                (AvgPool(3, stride=1, padding=1, counted=False), Conv(6)),
            )
        ),
    ),
    stage4=(
        Residual(
            (
                Branches(((Conv(8), Conv(6, (1, 7), padding=(0, 3))), (_COLUMN,))),
                Conv(28, activation=False, norm=False),
            ),
            scale=0.17,
        ),
        Branches(((Conv(24, 3, stride=2, bias=False),), (MaxPool(3, stride=2),))),
    ),
    stage5=(
        Residual((Conv(52, activation=False),), activation=False),
        GlobalAvgPool(),
    ),
    auxiliary=(
        Auxiliary(
            after=0,
            pool=AvgPool(2, stride=1),
            conv=Conv(6),
            hidden=Conv(8, 2),
            features=8,
            dropout=0.0,
        ),
    ),
)

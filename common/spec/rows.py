"""The rows that a network is made of, and `Spec`, the whole network: frozen, checked data.

A row is one layer or block with all its numbers. The backends build a native module for each row.
A field of a spec is also an attribute of the native model and a part of a weight's name
(`stage3.0.branch5x5.1.conv.weight`). An invalid value raises SpecError with the field's name.
Sources: Szegedy et al., "Going Deeper with Convolutions" (2014), for the Inception block, the local
norm and the auxiliary heads; Ioffe and Szegedy (2015) for the norm; Szegedy et al., "Inception-v4,
Inception-ResNet and the Impact of Residual Connections on Learning" (2016), for the residual block.
Terms and defaults follow *Dive into Deep Learning* (d2l), section GoogLeNet. Long because blocks
hold rows, and `Spec` holds both.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import TypeGuard

from common.errors import SpecError

Size = int | tuple[int, int]  #: one number for both axes, or (height, width)
Windows = list[tuple[int, int]]  #: along one axis: (first pixel, last pixel + 1) of each window


def pair(size: Size) -> tuple[int, int]:
    """`size` as (height, width)."""
    return size if isinstance(size, tuple) else (size, size)


def float32(value: float) -> float:
    """`value` rounded to float32, because some frameworks store hyper-parameters as float32."""
    return float(struct.unpack("f", struct.pack("f", value))[0])


def _require(holds: bool, field: str, value: object, rule: str) -> None:
    if not holds:
        raise SpecError(f"{field} is {value!r}: it must be {rule}.")


def is_whole(value: object, least: int) -> bool:
    """Whether this is a whole number of at least `least`; True and False are none."""
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


def is_number(value: object) -> TypeGuard[float]:
    """Whether this is a number; True and False are none."""
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _require_flags(row: object, *names: str) -> None:
    """SpecError unless these fields of the row are true or false."""
    for name in names:
        value = getattr(row, name)
        _require(isinstance(value, bool), f"{type(row).__name__}.{name}", value, "True or False")


def _normalise_window(row: Conv | MaxPool | AvgPool) -> None:
    """Turn kernel, stride and padding into pairs; SpecError for invalid ones."""
    for field, least in (("kernel", 1), ("stride", 1), ("padding", 0)):
        value = getattr(row, field)
        both = value if isinstance(value, tuple) else (value, value)
        holds = len(both) == 2 and all(is_whole(side, least) for side in both)
        rule = f"a whole number of at least {least}, or a pair of them"
        _require(holds, f"{type(row).__name__}.{field}", value, rule)
        object.__setattr__(row, field, both)


def _require_half(row: MaxPool | AvgPool) -> None:
    """SpecError if a window of the pool could hold padding alone."""
    halves = [p <= k // 2 for p, k in zip(pair(row.padding), pair(row.kernel), strict=True)]
    rule = f"at most half of the kernel {row.kernel}, or a window could hold padding alone"
    _require(all(halves), f"{type(row).__name__}.padding", row.padding, rule)


def _require_body(field: str, rows: object) -> None:
    """SpecError unless these are rows that may stand in a stage or in a block."""
    holds = isinstance(rows, tuple) and bool(rows) and all(isinstance(row, BODY) for row in rows)
    names = ", ".join(kind.__name__ for kind in BODY)
    _require(holds, field, rows, f"a tuple of one or more of {names}")


@dataclass(frozen=True)
class Conv:
    """A convolution, the network's norm if it has one, and a ReLU; all but the first are optional.

    `norm` False leaves the norm out of this convolution alone.
    """

    width: int
    kernel: Size = 1
    stride: Size = 1
    padding: Size = 0
    activation: bool = True
    bias: bool = True
    norm: bool = True

    def __post_init__(self) -> None:
        _require(is_whole(self.width, 1), "Conv.width", self.width, "a whole number of at least 1")
        _normalise_window(self)
        _require_flags(self, "activation", "bias", "norm")

    def channels(self, incoming: int) -> int:
        """Channels that leave this row when `incoming` enter it."""
        return self.width


@dataclass(frozen=True)
class MaxPool:
    """Max pooling; the padding counts as minus infinity.

    `ceil` rounds the number of windows up: a last window that is cut by the border counts too.
    """

    kernel: Size
    stride: Size
    padding: Size = 0
    ceil: bool = False

    def __post_init__(self) -> None:
        _normalise_window(self)
        _require_flags(self, "ceil")
        steps = zip(pair(self.stride), pair(self.kernel), pair(self.padding), strict=True)
        holds = not self.ceil or all(stride <= kernel and not pad for stride, kernel, pad in steps)
        rule = "False with a padding or a stride above the kernel: frameworks differ there"
        _require(holds, "MaxPool.ceil", self.ceil, rule)
        _require_half(self)

    def channels(self, incoming: int) -> int:
        """Channels that leave this row when `incoming` enter it."""
        return incoming


@dataclass(frozen=True)
class Inception:
    """Four parallel branches over one input; their outputs are concatenated in this order."""

    branch1x1: tuple[Conv | MaxPool, ...]
    branch3x3: tuple[Conv | MaxPool, ...]
    branch5x5: tuple[Conv | MaxPool, ...]
    branch_pool: tuple[Conv | MaxPool, ...]

    def __post_init__(self) -> None:
        for name, rows in self.branches():
            holds = isinstance(rows, tuple) and bool(rows)
            holds = holds and all(isinstance(row, (Conv, MaxPool)) for row in rows)
            _require(holds, f"Inception.{name}", rows, "a tuple of one or more Conv and MaxPool")

    def branches(self) -> list[tuple[str, tuple[Conv | MaxPool, ...]]]:
        """The branches by name, in the order of their output channels."""
        return [(field.name, getattr(self, field.name)) for field in fields(self)]

    def channels(self, incoming: int) -> int:
        """Channels that leave this block when `incoming` enter it."""
        return sum(channels_after(rows, incoming) for _, rows in self.branches())


@dataclass(frozen=True)
class Branches:
    """Any number of parallel branches over one input; their outputs are concatenated in order.

    A branch may hold blocks too: the forks of Inception-v3 are `Branches` at the end of a branch.
    """

    branches: tuple[tuple[Row, ...], ...]

    def __post_init__(self) -> None:
        holds = isinstance(self.branches, tuple) and len(self.branches) > 1
        _require(holds, "Branches.branches", self.branches, "a tuple of two or more branches")
        for index, rows in enumerate(self.branches):
            _require_body(f"Branches.branches[{index}]", rows)

    def channels(self, incoming: int) -> int:
        """Channels that leave this block when `incoming` enter it."""
        return sum(channels_after(rows, incoming) for rows in self.branches)


@dataclass(frozen=True)
class Residual:
    """x + scale * rows(x), and a ReLU; the rows leave the shape of x."""

    rows: tuple[Row, ...]
    scale: float = 1.0
    activation: bool = True

    def __post_init__(self) -> None:
        _require_body("Residual.rows", self.rows)
        holds = is_number(self.scale) and 0 < abs(self.scale) < math.inf
        _require(holds, "Residual.scale", self.scale, "finite and not 0")
        _require_flags(self, "activation")

    def channels(self, incoming: int) -> int:
        """Channels that leave this block, which are those that enter it; SpecError otherwise."""
        leaving = channels_after(self.rows, incoming)
        rule = f"{incoming}: the block adds its input, which has that many"
        _require(
            leaving == incoming, "Residual: the number of channels after its rows", leaving, rule
        )
        return incoming


@dataclass(frozen=True)
class LocalNorm:
    """x / (k + alpha / size * s) ** beta, with s the sum of x ** 2 over `size` channels around it.

    Channels that do not exist count as 0. Source: Krizhevsky et al. (2012), section 3.3, with alpha
    divided by `size` as in Caffe.
    """

    size: int
    alpha: float
    beta: float
    k: float = 1.0

    def __post_init__(self) -> None:
        holds = is_whole(self.size, 1) and self.size % 2 == 1
        _require(holds, "LocalNorm.size", self.size, "an odd whole number of at least 1")
        for field in ("alpha", "beta", "k"):
            value = getattr(self, field)
            holds = is_number(value) and 0 < value < math.inf
            _require(holds, f"LocalNorm.{field}", value, "larger than 0 and finite")

    def channels(self, incoming: int) -> int:
        """Channels that leave this row when `incoming` enter it."""
        return incoming


@dataclass(frozen=True)
class GlobalAvgPool:
    """The mean over height and width, flattened: (N, C, H, W) becomes (N, C)."""

    def channels(self, incoming: int) -> int:
        """Channels that leave this row when `incoming` enter it."""
        return incoming


@dataclass(frozen=True)
class AvgPool:
    """The mean of every window. Windows that do not fit into the padded image are left out.

    `counted`: zeros in the padding count in the mean. Otherwise it is the mean of the image's
    pixels in the window, as with Keras's `padding="same"`.
    """

    kernel: Size
    stride: Size
    padding: Size = 0
    counted: bool = True

    def __post_init__(self) -> None:
        _normalise_window(self)
        _require_flags(self, "counted")
        _require_half(self)
        steps = zip(pair(self.stride), pair(self.kernel), pair(self.padding), strict=True)
        holds = self.counted or all((s, k) == (1, p + 1 + p) for s, k, p in steps)
        rule = "True, unless the stride is 1 and the kernel centred: Keras has no other such pool"
        _require(holds, "AvgPool.counted", self.counted, rule)

    def windows(self, height: int, width: int) -> tuple[Windows, Windows]:
        """The image's pixels in the windows along the height and along the width."""
        sides = zip(
            *((height, width), pair(self.kernel), pair(self.stride), pair(self.padding)),
            strict=True,
        )
        down, right = (
            [
                (max(start, 0), min(start + kernel, length))
                for start in range(-pad, length + pad - kernel + 1, stride)
            ]
            for length, kernel, stride, pad in sides
        )
        return down, right

    def area(self, pixels: int) -> int:
        """The number that the sum over a window with so many pixels of the image is divided by."""
        return math.prod(pair(self.kernel)) if self.counted else pixels

    def channels(self, incoming: int) -> int:
        """Channels that leave this row when `incoming` enter it."""
        return incoming


@dataclass(frozen=True)
class AdaptiveAvgPool:
    """The means of (height, width) windows that cover the whole image.

    Window i of n over L pixels goes from floor(i L / n) to ceil((i + 1) L / n). The windows overlap
    if n does not divide L.
    """

    size: Size

    def __post_init__(self) -> None:
        holds = len(pair(self.size)) == 2 and all(is_whole(side, 1) for side in pair(self.size))
        _require(holds, "AdaptiveAvgPool.size", self.size, "one or two whole numbers, at least 1")
        object.__setattr__(self, "size", pair(self.size))

    def windows(self, height: int, width: int) -> tuple[Windows, Windows]:
        """The windows along the height and along the width."""
        down, right = (
            [(i * length // count, -(-(i + 1) * length // count)) for i in range(count)]
            for length, count in zip((height, width), pair(self.size), strict=True)
        )
        return down, right

    def area(self, pixels: int) -> int:
        """The number that the sum over a window with so many pixels is divided by: the same."""
        return pixels

    def channels(self, incoming: int) -> int:
        """Channels that leave this row when `incoming` enter it."""
        return incoming


@dataclass(frozen=True)
class Affine:
    """x * scale + shift for each channel; constants of the network, not trained."""

    scale: tuple[float, ...]
    shift: tuple[float, ...]

    def __post_init__(self) -> None:
        for field in ("scale", "shift"):
            value = getattr(self, field)
            holds = isinstance(value, tuple) and bool(value)
            holds = holds and all(is_number(each) and math.isfinite(each) for each in value)
            _require(holds, f"Affine.{field}", value, "a tuple of one or more finite numbers")
        holds = len(self.scale) == len(self.shift)
        _require(holds, "Affine.shift", self.shift, f"as long as scale {self.scale}")

    def channels(self, incoming: int) -> int:
        """Channels that leave this row; SpecError unless as many enter as it has constants."""
        rule = f"{len(self.scale)}: the network's first row has that many constants"
        _require(incoming == len(self.scale), "input channels", incoming, rule)
        return incoming


@dataclass(frozen=True)
class Linear:
    """A fully connected layer with bias over the flattened input, and an optional ReLU."""

    width: int
    activation: bool = False

    def __post_init__(self) -> None:
        _require(
            is_whole(self.width, 1), "Linear.width", self.width, "a whole number of at least 1"
        )
        _require_flags(self, "activation")

    def channels(self, incoming: int) -> int:
        """Features that leave this row."""
        return self.width


@dataclass(frozen=True)
class Auxiliary:
    """An auxiliary classifier on the output of row `after` of stage4, used in training.

    It has a pool, a convolution, a hidden layer, dropout and a head as wide as the network's head.
    A hidden `Linear` gets the convolution's output, flattened in the order (C, H, W): it has
    `features` values. After a hidden `Conv`, as in Inception-v3, comes the mean over height and
    width, which has `features` values, its width. Training adds `share` times the head's loss (0.3
    in the paper, section 5).
    """

    after: int
    pool: AvgPool | AdaptiveAvgPool
    conv: Conv
    features: int
    hidden: Linear | Conv
    dropout: float = 0.7
    share: float = 0.3

    def __post_init__(self) -> None:
        for field, least in (("after", 0), ("features", 1)):
            value = getattr(self, field)
            rule = f"a whole number of at least {least}"
            _require(is_whole(value, least), f"Auxiliary.{field}", value, rule)
        for field, kinds in (
            ("pool", (AvgPool, AdaptiveAvgPool)),
            ("conv", (Conv,)),
            ("hidden", (Linear, Conv)),
        ):
            value, rule = getattr(self, field), " or ".join(kind.__name__ for kind in kinds)
            _require(isinstance(value, kinds), f"Auxiliary.{field}", value, f"a row {rule}")
        if isinstance(self.hidden, Conv):
            holds = self.features == self.hidden.width
            rule = f"{self.hidden.width}, the width of the hidden convolution"
            _require(holds, "Auxiliary.features", self.features, rule)
        holds = is_number(self.dropout) and 0 <= self.dropout < 1
        _require(holds, "Auxiliary.dropout", self.dropout, "at least 0 and below 1")
        holds = is_number(self.share) and 0 < self.share < math.inf
        _require(holds, "Auxiliary.share", self.share, "larger than 0 and finite")

    def rows(self, head: Linear) -> dict[str, Row]:
        """The rows in order, by name; the last is `head`, the network's own."""
        mean = {"mean": GlobalAvgPool()} if isinstance(self.hidden, Conv) else {}
        return {"pool": self.pool, "conv": self.conv, "hidden": self.hidden, **mean, "head": head}


Block = Inception | Branches | Residual  #: the rows that hold rows
#: the rows that may stand in a stage or in a block; a GlobalAvgPool ends the last stage
BODY = (Conv, MaxPool, AvgPool, Inception, Branches, Residual, LocalNorm, Affine)
Row = (
    Affine
    | Conv
    | MaxPool
    | Inception
    | Branches
    | Residual
    | LocalNorm
    | AvgPool
    | AdaptiveAvgPool
    | GlobalAvgPool
    | Linear
)


def inner_rows(row: Row) -> list[tuple[str, tuple[Row, ...]]]:
    """The rows in a block, by their part of a weight's name, in order; [] for other rows.

    The names are fields of the block: `branch5x5`, `branches.2`, `rows`.
    """
    match row:
        case Inception():
            return [*row.branches()]
        case Branches():
            return [(f"branches.{index}", rows) for index, rows in enumerate(row.branches)]
        case Residual():
            return [("rows", row.rows)]
    return []


def channels_after(rows: Sequence[Row], incoming: int) -> int:
    """Channels that leave `rows` when `incoming` enter them."""
    for row in rows:
        incoming = row.channels(incoming)
    return incoming


@dataclass(frozen=True)
class Norm:
    """Batch normalization after every convolution, before its ReLU.

    `momentum` is the weight of the old running value; in d2l and PyTorch, 0.1 is the weight of the
    new one. The running variance is the biased one: the sum of squares is divided by the count.
    """

    eps: float
    momentum: float

    def __post_init__(self) -> None:
        for field in ("eps", "momentum"):
            value = getattr(self, field)
            _require(is_number(value), f"Norm.{field}", value, "a number")
        eps, momentum = float32(self.eps), float32(self.momentum)
        _require(0 < eps < math.inf, "Norm.eps", self.eps, "larger than 0, in float32 too")
        rule = "at least 0 and below 1, in float32 too"
        _require(0 <= momentum < 1, "Norm.momentum", self.momentum, rule)
        object.__setattr__(self, "eps", eps)
        object.__setattr__(self, "momentum", momentum)


@dataclass(frozen=True)
class Spec:
    """A network: its input (channels, height, width), five stages, a head and an optional norm.

    The head has no ReLU: its outputs are the logits. `dropout` is the share of the features before
    the head that training sets to zero. A network with auxiliary heads also returns their logits,
    in the order of `auxiliary`.
    """

    name: str
    input: tuple[int, int, int]
    stage1: tuple[Row, ...]
    stage2: tuple[Row, ...]
    stage3: tuple[Row, ...]
    stage4: tuple[Row, ...]
    stage5: tuple[Row, ...]
    head: Linear
    norm: Norm | None = None
    dropout: float = 0.0
    auxiliary: tuple[Auxiliary, ...] = ()

    def __post_init__(self) -> None:
        _require(isinstance(self.name, str), "Spec.name", self.name, "a text")
        holds = isinstance(self.input, tuple) and len(self.input) == 3
        holds = holds and all(is_whole(side, 1) for side in self.input)
        _require(
            holds, f"{self.name}.input", self.input, "(channels, height, width), each at least 1"
        )
        for name, rows in self.stages():
            holds = isinstance(rows, tuple) and bool(rows)
            _require(holds, f"{self.name}.{name}", rows, "a tuple of one or more rows")
        *body, last = [(name, row) for name, rows in self.stages() for row in rows]
        for name, row in body:
            _require_body(f"{self.name}.{name}", (row,))
        holds = isinstance(last[1], GlobalAvgPool)
        _require(holds, f"{self.name}.stage5", last[1], "a GlobalAvgPool in its last row")
        holds = isinstance(self.head, Linear) and not self.head.activation
        rule = "a Linear without activation: its outputs are logits"
        _require(holds, f"{self.name}.head", self.head, rule)
        holds = self.norm is None or isinstance(self.norm, Norm)
        _require(holds, f"{self.name}.norm", self.norm, "a Norm, or None")
        holds = is_number(self.dropout) and 0 <= self.dropout < 1
        _require(holds, f"{self.name}.dropout", self.dropout, "at least 0 and below 1")
        holds = isinstance(self.auxiliary, tuple)
        holds = holds and all(isinstance(side, Auxiliary) for side in self.auxiliary)
        _require(holds, f"{self.name}.auxiliary", self.auxiliary, "a tuple of Auxiliary heads")
        rule = f"a row of stage4, 0 to {len(self.stage4) - 1}"
        places = [side.after for side in self.auxiliary]
        order = "in the order of stage4's rows"
        _require(places == sorted(places), f"{self.name}.auxiliary", places, order)
        for side in self.auxiliary:
            holds = side.after < len(self.stage4)
            _require(holds, f"{self.name}.auxiliary.after", side.after, rule)

    def stages(self) -> list[tuple[str, tuple[Row, ...]]]:
        """The five stages by name, without the head."""
        return [(f"stage{number}", getattr(self, f"stage{number}")) for number in range(1, 6)]

    def channels(self) -> tuple[int, ...]:
        """The channels that enter stage1 to stage5 and the head."""
        ends = [self.input[0]]
        for _, rows in self.stages():
            ends.append(channels_after(rows, ends[-1]))
        return tuple(ends)

    def aux_inputs(self) -> list[tuple[Auxiliary, int]]:
        """The auxiliary heads, and the channels that enter each."""
        incoming = self.channels()[3]
        return [
            (row, channels_after(self.stage4[: row.after + 1], incoming)) for row in self.auxiliary
        ]

    def at(
        self,
        size: int | None = None,
        channels: int | None = None,
        classes: int | None = None,
        dropout: float | None = None,
        eps: float | None = None,
    ) -> Spec:
        """The same network with another size, channels, classes, dropout, or eps of its norms.

        `dropout` applies to every head. An argument that is None changes nothing. SpecError for an
        `eps` if the network has no norm.
        """
        if eps is not None:
            rule = f"left out: {self.name} has no batch norm"
            _require(self.norm is not None, "eps", eps, rule)
            assert self.norm
            changed = replace(self, norm=replace(self.norm, eps=eps))
            return changed.at(size, channels, classes, dropout)
        old_channels, height, width = self.input
        shape = (
            old_channels if channels is None else channels,
            height if size is None else size,
            width if size is None else size,
        )
        head = self.head if classes is None else replace(self.head, width=classes)
        if dropout is None:
            return replace(self, input=shape, head=head)
        auxiliary = tuple(replace(row, dropout=dropout) for row in self.auxiliary)
        return replace(self, input=shape, head=head, dropout=dropout, auxiliary=auxiliary)

"""Random small networks for hypothesis: every kind of row, every field, images of odd sizes.

A row is drawn for the shape that enters it, so that every network is valid.
"""

from hypothesis import strategies as st

from common.spec import (
    AdaptiveAvgPool,
    Affine,
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
    Spec,
)
from common.spec.arithmetic import walk

SMALL = (Conv, Affine, LocalNorm, MaxPool, AvgPool)
DEPTH = 2  #: blocks in one another


def whole(least, most):
    return st.integers(least, most)


def real(least, most):
    return st.floats(least, most, width=32)


def after(rows, shape):
    """The shape (C, H, W) that leaves the rows."""
    return walk(rows, (1, *shape), None)[1][1:]


@st.composite
def windows(draw, shape, keep, half):
    """Kernel, stride and padding: any that fit, or such that keep the image's size."""
    if keep:
        kernel = tuple(draw(st.sampled_from((1, 3, 5))) for _ in range(2))
        return kernel, (1, 1), tuple(side // 2 for side in kernel)
    kernel = tuple(draw(whole(1, min(3, side))) for side in shape[1:])
    padding = tuple(draw(whole(0, side // 2 if half else 2)) for side in kernel)
    strides = st.sampled_from((1, 1, 2, 3))  # a small image has little to show
    return kernel, (draw(strides), draw(strides)), padding


@st.composite
def convs(draw, shape, keep=False, width=None):
    window = draw(windows(shape, keep, half=False))
    width = width or draw(whole(2, 5))
    return Conv(width, *window, *(draw(st.booleans()) for _ in range(3)))


@st.composite
def max_pools(draw, shape, keep=False):
    kernel, stride, padding = draw(windows(shape, keep, half=True))
    if not keep and draw(st.booleans()):
        stride = tuple(min(each) for each in zip(kernel, stride, strict=True))
        return MaxPool(kernel, stride, 0, ceil=True)
    return MaxPool(kernel, stride, padding)


@st.composite
def avg_pools(draw, shape, keep=False):
    kernel, stride, padding = draw(windows(shape, keep, half=True))
    centred = stride == (1, 1) and kernel == tuple(2 * pad + 1 for pad in padding)
    return AvgPool(kernel, stride, padding, counted=not centred or draw(st.booleans()))


@st.composite
def branches_of(draw, shape, depth, kinds=None):
    """Rows that keep the image's size."""
    found = ()
    for _ in range(draw(whole(1, 2))):
        found += (draw(rows(after(found, shape), True, depth, kinds)),)
    return found


@st.composite
def inceptions(draw, shape):
    kinds = (Conv, MaxPool)
    return Inception(*(draw(branches_of(shape, 0, kinds)) for _ in range(4)))


@st.composite
def forks(draw, shape, keep, depth):
    """Branches; those that make the image smaller end in the same window, as in Inception-v3."""
    found = [draw(branches_of(shape, depth - 1)) for _ in range(draw(whole(2, 3)))]
    if not keep and draw(st.booleans()):
        window = draw(windows(shape, False, half=True))
        last = st.sampled_from((Conv(draw(whole(1, 4)), *window), MaxPool(*window)))
        found = [(*branch, draw(last)) for branch in found]
    return Branches(tuple(found))


@st.composite
def residuals(draw, shape, depth):
    inner = draw(branches_of(shape, depth - 1))
    last = draw(convs(after(inner, shape), True, width=shape[0]))
    scale = draw(st.sampled_from((1.0, 0.25, -0.5)))
    return Residual((*inner, last), scale, draw(st.booleans()))


@st.composite
def rows(draw, shape, keep=False, depth=DEPTH, kinds=None):
    """A row for an input (C, H, W); `keep`: it leaves the image's size as it is."""
    kinds = kinds or (SMALL + (Inception, Branches, Residual) * (depth > 0))
    kind = draw(st.sampled_from(kinds))
    if kind is Conv:
        return draw(convs(shape, keep))
    if kind is MaxPool:
        return draw(max_pools(shape, keep))
    if kind is AvgPool:
        return draw(avg_pools(shape, keep))
    if kind is LocalNorm:
        size = draw(st.sampled_from((1, 3, 5)))
        return LocalNorm(size, *(draw(real(0.25, 2)) for _ in range(3)))
    if kind is Affine:
        sides = (real(0.25, 2) | real(-2, -0.25), real(-2, 2))
        return Affine(*(tuple(draw(side) for _ in range(shape[0])) for side in sides))
    if kind is Inception:
        return draw(inceptions(shape))
    return draw(forks(shape, keep, depth) if kind is Branches else residuals(shape, depth))


@st.composite
def auxiliaries(draw, stage4, shape):
    """An auxiliary head behind one of the rows of stage4."""
    place = draw(whole(0, len(stage4) - 1))
    shape = after(stage4[: place + 1], shape)
    sizes = st.tuples(whole(1, 4), whole(1, 4))
    pool = draw(st.one_of(avg_pools(shape), st.builds(AdaptiveAvgPool, sizes)))
    shape = after((pool,), shape)
    conv = draw(convs(shape))
    channels, height, width = shape = after((conv,), shape)
    if draw(st.booleans()):
        hidden = Linear(draw(whole(1, 4)), draw(st.booleans()))
        features = channels * height * width
    else:
        hidden = draw(convs(shape))
        features = hidden.width
    rates = draw(real(0, 0.875)), draw(real(0.125, 2))
    return Auxiliary(place, pool, conv, features, hidden, *rates)


@st.composite
def specs(draw):
    """A network: five stages of one or two rows, up to two auxiliary heads, a norm or none."""
    shape = draw(st.tuples(whole(1, 3), whole(6, 15), whole(6, 15)))
    entering, stages = shape, []
    for _ in range(5):
        stage = ()
        for _ in range(draw(whole(1, 2))):
            stage += (draw(rows(after(stage, entering))),)
        stages.append(stage)
        if len(stages) == 4:
            sides = draw(st.lists(auxiliaries(stage, entering), max_size=2))
        entering = after(stage, entering)
    stages[4] += (GlobalAvgPool(),)
    norm = draw(st.none() | st.builds(Norm, real(2**-10, 1), real(0, 0.984375)))
    return Spec(
        "random",
        shape,
        *stages,
        head=Linear(draw(whole(2, 5))),
        norm=norm,
        dropout=draw(real(0, 0.875)),
        auxiliary=tuple(sorted(sides, key=lambda side: side.after)),
    )

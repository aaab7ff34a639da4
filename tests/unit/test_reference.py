"""The reference, by hand, by central differences and by loops too plain to be wrong.

Nothing stands above it: whatever is wrong here is wrong in all four frameworks' verdicts.

Long because each function of the reference has its cases by hand and its differences.
"""

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backends.numpy import GoogLeNet, Trainer, cross_entropy, load, probes, resize, save
from backends.numpy.googlenet import (
    affine,
    avg_pool,
    batch_norm,
    convolution,
    dropout,
    global_avg_pool,
    linear,
    local_norm,
    max_pool,
    relu,
)
from common.errors import WeightsError
from common.parity.fixtures import draw_fixture
from common.recipe import Recipe
from common.spec import (
    MINI,
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
    inception,
)
from common.spec.arithmetic import stage_shapes
from common.weights import is_running, shapes

STEP = 1e-6  # of the central differences
close = pytest.approx


def image(*rows):
    """One image of one channel: (1, 1, H, W)."""
    return np.array(rows, float)[None, None]


# By hand: convolution


def test_a_convolution_does_not_flip_its_kernel():
    x, weight = image([1, 2, 3], [4, 5, 6], [7, 8, 9]), image([1, 2], [3, 4])
    y, backward = convolution(x, weight, np.array([10.0]), Conv(1, 2))
    # 1 + 4 + 12 + 20 = 37, 2 + 6 + 15 + 24 = 47, 4 + 10 + 21 + 32 = 67, 5 + 12 + 24 + 36 = 77
    assert y.tolist() == image([47, 57], [77, 87]).tolist()
    dx, dweight, dbias = backward(image([1, 0], [0, 10]))
    assert dx.tolist() == image([1, 2, 0], [3, 14, 20], [0, 30, 40]).tolist()
    assert dweight.tolist() == image([51, 62], [84, 95]).tolist()  # 1 + 50, 2 + 60, 4 + 80, 5 + 90
    assert dbias.tolist() == [11]


def test_a_convolution_sums_over_the_channels_that_enter():
    x = np.array([[[[1.0]], [[2.0]]], [[[0.0]], [[-1.0]]]])  # two images of two channels
    weight = np.array([[[[3.0]], [[4.0]]], [[[5.0]], [[6.0]]], [[[7.0]], [[8.0]]]])
    y, backward = convolution(x, weight, np.array([100.0, 200, 300]), Conv(3))
    assert y[:, :, 0, 0].tolist() == [[111, 217, 323], [96, 194, 292]]
    dx, dweight, dbias = backward(np.array([[1.0, 0, 0], [0, 10, 100]])[:, :, None, None])
    assert dx[:, :, 0, 0].tolist() == [[3, 4], [750, 860]]
    assert dweight[:, :, 0, 0].tolist() == [[1, 2], [0, -10], [0, -100]]
    assert dbias.tolist() == [1, 10, 100]


def test_a_convolution_pads_with_zeros_on_every_side():
    y, _ = convolution(
        image([2]), image([1, 2, 3], [4, 5, 6], [7, 8, 9]), np.zeros(1), Conv(1, 3, padding=2)
    )
    assert y.tolist() == image([18, 16, 14], [12, 10, 8], [6, 4, 2]).tolist()


def test_a_convolution_leaves_out_what_its_stride_steps_over():
    y, _ = convolution(
        image([1, 2, 3, 4, 5], [6, 7, 8, 9, 9], [1, 1, 1, 1, 1], [9, 9, 9, 9, 9]),
        image([1]),
        np.zeros(1),
        Conv(1, 1, stride=2),
    )
    assert y.tolist() == image([1, 3, 5], [1, 1, 1]).tolist()


@pytest.mark.parametrize("turned", [False, True])
def test_the_first_number_of_a_pair_is_the_height(turned):
    x, weight = image([1, 2, 3, 4], [5, 6, 7, 8]), image([1, 10, 100])
    want = image([210, 432], [650, 876])  # 0 1 2 and 2 3 4; 0 5 6 and 6 7 8
    row = Conv(1, kernel=(1, 3), stride=(1, 2), padding=(0, 1))
    if turned:
        x, weight, want = (np.swapaxes(array, 2, 3) for array in (x, weight, want))
        row = Conv(1, kernel=(3, 1), stride=(2, 1), padding=(1, 0))
    assert convolution(x, weight, np.zeros(1), row)[0].tolist() == want.tolist()


# By hand: ReLU and pools


def test_a_relu_has_slope_zero_at_zero():
    y, backward = relu(np.array([-1.0, 0, 2]))
    assert y.tolist() == [0, 0, 2]
    assert backward(np.array([5.0, 5, 5])).tolist() == [0, 0, 5]


def test_a_pool_takes_the_largest_value_of_every_window():
    x = image([1, 2, 3, 4, 9], [8, 7, 6, 5, 9], [0, 0, 3, 1, 9])
    y, backward = max_pool(x, MaxPool(2, stride=2))  # the last row and column fill no window
    assert y.tolist() == image([8, 6]).tolist()
    assert backward(image([1, 10])).tolist() == image([0] * 5, [1, 0, 10, 0, 0], [0] * 5).tolist()


def test_the_padding_of_a_pool_counts_as_minus_infinity():
    x = image([-1, -2], [-3, -4])
    y, _ = max_pool(x, MaxPool(3, stride=1, padding=1))  # all four pixels in every window
    assert y.tolist() == image([-1, -1], [-1, -1]).tolist()
    y, backward = max_pool(x, MaxPool(2, stride=2, padding=1))  # one pixel in every window
    assert y.tolist() == x.tolist()
    assert backward(image([1, 2], [3, 4])).tolist() == image([1, 2], [3, 4]).tolist()


def test_pairs_of_a_pool_have_the_height_first():
    x = image([-1, -2, -3], [-4, -5, -6])
    y, _ = max_pool(x, MaxPool(kernel=(1, 2), stride=(1, 2), padding=(0, 1)))
    assert y.tolist() == image([-1, -2], [-4, -5]).tolist()
    y, _ = max_pool(x, MaxPool(kernel=(2, 1), stride=(2, 1), padding=(1, 0)))
    assert y.tolist() == image([-1, -2, -3], [-4, -5, -6]).tolist()


@pytest.mark.parametrize(
    ("x", "want"),
    [
        (image([5, 5], [5, 5]), image([1, 0], [0, 0])),
        (image([1, 7], [7, 2]), image([0, 1], [0, 0])),
        (image([0, 0], [3, 3]), image([0, 0], [1, 0])),
    ],
)
def test_the_first_of_equal_values_takes_the_whole_gradient(x, want):
    assert max_pool(x, MaxPool(2, stride=1))[1](image([1])).tolist() == want.tolist()


def test_the_gradients_of_overlapping_windows_add():
    _, backward = max_pool(image([1, 3, 2]), MaxPool((1, 2), stride=1))
    assert backward(image([10, 100])).tolist() == image([0, 110, 0]).tolist()


def test_a_pool_that_rounds_up_cuts_its_last_windows():
    x = image([1, 2, 3, 4, 9], [8, 7, 6, 5, 0], [0, 0, -3, 1, -7])
    y, backward = max_pool(x, MaxPool(2, stride=2, ceil=True))
    assert y.tolist() == image([8, 6, 9], [0, 1, -7]).tolist()
    dx = backward(image([1, 10, 100], [2, 3, 4]))
    assert dx.tolist() == image([0, 0, 0, 0, 100], [1, 0, 10, 0, 0], [2, 0, 0, 3, 4]).tolist()
    whole, _ = max_pool(x[..., :4], MaxPool(2, stride=2, ceil=True))  # nothing to round in width
    assert whole.tolist() == image([8, 6], [0, 1]).tolist()


def test_an_average_pool_leaves_out_what_fills_no_window():
    x = image([1, 2, 3, 4, 9], [8, 7, 6, 5, 9], [0, 0, 3, 1, 9])
    y, backward = avg_pool(x, AvgPool(2, stride=2))
    assert y.tolist() == image([4.5, 4.5]).tolist()
    want = image([1, 1, 2, 2, 0], [1, 1, 2, 2, 0], [0] * 5)
    assert backward(image([4, 8])).tolist() == want.tolist()


def test_the_padding_counts_in_an_average_or_does_not():
    x = image([4, 8], [12, 0])
    y, backward = avg_pool(x, AvgPool(3, stride=1, padding=1))
    assert y.tolist() == image([24 / 9, 24 / 9], [24 / 9, 24 / 9]).tolist()
    assert backward(image([9, 0], [0, 18])).tolist() == image([3, 3], [3, 3]).tolist()
    y, backward = avg_pool(x, AvgPool(3, stride=1, padding=1, counted=False))
    assert y.tolist() == image([6, 6], [6, 6]).tolist()
    y, backward = avg_pool(image([3, 6, 9]), AvgPool((1, 3), 1, (0, 1), counted=False))
    assert y.tolist() == image([4.5, 6, 7.5]).tolist()
    assert backward(image([2, 30, 400])).tolist() == image([11, 211, 210]).tolist()


def test_a_local_norm_divides_by_the_squares_of_the_channels_around():
    x = np.array([1.0, 2, 3, 4]).reshape(1, 4, 1, 1)
    y, _ = local_norm(x, LocalNorm(size=3, alpha=3, beta=1, k=2))  # alpha / size is 1
    assert y.ravel().tolist() == [1 / (2 + 5), 2 / (2 + 14), 3 / (2 + 29), 4 / (2 + 25)]
    y, _ = local_norm(x, LocalNorm(size=1, alpha=1, beta=0.5))
    assert y.ravel() == close(x.ravel() / np.sqrt(1 + x.ravel() ** 2))


def test_adaptive_windows_overlap_where_they_do_not_divide_the_image():
    x = image([6, 0, 3, 9, 12])  # windows of columns 0..1, 1..3, 3..4
    y, backward = avg_pool(x, AdaptiveAvgPool((1, 3)))
    assert y.tolist() == image([3, 4, 10.5]).tolist()
    assert backward(image([2, 30, 400])).tolist() == image([1, 11, 10, 210, 200]).tolist()
    y, _ = avg_pool(image([1], [2]), AdaptiveAvgPool((4, 1)))  # more windows than pixels
    assert y.tolist() == image([1], [1], [2], [2]).tolist()


def test_an_affine_row_has_its_own_constants_for_each_channel():
    x = np.array([1.0, 10, 100]).reshape(1, 3, 1, 1)
    y, backward = affine(x, Affine((2, 3, 4), (0.5, 0, -1)))
    assert y.ravel().tolist() == [2.5, 30, 399]
    assert backward(x).ravel().tolist() == [2, 30, 400]


def test_a_global_average_is_a_mean_over_both_directions():
    x = np.array([[[[1.0, 2, 3], [3, 6, 3]], [[0, 0, 0], [6, 6, 6]]]])
    y, backward = global_avg_pool(x)
    assert y.tolist() == [[3, 3]]
    dx = backward(np.array([[12.0, 6]]))
    assert dx.tolist() == [[[[2, 2, 2], [2, 2, 2]], [[1, 1, 1], [1, 1, 1]]]]


# By hand: batch norm. 1, 3, 5, 7 have mean 4 and variance (9 + 1 + 1 + 9) / 4 = 5; with an eps of
# 4 inside the root the divisor is 3. A second channel holds the same, 10 higher and twice as wide.

BATCH = np.array([[[[1.0, 3]], [[12, 16]]], [[[5, 7]], [[20, 24]]]])  # (2, 2, 1, 2)
NORM = Norm(eps=4, momentum=0.75)


def test_batch_norm_in_training_uses_the_biased_variance_with_eps_inside_the_root():
    mean, var = np.array([8.0, 10]), np.array([1.0, 4])
    weight, bias = np.array([6.0, math.sqrt(24)]), np.array([10.0, 0])
    y, _ = batch_norm(BATCH, weight, bias, mean, var, NORM, training=True)
    assert y[:, 0].ravel() == close(np.array([4.0, 8, 12, 16]))
    assert y[:, 1].ravel() == close(np.array([-6.0, -2, 2, 6]))  # variance 20, divisor sqrt(24)
    assert mean.tolist() == [7, 12]  # 0.75 * 8 + 0.25 * 4, 0.75 * 10 + 0.25 * 18
    assert var == close(np.array([2.0, 8]))  # 0.75 * 1 + 0.25 * 5, 0.75 * 4 + 0.25 * 20


def test_the_way_back_through_batch_norm_in_training():
    weight, zero, one = np.array([6.0, 1]), np.zeros(2), np.ones(2)
    _, backward = batch_norm(BATCH, weight, zero.copy(), zero, one, NORM, training=True)
    dy = np.zeros(BATCH.shape)
    dy[0, 0, 0, 0] = 1
    dx, dweight, dbias = backward(dy)
    # normed -1, -1/3, 1/3, 1; dx = 6/3 (dy - 1/4 - normed * -1/4)
    assert dx[:, 0].ravel() == close(np.array([1, -2 / 3, -1 / 3, 0]))
    assert dx[:, 1].tolist() == np.zeros((2, 1, 2)).tolist()
    assert dweight == close(np.array([-1.0, 0]))
    assert dbias.tolist() == [1, 0]


def test_batch_norm_in_evaluation_uses_the_running_statistics_and_leaves_them():
    mean, var = np.array([2.0, 0]), np.array([12.0, 5])
    weight, bias = np.array([8.0, 3]), np.array([1.0, -1])
    y, backward = batch_norm(BATCH, weight, bias, mean, var, NORM, training=False)
    assert y[:, 0].ravel().tolist() == [-1, 3, 7, 11]  # (x - 2) / 4 * 8 + 1
    assert y[:, 1].ravel().tolist() == [11, 15, 19, 23]  # x / 3 * 3 - 1
    assert (mean.tolist(), var.tolist()) == ([2, 0], [12, 5])
    dx, dweight, dbias = backward(np.ones(BATCH.shape))
    assert dx[:, 0].ravel().tolist() == [2] * 4
    assert dx[:, 1].ravel().tolist() == [1] * 4
    assert dweight.tolist() == [2, 24]  # (-1 + 1 + 3 + 5) / 4, (12 + 16 + 20 + 24) / 3
    assert dbias.tolist() == [4, 4]


# By hand: linear and the loss


def test_a_linear_layers_weight_is_out_by_in():
    weight = np.array([[3.0, 4], [5, 6]])
    y, backward = linear(np.array([[1.0, 2], [0, 1]]), weight, np.array([100.0, 200]))
    assert y.tolist() == [[111, 217], [104, 206]]
    dx, dweight, dbias = backward(np.array([[1.0, 0], [0, 10]]))
    assert dx.tolist() == [[3, 4], [50, 60]]
    assert dweight.tolist() == [[1, 2], [0, 10]]
    assert dbias.tolist() == [1, 10]


def test_dropout_divides_what_it_keeps_by_the_share_of_it():
    y, backward = dropout(np.array([[1.0, 2, 3]]), np.array([[1, 0, 1]]), 0.75)
    assert y.tolist() == [[4, 0, 12]]
    assert backward(np.array([[1.0, 1, 10]])).tolist() == [[4, 0, 40]]


def test_the_loss_is_the_mean_over_the_batch():
    logits = np.array([[0, math.log(3)], [5, 5 + math.log(3)]])  # softmax 1/4, 3/4
    loss, gradient = cross_entropy(logits, np.array([0, 1]))
    assert loss == close((math.log(4) + math.log(4 / 3)) / 2)
    assert gradient == close(np.array([[-3 / 8, 3 / 8], [1 / 8, -1 / 8]]))


def test_the_softmax_of_large_logits_does_not_overflow():
    loss, gradient = cross_entropy(np.array([[1e5, 0]]), np.array([1]))
    assert (loss, gradient.tolist()) == (1e5, [[1, -1]])
    loss, gradient = cross_entropy(np.array([[-1e5, 0]]), np.array([1]))
    assert (loss, gradient.tolist()) == (0, [[0, 0]])


# Central differences, a leaf at a time


def apart(random, *shape):
    """Random values no two of which are equal, nor 0, nor within 1000 steps of that."""
    count = math.prod(shape)
    return ((random.permutation(count) - count / 2 + 0.25) * (4 / count)).reshape(shape)


def slopes(function, array, dy):
    """The central differences of sum(function() * dy) by every value of `array`."""
    found = np.zeros(array.shape)
    for at in np.ndindex(array.shape):
        kept = array[at]
        array[at] = kept + STEP
        above = function()
        array[at] = kept - STEP
        found[at] = ((above - function()) * dy).sum() / (2 * STEP)
        array[at] = kept
    return found


def normed(training):
    def leaf(x, weight, bias):
        mean, var = np.array([0.3, -0.2]), np.array([0.5, 2.0])
        return batch_norm(x, weight, bias, mean, var, Norm(0.1, 0.9), training)

    return leaf


LEAVES = {
    "convolution": (
        lambda x, weight, bias: convolution(x, weight, bias, Conv(3, (2, 3), (2, 1), (1, 2))),
        [(2, 2, 5, 4), (3, 2, 2, 3), (3,)],
    ),
    "convolution with pixels left over": (
        lambda x, weight, bias: convolution(x, weight, bias, Conv(2, 3, stride=3)),
        [(2, 1, 8, 7), (2, 1, 3, 3), (2,)],
    ),
    "batch_norm in training": (normed(True), [(3, 2, 2, 3), (2,), (2,)]),
    "batch_norm in evaluation": (normed(False), [(3, 2, 2, 3), (2,), (2,)]),
    "relu": (relu, [(2, 3, 2, 3)]),
    "max_pool": (lambda x: max_pool(x, MaxPool((3, 2), (2, 1), 1)), [(2, 2, 5, 4)]),
    "max_pool that rounds up": (
        lambda x: max_pool(x, MaxPool((3, 2), (2, 2), ceil=True)),
        [(2, 2, 6, 5)],
    ),
    "avg_pool": (lambda x: avg_pool(x, AvgPool((3, 2), (2, 1))), [(2, 2, 6, 4)]),
    "avg_pool that counts its padding": (
        lambda x: avg_pool(x, AvgPool((3, 2), (2, 1), (1, 0))),
        [(2, 2, 6, 4)],
    ),
    "avg_pool that leaves its padding out": (
        lambda x: avg_pool(x, AvgPool((3, 5), 1, (1, 2), counted=False)),
        [(2, 2, 4, 3)],
    ),
    "adaptive avg_pool": (lambda x: avg_pool(x, AdaptiveAvgPool((3, 2))), [(2, 2, 7, 5)]),
    "local_norm": (lambda x: local_norm(x, LocalNorm(3, 0.8, 0.75, 1.5)), [(2, 5, 2, 3)]),
    "affine": (lambda x: affine(x, Affine((0.5, 3), (1, 2))), [(2, 2, 2, 3)]),
    "global_avg_pool": (global_avg_pool, [(2, 3, 2, 3)]),
    "linear": (linear, [(3, 4), (2, 4), (2,)]),
    "dropout": (lambda x: dropout(x, np.arange(12).reshape(3, 4) % 2, 0.3), [(3, 4)]),
}


@pytest.mark.parametrize("name", LEAVES)
def test_the_way_back_agrees_with_central_differences(name):
    leaf, dimensions = LEAVES[name]
    random = np.random.RandomState(0)
    arrays = [apart(random, *shape) for shape in dimensions]
    y, backward = leaf(*arrays)
    dy = apart(random, *y.shape)
    gradients = backward(dy)
    gradients = gradients if isinstance(gradients, tuple) else (gradients,)
    for array, gradient in zip(arrays, gradients, strict=True):
        assert gradient.shape == array.shape
        want = slopes(lambda: leaf(*arrays)[0], array, dy)
        assert np.abs(gradient - want).max() < 1e-7 * np.abs(want).max()


def test_the_losss_gradient_agrees_with_central_differences():
    logits, labels = apart(np.random.RandomState(0), 3, 5), np.array([4, 0, 4])
    want = slopes(lambda: cross_entropy(logits, labels)[0], logits, 1.0)
    assert np.abs(cross_entropy(logits, labels)[1] - want).max() < 1e-7 * np.abs(want).max()


# Windows of any kind, against loops


def slow_convolution(x, weight, bias, row, dy):
    """The convolution and its gradients, a product at a time; padding is never looked at."""
    (top, left), (down, right) = row.padding, row.stride
    y, dx, dweight = np.zeros(dy.shape), np.zeros(x.shape), np.zeros(weight.shape)
    for n, o, h, w in np.ndindex(y.shape):
        y[n, o, h, w] = bias[o]
        for c, i, j in np.ndindex(weight.shape[1:]):
            p, q = h * down + i - top, w * right + j - left
            if 0 <= p < x.shape[2] and 0 <= q < x.shape[3]:
                y[n, o, h, w] += x[n, c, p, q] * weight[o, c, i, j]
                dx[n, c, p, q] += dy[n, o, h, w] * weight[o, c, i, j]
                dweight[o, c, i, j] += dy[n, o, h, w] * x[n, c, p, q]
    return y, dx, dweight


def slow_pool(x, row, dy):
    """The pool and its gradient, a pixel at a time; padding is never looked at."""
    (top, left), (down, right) = row.padding, row.stride
    y, dx = np.zeros(dy.shape), np.zeros(x.shape)
    for n, c, h, w in np.ndindex(y.shape):
        best = None
        for i, j in np.ndindex(row.kernel):
            p, q = h * down + i - top, w * right + j - left
            inside = 0 <= p < x.shape[2] and 0 <= q < x.shape[3]
            if inside and (best is None or x[n, c, p, q] > x[best]):
                best = n, c, p, q
        y[n, c, h, w] = x[best]
        dx[best] += dy[n, c, h, w]
    return y, dx


def whole(random, *shape):
    """Small whole numbers: sums of their products are exact, and many are equal."""
    return random.randint(-3, 4, shape).astype(float)


def counted(x, row):
    """The height and width of the output, by walking over the padded image."""
    sides = zip(x.shape[2:], row.kernel, row.stride, row.padding, strict=True)
    return [len(range(0, size + 2 * pad - window + 1, step)) for size, window, step, pad in sides]


pairs = st.tuples(st.integers(1, 3), st.integers(1, 3))
paddings = st.tuples(st.integers(0, 2), st.integers(0, 2))
images = st.tuples(*[st.integers(1, 2)] * 2, *[st.integers(3, 7)] * 2)
seeds = st.integers(0, 2**32 - 1)


@settings(max_examples=60, deadline=None)
@given(images, pairs, pairs, paddings, st.integers(1, 3), seeds)
def test_any_convolution_is_the_loops(shape, kernel, stride, padding, width, seed):
    random, row = np.random.RandomState(seed), Conv(width, kernel, stride, padding)
    x = whole(random, *shape)
    weight, bias = whole(random, width, shape[1], *kernel), whole(random, width)
    dy = whole(random, shape[0], width, *counted(x, row))
    y, backward = convolution(x, weight, bias, row)
    dx, dweight, dbias = backward(dy)
    want = slow_convolution(x, weight, bias, row, dy)
    assert [a.tolist() for a in (y, dx, dweight)] == [a.tolist() for a in want]
    assert dbias.tolist() == [dy[:, o].sum() for o in range(width)]


@settings(max_examples=60, deadline=None)
@given(images, pairs, pairs, paddings, seeds)
def test_any_pool_is_the_loops(shape, kernel, stride, padding, seed):
    padding = tuple(min(pad, window // 2) for pad, window in zip(padding, kernel, strict=True))
    random, row = np.random.RandomState(seed), MaxPool(kernel, stride, padding)
    x = whole(random, *shape)
    dy = whole(random, *shape[:2], *counted(x, row))
    y, backward = max_pool(x, row)
    want = slow_pool(x, row, dy)
    assert [y.tolist(), backward(dy).tolist()] == [a.tolist() for a in want]


# The network


def ones_by_ones(*numbers):
    """Convolutions of one channel by name, each a number that multiplies and one that is added."""
    return {
        f"{name}.conv.{leaf}": np.full((1, 1, 1, 1) if leaf == "weight" else 1, float(value))
        for name, *both in numbers
        for leaf, value in zip(("weight", "bias"), both, strict=True)
    }


def test_a_network_by_hand():
    bare = {"activation": False}
    fork = Inception(
        branch1x1=(Conv(1, **bare),),
        branch3x3=(Conv(1), Conv(1, **bare)),
        branch5x5=(Conv(1), Conv(1)),
        branch_pool=(MaxPool(3, stride=1, padding=1), Conv(1)),
    )
    spec = Spec(
        "by hand",
        (1, 1, 2),
        stage1=(Conv(1), Conv(1, **bare)),
        stage2=(fork,),
        stage3=(MaxPool((1, 2), stride=1),),
        stage4=(MaxPool(1, stride=1),),
        stage5=(MaxPool(1, stride=1), GlobalAvgPool()),
        head=Linear(2),
    )
    weights = ones_by_ones(
        ("stage1.0", 2, -3),  # 1, 4: -1, 5, and after the ReLU 0, 5
        ("stage1.1", -1, 2),  # 2, -3
        ("stage2.0.branch1x1.0", 1, 0),  # 2, -3
        ("stage2.0.branch3x3.0", 1, 1),  # 3, 0
        ("stage2.0.branch3x3.1", -10, 1),  # -29, 1
        ("stage2.0.branch5x5.0", -1, 0),  # 0, 3
        ("stage2.0.branch5x5.1", 1, 4),  # 4, 7
        ("stage2.0.branch_pool.1", 3, 0),  # of 2, 2: 6, 6
    )
    weights["head.weight"] = np.array([[1.0, 10, 100, 1000], [1, 1, 1, 1]])
    weights["head.bias"] = np.array([0.5, -0.5])
    found = GoogLeNet(spec, weights).forward(image([1, 4]))
    assert list(found) == ["stage1", "stage2", "stage3", "stage4", "stage5", "head"]
    assert found["stage1"].tolist() == image([2, -3]).tolist()
    assert found["stage2"].tolist() == [[[[2, -3]], [[-29, 1]], [[4, 7]], [[6, 6]]]]
    assert found["stage3"].tolist() == [[[[2]], [[1]], [[7]], [[6]]]]
    assert found["stage5"].tolist() == [[2, 1, 7, 6]]
    assert found["head"].tolist() == [[6712.5, 15.5]]  # 2 + 10 + 700 + 6000, 2 + 1 + 7 + 6


def test_the_norm_comes_between_the_convolution_and_its_relu():
    idle = (MaxPool(1, stride=1),)
    stages = [(Conv(1),), idle, idle, idle, (*idle, GlobalAvgPool())]
    spec = Spec("normed", (1, 1, 1), *stages, head=Linear(1), norm=Norm(eps=1, momentum=0.5))
    names = {"weight": 4.0, "bias": -1.0, "running_mean": -3.0, "running_var": 3.0}
    weights = ones_by_ones(("stage1.0", 1, 0)) | {"head.weight": np.ones((1, 1))}
    weights |= {f"stage1.0.norm.{leaf}": np.array([value]) for leaf, value in names.items()}
    net = GoogLeNet(spec, weights | {"head.bias": np.zeros(1)})
    assert net.forward(image([-2]))["stage1"].item() == 1  # (-2 + 3) / 2 * 4 - 1
    assert net.forward(image([-4]))["stage1"].item() == 0  # (-4 + 3) / 2 * 4 - 1 is below 0


def random_spec(random, norm):
    """Five stages with an Inception block in three, of odd and unequal sides."""

    def one(least, most):
        return int(random.randint(least, most + 1))

    def block():
        widths = (one(2, 3), one(2, 3)), (one(2, 3), one(2, 3))
        return inception(one(2, 3), *widths, one(2, 3))

    stem = Conv(one(2, 3), (one(1, 4), one(1, 4)), (one(1, 2), one(1, 2)), (one(0, 2), one(0, 2)))
    return Spec(
        "random",
        (one(1, 3), *(2 * one(5, 7) + 1 for _ in "hw")),
        stage1=(stem, MaxPool((3, 2), (one(1, 2), 1), (1, one(0, 1)))),
        stage2=(block(), Conv(one(2, 4), one(1, 2), activation=False)),
        stage3=(Conv(one(2, 4), 3, padding=1), block()),
        stage4=(MaxPool(2, one(1, 2)), Conv(one(2, 4), (1, 2), 1, (0, 1))),
        stage5=(block(), GlobalAvgPool()),
        head=Linear(one(2, 4)),
        norm=norm,
    )


def family_spec(random, norm):
    """Five stages with the rows of the later networks, of odd and unequal sides."""
    fork = Branches(((Conv(2, (1, 3), padding=(0, 1)),), (Conv(3, (3, 1), padding=(1, 0)),)))
    average = AvgPool(3, 1, 1)
    return Spec(
        "family",
        (2, 9, 11),
        stage1=(Conv(3, 2), LocalNorm(3, 0.9, 0.75)),
        stage2=(
            Branches(((Conv(2), fork), (average, Conv(2)), (replace(average, counted=False),))),
        ),
        stage3=(
            Residual((Conv(10, 3, 1, 1, activation=False, norm=False),), scale=0.3),
            Conv(3, activation=False),
        ),
        stage4=(
            Residual((Residual((fork, Conv(3)), activation=False),), scale=-0.7),
            AvgPool((3, 2), (2, 1), (1, 0)),
        ),
        stage5=(Branches(((Conv(3, 3, 2),), (MaxPool(3, 2),))), GlobalAvgPool()),
        head=Linear(3),
        norm=norm,
        auxiliary=(Auxiliary(0, AvgPool(2, 2), Conv(4), 5, Conv(5, 2), dropout=0.25),),
    )


SIDES = (
    Auxiliary(0, AdaptiveAvgPool((2, 1)), Conv(3, activation=False), 6, Linear(9, activation=True)),
    Auxiliary(1, AvgPool((1, 2), 1), Conv(2, activation=False, bias=False), 20, Linear(3)),
)


def objective(net, x, labels):
    """The loss of the head, and of auxiliary heads at their share."""
    outputs = net.forward(x, training=True)
    shares = {f"auxiliary.{index}": row.share for index, row in enumerate(net.spec.auxiliary)}
    parts = [(1, "head"), *((share, name) for name, share in shares.items())]
    return sum(share * cross_entropy(outputs[name], labels)[0] for share, name in parts)


@pytest.mark.parametrize("sides", [(), SIDES], ids=["one head", "three heads"])
@pytest.mark.parametrize("norm", [None, Norm(1e-3, 0.9)], ids=["plain", "norm"])
@pytest.mark.parametrize("seed", [1, 3, 6])  # no dead layer, no ReLU or pool that a step turns
def test_every_gradient_of_a_network_agrees_with_central_differences(seed, norm, sides):
    random = np.random.RandomState(seed)
    spec = random_spec(random, norm)
    if sides:  # the second takes whatever size its pool leaves
        height, width = stage_shapes(spec)["stage4"][2:]
        last = replace(sides[1], features=2 * height * (width - 1))
        spec = replace(spec, auxiliary=(sides[0], last), dropout=0.25)
    fixture = draw_fixture(spec, seed)
    x, labels = fixture.inputs[:4].astype(np.float64), fixture.labels[:4]
    alive = {n: abs(w) if n.endswith("conv.bias") else w for n, w in fixture.weights.items()}
    net = GoogLeNet(spec, alive)
    if sides:  # with dropout
        widths = {"head": net.weights["head.weight"].shape[1], "auxiliary.0": 9, "auxiliary.1": 3}
        net.masks = {
            head: np.arange(len(x) * width).reshape(len(x), -1) % 4
            for head, width in widths.items()
        }
        net.masks = {head: (mask > 0).astype(float) for head, mask in net.masks.items()}
    want_shapes = {stage: (len(x), *shape[1:]) for stage, shape in stage_shapes(spec).items()}
    assert {stage: output.shape for stage, output in net.forward(x).items()} == want_shapes

    loss, gradients = net.gradients(x, labels)
    assert list(gradients) == [name for name in shapes(spec) if not is_running(name)]
    assert loss == close(objective(net, x, labels), rel=1e-14)
    check_slopes(net, gradients, lambda: objective(net, x, labels), random)


def check_slopes(net, gradients, loss, random):
    """Two values of every gradient against central differences."""
    for name, gradient in gradients.items():
        weight = net.weights[name]
        assert gradient.shape == weight.shape
        # A norm takes a bias in front of it out again: zero, on the scale of its layer's weight.
        before_norm = name.replace("conv.bias", "norm.bias") in gradients
        same_scale = name.replace("conv.bias", "conv.weight") if before_norm else name
        scale = np.abs(gradients[same_scale]).max()
        assert scale > 0, f"{name} gets no gradient: this network tests nothing there"
        for _ in range(2):
            at = tuple(random.randint(size) for size in weight.shape)
            part = weight[(*(slice(i, i + 1) for i in at),)]  # a view of one value
            found = slopes(loss, part, 1.0)
            assert abs(found.item() - gradient[at]) < 1e-6 * scale + 1e-9, (name, at)


@pytest.mark.parametrize("norm", [None, Norm(1e-3, 0.9)], ids=["plain", "norm"])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_every_gradient_through_the_later_rows_agrees_with_central_differences(seed, norm):
    random = np.random.RandomState(seed)
    spec = family_spec(random, norm)
    fixture = draw_fixture(spec, seed)
    x, labels = fixture.inputs[:4].astype(np.float64), fixture.labels[:4]
    alive = {n: abs(w) if n.endswith("conv.bias") else w for n, w in fixture.weights.items()}
    net = GoogLeNet(spec, alive)
    net.masks = {"auxiliary.0": (np.arange(len(x) * 5).reshape(len(x), 5) % 4 > 0).astype(float)}
    want_shapes = {stage: (len(x), *shape[1:]) for stage, shape in stage_shapes(spec).items()}
    assert {stage: output.shape for stage, output in net.forward(x).items()} == want_shapes
    loss, gradients = net.gradients(x, labels)
    assert list(gradients) == [name for name in shapes(spec) if not is_running(name)]
    assert loss == close(objective(net, x, labels), rel=1e-14)
    check_slopes(net, gradients, lambda: objective(net, x, labels), random)


def test_only_training_moves_the_running_statistics():
    spec = random_spec(np.random.RandomState(0), Norm(1e-3, 0.9))
    fixture = draw_fixture(spec)
    net, x = GoogLeNet(spec, fixture.weights), fixture.inputs.astype(np.float64)
    net.forward(x)
    assert all((net.weights[name] == w).all() for name, w in fixture.weights.items())
    net.forward(x, training=True)
    moved = {name for name, w in fixture.weights.items() if (net.weights[name] != w).any()}
    assert moved == {name for name in fixture.weights if is_running(name)}


def test_the_reference_answers_like_a_backend():
    spec = random_spec(np.random.RandomState(0), Norm(1e-3, 0.9))
    fixture = draw_fixture(spec)
    net, x = GoogLeNet(spec, fixture.weights), fixture.inputs.astype(np.float32)
    exact = x.astype(np.float64)
    for name, output in probes.forward(net, x, training=False).items():
        assert (output == net.forward(exact)[name]).all(), name
    (loss, found), (want, gradients) = (
        probes.gradients(net, x, fixture.labels),
        net.gradients(exact, fixture.labels),
    )
    assert loss == want
    assert all((found[name] == gradient).all() for name, gradient in gradients.items())
    trainer = Trainer(net, Recipe(lr=0.1, momentum=0.9))
    places = {"parameters": {"cpu"}, "gradients": set(), "state": {"cpu"}}
    assert probes.tensor_devices(trainer) == places
    trainer.train_step(x, fixture.labels)
    assert probes.tensor_devices(trainer) == {**places, "gradients": {"cpu"}}
    assert probes.tensor_devices(Trainer(net, Recipe(momentum=0.0)))["state"] == set()


def test_the_reference_saves_and_loads_its_weights(tmp_path):
    fixture = draw_fixture(MINI)
    net, other = GoogLeNet(MINI, fixture.weights), GoogLeNet(MINI, draw_fixture(MINI, 1).weights)
    save(net, tmp_path / "it.safetensors")
    load(other, tmp_path / "it.safetensors")
    for name, weight in net.weights.items():
        np.testing.assert_array_equal(other.weights[name], weight, err_msg=name)


def test_only_training_drops_and_only_before_the_head():
    spec = replace(random_spec(np.random.RandomState(0), None), dropout=0.75)
    fixture = draw_fixture(spec)
    net, x = GoogLeNet(spec, fixture.weights), fixture.inputs.astype(np.float64)
    whole = net.forward(x, training=True)
    net.masks = {"head": np.arange(whole["stage5"].size).reshape(len(x), -1) % 2}
    assert all((net.forward(x)[name] == output).all() for name, output in whole.items())
    dropped = net.forward(x, training=True)
    assert (dropped["stage5"] == whole["stage5"]).all()
    kept = whole["stage5"] * net.masks["head"] * 4
    want, _ = linear(kept, net.weights["head.weight"], net.weights["head.bias"])
    assert dropped["head"] == close(want)


def test_the_network_keeps_its_own_copy_and_refuses_other_weights():
    spec = random_spec(np.random.RandomState(0), None)
    fixture = draw_fixture(spec)
    before = {name: w.copy() for name, w in fixture.weights.items()}
    trainer = Trainer(GoogLeNet(spec, fixture.weights), Recipe(lr=0.1))
    trainer.train_step(fixture.inputs.astype(np.float64), fixture.labels)
    assert all((fixture.weights[name] == w).all() for name, w in before.items())
    with pytest.raises(WeightsError):
        GoogLeNet(spec, {"head.bias": before["head.bias"]})


# Training; test_optimizers.py has the formulas on given gradients


def test_a_step_changes_every_weight_by_its_gradient_and_returns_the_metrics_before_it():
    spec = random_spec(np.random.RandomState(1), Norm(1e-3, 0.75))
    fixture = draw_fixture(spec)
    x = fixture.inputs.astype(np.float64)
    before, net = GoogLeNet(spec, fixture.weights), GoogLeNet(spec, fixture.weights)
    loss, gradients = before.gradients(x, fixture.labels)
    correct = (before.outputs["head"].argmax(1) == fixture.labels).sum()
    assert 0 < correct < len(x), "it proves nothing"
    assert Trainer(net, Recipe(lr=0.5)).train_step(x, fixture.labels) == (loss, correct)
    for name, weight in before.weights.items():
        want = weight if is_running(name) else weight - 0.5 * gradients[name]
        assert (net.weights[name] == want).all(), name


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_weights_and_states_are_kept_in_the_model_s_dtype(optimizer):
    spec = random_spec(np.random.RandomState(1), Norm(1e-3, 0.75))
    fixture = draw_fixture(spec)
    recipe = Recipe(lr=0.1, optimizer=optimizer, momentum=0 if optimizer == "adam" else 0.9)
    found = {}
    for dtype in ("float32", "float64"):
        trainer = Trainer(GoogLeNet(spec, fixture.weights, dtype), recipe)
        trainer.train_step(fixture.inputs.astype(np.float64), fixture.labels)
        parts = [trainer.model.weights, *trainer.state.values()]
        found[dtype] = [array for part in parts for array in part.values()]
        assert {a.dtype for s in trainer.read_state().values() for a in s.values()} == {
            np.dtype(dtype)
        }
        assert all(array.dtype == np.float64 for array in found[dtype]), "the arithmetic is"
    for low, high in zip(found["float32"], found["float64"], strict=True):
        assert (low == high.astype(np.float32)).all()
    assert any((low != high).any() for low, high in zip(*found.values(), strict=True))


def test_an_evaluation_sums_over_batches_without_smoothing():
    spec = random_spec(np.random.RandomState(1), Norm(1e-3, 0.75))
    net = GoogLeNet(spec, draw_fixture(spec).weights)
    trainer = Trainer(net, Recipe(label_smoothing=0.5))
    images = np.random.RandomState(0).randint(0, 256, (5, spec.input[0], 9, 9)).astype(np.uint8)
    labels = np.array([0, 1, 0, 1, 1])
    batches = [(images[:3], labels[:3]), (images[3:], labels[3:])]
    logits = net.forward(trainer.prepare(images))["head"]
    loss, correct, count = trainer.evaluate(batches)
    assert loss == close(5 * cross_entropy(logits, labels)[0], rel=1e-12)
    assert (correct, count) == ((logits.argmax(1) == labels).sum(), 5)
    probabilities = trainer.predict(images)
    assert probabilities.sum(1) == close(np.ones(5), rel=1e-12)
    assert -np.log(probabilities[np.arange(5), labels]).sum() == close(loss, rel=1e-12)


# Resize: where the centre of every new pixel lies, in old pixels, is written beside the result


def bytes_of(*rows):
    return np.array(rows, np.uint8)[None, None]


def test_a_resize_to_the_same_size_only_scales():
    images = np.random.RandomState(0).randint(0, 256, (3, 2, 5, 4)).astype(np.uint8)
    assert (resize(images, 5, 4) == images / 255).all()


def test_twice_the_size_by_hand():
    found = resize(bytes_of([0, 255]), 1, 4)
    assert found.tolist() == image([0, 0.25, 0.75, 1]).tolist()  # -0.25, 0.25, 0.75, 1.25
    found = resize(bytes_of([0, 0], [255, 255]), 4, 2)
    assert found.tolist() == image([0, 0], [0.25, 0.25], [0.75, 0.75], [1, 1]).tolist()
    found = resize(bytes_of([0, 255], [255, 0]), 4, 4)
    assert found[0, 0].tolist() == [
        [0, 0.25, 0.75, 1],
        [0.25, 0.375, 0.625, 0.75],
        [0.75, 0.625, 0.375, 0.25],
        [1, 0.75, 0.25, 0],
    ]


def test_other_ratios_by_hand():
    assert resize(bytes_of([0, 51, 102, 255]), 1, 2) == close(image([0.1, 0.7]))  # 0.5, 2.5
    assert resize(bytes_of([0, 51, 102]), 1, 1) == close(image([0.2]))  # 1
    assert resize(bytes_of([0, 255]), 1, 3) == close(image([0, 0.5, 1]))  # -0.17, 0.5, 1.17


@pytest.mark.parametrize("size", [(1, 1), (27, 96), (28, 28), (96, 33)])
@pytest.mark.parametrize("value", [0, 77, 255])
def test_a_constant_image_stays_constant(size, value):
    found = resize(np.full((1, 1, 28, 28), value, np.uint8), *size)
    assert found.shape == (1, 1, *size)
    assert found == close(np.full(found.shape, value / 255), rel=1e-15)


def test_an_enlarged_image_keeps_its_corners():
    images = np.random.RandomState(0).randint(0, 256, (2, 1, 28, 28)).astype(np.uint8)
    found = resize(images, 96, 97)
    assert found[:, :, ::95, ::96] == close(images[:, :, ::27, ::27] / 255, rel=1e-15)


def test_one_pixel_fills_any_size():
    found = resize(np.array([51, 255], np.uint8).reshape(2, 1, 1, 1), 3, 5)
    assert found[0] == close(np.full((1, 3, 5), 0.2))
    assert found[1].tolist() == np.ones((1, 3, 5)).tolist()


def test_prepare_gives_the_specs_input():
    spec = replace(random_spec(np.random.RandomState(0), None), input=(1, 31, 45))
    images = np.random.RandomState(0).randint(0, 256, (3, 1, 28, 28)).astype(np.uint8)
    images[0] = [[0] * 14 + [255] * 14]
    net = GoogLeNet(spec, draw_fixture(spec).weights)
    found = Trainer(net, Recipe()).prepare(images)
    assert (found.shape, found.dtype) == ((3, 1, 31, 45), np.float64)
    assert (found.min(), found.max()) == (0, 1)
    assert found[0, 0, :, 0].tolist() == [0] * 31, "the left edge of the image is black"

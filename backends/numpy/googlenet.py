"""The reference network in NumPy float64, forward and backward, short enough to check by reading.

Every function returns its output and a backward function, which turns the gradient of the output
into the gradients of the inputs. Tests compare each with central differences and with cases
computed by hand. Images are NCHW, convolution weights OIHW. If several values in a pooling window
are the largest, the first one gets the whole gradient.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from common.spec import (
    AdaptiveAvgPool,
    Affine,
    Auxiliary,
    AvgPool,
    Block,
    Branches,
    Conv,
    GlobalAvgPool,
    Inception,
    LocalNorm,
    MaxPool,
    Norm,
    Residual,
    Row,
    Spec,
    inner_rows,
    pair,
)
from common.weights import Weights, check, is_running

Array = np.ndarray
Backward = Callable[[Array], Any]


def borders(row: Conv | MaxPool) -> tuple[tuple[int, int], tuple[int, int]]:
    """The padding (above, below), (left, right).

    With `ceil`, stride - 1 more rows below and columns right round the number of windows up.
    """
    (top, left), (down, right) = pair(row.padding), pair(row.stride)
    up = isinstance(row, MaxPool) and row.ceil
    return (top, top + (down - 1) * up), (left, left + (right - 1) * up)


def windows(x: Array, row: Conv | MaxPool, fill: float) -> Array:
    """The windows of the padded image: (N, C, out height, out width, kernel height, width)."""
    down, right = pair(row.stride)
    x = np.pad(x, ((0, 0), (0, 0), *borders(row)), constant_values=fill)
    view: Array = sliding_window_view(x, (1, 1, *pair(row.kernel)))[:, :, ::down, ::right, 0, 0]
    return view


def add_windows(dw: Array, row: Conv | MaxPool, shape: tuple[int, ...]) -> Array:
    """The transpose of `windows`: add the gradient of every window to its pixels."""
    ((top, bottom), (left, end)), (down, right) = borders(row), pair(row.stride)
    (height, width), (rows, columns) = shape[2:], dw.shape[2:4]
    dx = np.zeros((*shape[:2], top + height + bottom, left + width + end))
    for i in range(dw.shape[4]):
        for j in range(dw.shape[5]):
            dx[:, :, i : i + down * rows : down, j : j + right * columns : right] += dw[..., i, j]
    return dx[:, :, top : top + height, left : left + width]


def convolution(x: Array, weight: Array, bias: Array, row: Conv) -> tuple[Array, Backward]:
    """y[n, o, h, w] = sum over c, i, j of window[n, c, h, w, i, j] weight[o, c, i, j] + bias[o]."""
    w = windows(x, row, 0)
    columns = w.transpose(0, 2, 3, 1, 4, 5).reshape(-1, weight[0].size)
    matrix = weight.reshape(len(weight), -1)
    n, _, height, width = w.shape[:4]
    y = (columns @ matrix.T + bias).reshape(n, height, width, -1).transpose(0, 3, 1, 2)

    def backward(dy: Array) -> tuple[Array, Array, Array]:
        dy = dy.transpose(0, 2, 3, 1).reshape(-1, len(weight))
        dw = (dy @ matrix).reshape(n, height, width, *weight.shape[1:]).transpose(0, 3, 1, 2, 4, 5)
        return add_windows(dw, row, x.shape), (dy.T @ columns).reshape(weight.shape), dy.sum(0)

    return y, backward


def batch_norm(
    x: Array, weight: Array, bias: Array, mean: Array, var: Array, norm: Norm, training: bool
) -> tuple[Array, Backward]:
    """(x - mean) / sqrt(var + eps) * weight + bias, for each channel.

    In training, mean and biased variance come from the batch, and the running statistics become
    momentum * old + (1 - momentum) * new, in place. Source: Ioffe and Szegedy (2015).
    """
    axes, shape = (0, 2, 3), (1, -1, 1, 1)
    if training:
        batch_mean, batch_var = x.mean(axes), x.var(axes)
        mean[:] = norm.momentum * mean + (1 - norm.momentum) * batch_mean
        var[:] = norm.momentum * var + (1 - norm.momentum) * batch_var
        mean, var = batch_mean, batch_var
    scale = 1 / np.sqrt(var + norm.eps)
    normed = (x - mean.reshape(shape)) * scale.reshape(shape)

    def backward(dy: Array) -> tuple[Array, Array, Array]:
        dweight, dbias = (dy * normed).sum(axes), dy.sum(axes)
        dx = dy
        if training:  # the batch's mean and variance depend on x too
            count = dy.size / dy.shape[1]
            dx = dy - (dbias.reshape(shape) + normed * dweight.reshape(shape)) / count
        return dx * (weight * scale).reshape(shape), dweight, dbias

    return normed * weight.reshape(shape) + bias.reshape(shape), backward


def relu(x: Array) -> tuple[Array, Backward]:
    """max(x, 0), with slope 0 at 0."""
    return np.maximum(x, 0), lambda dy: dy * (x > 0)


def max_pool(x: Array, row: MaxPool) -> tuple[Array, Backward]:
    """The largest value of every window; the padding counts as minus infinity."""
    w = windows(x, row, -np.inf)
    flat = w.reshape(*w.shape[:4], -1)
    first = flat.argmax(-1)[..., None]

    def backward(dy: Array) -> Array:
        dw = np.zeros(flat.shape)
        np.put_along_axis(dw, first, dy[..., None], -1)
        return add_windows(dw.reshape(w.shape), row, x.shape)

    return np.take_along_axis(flat, first, -1)[..., 0], backward


def avg_pool(x: Array, row: AvgPool | AdaptiveAvgPool) -> tuple[Array, Backward]:
    """The mean of every window; `row.area` says whether the padding counts in it."""
    rows, columns = row.windows(*x.shape[2:])
    y = np.empty((*x.shape[:2], len(rows), len(columns)))
    for i, (top, bottom) in enumerate(rows):
        for j, (left, right) in enumerate(columns):
            area = row.area((bottom - top) * (right - left))
            y[..., i, j] = x[..., top:bottom, left:right].sum((2, 3)) / area

    def backward(dy: Array) -> Array:
        dx = np.zeros(x.shape)
        for i, (top, bottom) in enumerate(rows):
            for j, (left, right) in enumerate(columns):
                area = row.area((bottom - top) * (right - left))
                dx[..., top:bottom, left:right] += dy[..., i, j, None, None] / area
        return dx

    return y, backward


def local_norm(x: Array, row: LocalNorm) -> tuple[Array, Backward]:
    """x / base ** beta with base = k + alpha / size * the sum of x ** 2 over the channels around.

    Source: Krizhevsky et al. (2012), section 3.3, with alpha divided by `size` as in Caffe.
    """

    def around(values: Array) -> Array:
        side = row.size // 2
        padded = np.pad(values, ((0, 0), (side, side), (0, 0), (0, 0)))
        return sliding_window_view(padded, row.size, axis=1).sum(-1)

    base = row.k + row.alpha / row.size * around(x**2)
    slope = 2 * row.beta * row.alpha / row.size

    def backward(dy: Array) -> Array:
        return dy * base**-row.beta - slope * x * around(dy * x * base ** (-row.beta - 1))

    return x * base**-row.beta, backward


def affine(x: Array, row: Affine) -> tuple[Array, Backward]:
    """x * scale + shift, for each channel."""
    scale, shift = np.reshape(row.scale, (1, -1, 1, 1)), np.reshape(row.shift, (1, -1, 1, 1))
    return x * scale + shift, lambda dy: dy * scale


def flatten(x: Array) -> tuple[Array, Backward]:
    """(N, C, H, W) becomes (N, C H W)."""
    return x.reshape(len(x), -1), lambda dy: dy.reshape(x.shape)


def global_avg_pool(x: Array) -> tuple[Array, Backward]:
    """The mean over height and width: (N, C, H, W) becomes (N, C)."""
    area = x.shape[2] * x.shape[3]
    return x.mean((2, 3)), lambda dy: np.broadcast_to(dy[..., None, None] / area, x.shape)


def linear(x: Array, weight: Array, bias: Array) -> tuple[Array, Backward]:
    """Y = x weight^T + bias."""
    return x @ weight.T + bias, lambda dy: (dy @ weight, dy.T @ x, dy.sum(0))


def dropout(x: Array, mask: Array, rate: float) -> tuple[Array, Backward]:
    """Inverted dropout: x / (1 - rate) where the mask is 1, and 0 where it is 0.

    Source: d2l, section Dropout. The mask is drawn elsewhere, 0 with the probability `rate`.
    """
    scale = mask / (1 - rate)
    return x * scale, lambda dy: dy * scale


def cross_entropy(logits: Array, labels: Array, smoothing: float = 0.0) -> tuple[float, Array]:
    """The mean over the batch of -sum(target log softmax(logits)), and its gradient.

    The target is 1 - smoothing at the label, plus smoothing / classes at every class.
    """
    classes = logits.shape[1]
    shifted = logits - logits.max(1, keepdims=True)
    log_softmax = shifted - np.log(np.exp(shifted).sum(1, keepdims=True))
    target = np.eye(classes)[labels] * (1 - smoothing) + smoothing / classes
    loss = -(log_softmax * target).sum() / len(labels)
    return loss, (np.exp(log_softmax) - target) / len(labels)


def backward_through(chain: Sequence[Backward]) -> Backward:
    """The backward function of functions that were applied in sequence."""

    def backward(dy: Array) -> Array:
        for one in reversed(chain):
            dy = one(dy)
        return dy

    return backward


class GoogLeNet:
    """The network of `spec` with canonical weights, copied to float64.

    All arithmetic is float64. Weights and optimizer states are rounded to `dtype` after each step.
    The reference draws no dropout: training drops only what `masks` says.
    """

    def __init__(self, spec: Spec, weights: Weights, dtype: str = "float64") -> None:
        check(spec, weights)
        self.spec, self.dtype = spec, np.dtype(dtype)
        self.weights = {name: array.astype(np.float64) for name, array in weights.items()}
        #: the masks of the heads' dropout, by `head`, `auxiliary.0` and on: 1 keeps, 0 drops
        self.masks: Weights = {}

    def forward(self, x: Array, training: bool = False) -> Weights:
        """The output of every stage and head; x is (N, C, H, W).

        Training mode updates the running statistics.
        """
        self._gradients: Weights = {}
        self._backward: list[Backward] = []
        self._aux_gradients: Weights = {}  # of the auxiliary heads' logits, for the backward pass
        self.outputs: Weights = {}
        outputs = self.outputs
        heads = [(row, f"auxiliary.{index}") for index, row in enumerate(self.spec.auxiliary)]
        for stage, rows in self.spec.stages():
            for index, row in enumerate(rows):
                x, backward = self._row(x, row, f"{stage}.{index}", training)
                self._backward.append(backward)
                for head, name in heads:
                    if (stage, index) == ("stage4", head.after):
                        outputs[name], backward = self._auxiliary(x, head, name, training)
                        self._backward.append(backward)
            outputs[stage] = x
        x, backward = self._dropout(x, self.spec.dropout, "head", training)
        self._backward.append(backward)
        outputs["head"], backward = self._affine(linear, x, "head")
        self._backward.append(backward)
        return outputs

    def gradients(self, x: Array, labels: Array, smoothing: float = 0.0) -> tuple[float, Weights]:
        """The loss in training mode, with auxiliary losses, and its gradient by canonical name."""
        outputs = self.forward(x, training=True)
        loss, dy = cross_entropy(outputs["head"], labels, smoothing)
        gradients = {"head": dy}
        for index, row in enumerate(self.spec.auxiliary):
            name = f"auxiliary.{index}"
            its_loss, its_dy = cross_entropy(outputs[name], labels, smoothing)
            loss, gradients[name] = loss + row.share * its_loss, row.share * its_dy
        return loss, self.backward(gradients)

    def backward(self, gradients: Weights) -> Weights:
        """The gradients of the weights by name, from those of the last forward pass's logits.

        `gradients` has an array (N, classes) for `head` and for each auxiliary head.
        """
        self._aux_gradients = gradients
        backward_through(self._backward)(gradients["head"])
        return {n: self._gradients[n] for n in self.weights if not is_running(n)}

    def _affine(self, layer: Callable[..., Any], x: Array, name: str, *extra: Any) -> Any:
        """Run a layer with weight and bias; its backward pass stores their gradients by name."""
        weight = self.weights[f"{name}.weight"]
        # a convolution may have no bias
        bias = self.weights.get(f"{name}.bias", np.zeros(len(weight)))
        y, back = layer(x, weight, bias, *extra)

        def backward(dy: Array) -> Any:
            dx, *both = back(dy)
            self._gradients[f"{name}.weight"], self._gradients[f"{name}.bias"] = both
            return dx

        return y, backward

    def _dropout(self, x: Array, rate: float, name: str, training: bool) -> Any:
        """Dropout before the head of that name, in training and with a mask; else x itself."""
        if training and name in self.masks:
            return dropout(x, self.masks[name], rate)
        return x, lambda dy: dy

    def _rows(self, x: Array, rows: Sequence[Row], name: str, training: bool) -> Any:
        chain = []
        for index, row in enumerate(rows):
            x, backward = self._row(x, row, f"{name}.{index}", training)
            chain.append(backward)
        return x, backward_through(chain)

    def _row(self, x: Array, row: Row, name: str, training: bool) -> Any:
        match row:
            case Conv():
                return self._conv(x, row, name, training)
            case MaxPool():
                return max_pool(x, row)
            case Inception() | Branches():
                return self._branches(x, row, name, training)
            case Residual():
                return self._residual(x, row, name, training)
            case LocalNorm():
                return local_norm(x, row)
            case GlobalAvgPool():
                return global_avg_pool(x)
            case AvgPool() | AdaptiveAvgPool():
                return avg_pool(x, row)
            case Affine():
                return affine(x, row)
        raise TypeError(f"the reference has no {type(row).__name__}")

    def _conv(self, x: Array, row: Conv, name: str, training: bool) -> Any:
        chain = []
        x, backward = self._affine(convolution, x, f"{name}.conv", row)
        chain.append(backward)
        if self.spec.norm and row.norm:
            running = [self.weights[f"{name}.norm.running_{which}"] for which in ("mean", "var")]
            x, backward = self._affine(
                batch_norm, x, f"{name}.norm", *running, self.spec.norm, training
            )
            chain.append(backward)
        if row.activation:
            x, backward = relu(x)
            chain.append(backward)
        return x, backward_through(chain)

    def _branches(self, x: Array, row: Block, name: str, training: bool) -> Any:
        outputs, backwards = zip(
            *(
                self._rows(x, rows, f"{name}.{branch}", training)
                for branch, rows in inner_rows(row)
            ),
            strict=True,
        )
        edges = np.cumsum([y.shape[1] for y in outputs])[:-1]

        def backward(dy: Array) -> Any:
            parts = np.split(dy, edges, axis=1)
            return sum(back(part) for back, part in zip(backwards, parts, strict=True))

        return np.concatenate(outputs, axis=1), backward

    def _residual(self, x: Array, row: Residual, name: str, training: bool) -> Any:
        """x + scale * rows(x), then the ReLU if the row has one."""
        y, inner = self._rows(x, row.rows, f"{name}.rows", training)
        y = x + row.scale * y
        chain: list[Backward] = [lambda dy: dy + inner(row.scale * dy)]
        if row.activation:
            y, backward = relu(y)
            chain.append(backward)
        return y, backward_through(chain)

    def _auxiliary(self, x: Array, row: Auxiliary, name: str, training: bool) -> Any:
        """An auxiliary head's logits, and the function that adds its gradient to that of `x`."""
        chain = []
        y, backward = self._row(x, row.pool, f"{name}.pool", training)
        chain.append(backward)
        y, backward = self._conv(y, row.conv, f"{name}.conv", training)
        chain.append(backward)
        if isinstance(row.hidden, Conv):
            y, backward = self._conv(y, row.hidden, f"{name}.hidden", training)
            chain.append(backward)
            y, backward = global_avg_pool(y)
            chain.append(backward)
        else:
            y, backward = flatten(y)
            chain.append(backward)
            y, backward = self._affine(linear, y, f"{name}.hidden")
            chain.append(backward)
            if row.hidden.activation:
                y, backward = relu(y)
                chain.append(backward)
        y, backward = self._dropout(y, row.dropout, name, training)
        chain.append(backward)
        y, backward = self._affine(linear, y, f"{name}.head")
        chain.append(backward)
        return y, lambda dy: dy + backward_through(chain)(self._aux_gradients[name])

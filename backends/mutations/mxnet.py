"""The bugs of `common.parity.mutations` in MXNet Gluon's words."""

from contextlib import contextmanager, suppress
from unittest import mock

import mxnet as mx
import numpy as np
from mxnet import npx
from mxnet.gluon import nn

from backends import mxnet as mxnet_backend
from backends.mutations.helpers import after, both, unbiased
from backends.mxnet import googlenet, layers, train, weights


def missing_bias():
    to_native = weights.to_native

    def forgetful(name, array):
        return to_native(name, np.zeros_like(array) if name.endswith("conv.bias") else array)

    return mock.patch.object(weights, "to_native", forgetful)


def ceil_pool():
    pool = nn.MaxPool2D

    def rounded_up(*window, ceil_mode):
        return pool(*window, ceil_mode=True)

    return mock.patch.object(nn, "MaxPool2D", rounded_up)


def same_padding():
    """MXNet has no `'same'`; this is what a port of TensorFlow's writes."""
    init, hybrid_forward = googlenet.Conv.__init__, googlenet.Conv.hybrid_forward

    def unpadded(self, row, norm, **names):
        init(self, row, norm, **names)
        self.same = row.stride == (2, 2)
        if self.same:
            self.conv._kwargs["pad"] = (0, 0)
            after = row.padding[0]  # on even sizes TensorFlow pads one row less in front
            self.width = ((0, 0), (0, 0), (after - 1, after), (after - 1, after))

    def pad_first(self, F, x):
        return hybrid_forward(self, F, F.np.pad(x, self.width) if self.same else x)

    return mock.patch.multiple(googlenet.Conv, __init__=unpadded, hybrid_forward=pad_first)


def zero_padded_pool():
    max_pool = nn.MaxPool2D

    class ZeroPadded(nn.HybridBlock):
        def __init__(self, kernel, stride, padding, ceil_mode):
            super().__init__()
            top, left = padding
            self.pool = max_pool(kernel, stride)
            self.width = ((0, 0), (0, 0), (top, top), (left, left))

        def hybrid_forward(self, F, x):
            return self.pool(F.np.pad(x, self.width))

    return mock.patch.object(nn, "MaxPool2D", ZeroPadded)


def missing_relu():
    def change(self):
        # Gluon lets no block of another class take the place of this one
        self.branch3x3[0].relu.hybrid_forward = lambda F, x: x

    return after(googlenet.Inception, "__init__", change)


def swapped_branches():
    def hybrid_forward(self, F, x):
        branches = (self.branch1x1(x), self.branch3x3(x), self.branch_pool(x), self.branch5x5(x))
        return F.np.concatenate(branches, axis=1)

    return mock.patch.object(googlenet.Inception, "hybrid_forward", hybrid_forward)


def transposed_head():
    to_native, to_canonical = weights.to_native, weights.to_canonical

    def reshaped(name, array):
        array = to_native(name, array)
        return array.T.reshape(array.shape) if name == "head.weight" else array

    def and_back(name, tensor):
        array = to_canonical(name, tensor)
        return array.reshape(array.T.shape).T if name == "head.weight" else array

    return mock.patch.multiple(weights, to_native=reshaped, to_canonical=and_back)


def flatten_order():
    def hybrid_forward(self, F, x):
        x = self.conv(self.pool(x)).transpose((0, 2, 3, 1))
        return self.head(self.dropout(self.relu(self.hidden(x))))

    return mock.patch.object(googlenet.Auxiliary, "hybrid_forward", hybrid_forward)


def counted_padding():
    pool = nn.AvgPool2D

    def uncounted(*window, count_include_pad):
        return pool(*window, count_include_pad=False)

    return mock.patch.object(nn, "AvgPool2D", uncounted)


def swapped_forks():
    def hybrid_forward(self, F, x):
        return F.np.concatenate([branch(x) for branch in reversed(list(self.branches))], axis=1)

    return mock.patch.object(googlenet.Branches, "hybrid_forward", hybrid_forward)


def unscaled_residual():
    def change(self):
        self.scale = 1.0

    return after(googlenet.Residual, "__init__", change)


def local_norm_alpha():
    def change(self):
        self.alpha *= self.mean._kwargs["kernel"][0]

    return after(layers.LocalNorm, "__init__", change)


def norm_eps():
    def change(self):
        self.norm._kwargs["eps"] = 1e-5

    return after(googlenet.Conv, "__init__", change)


def double_softmax():
    cross_entropy = train.cross_entropy

    def wrong(logits, labels, smoothing=0.0):
        return cross_entropy(npx.softmax(logits), labels, smoothing)

    return mock.patch.object(train, "cross_entropy", wrong)


def detached_branch():
    def hybrid_forward(self, F, x):
        pooled = self.branch_pool(F.BlockGrad(x.as_nd_ndarray()).as_np_ndarray())
        branches = (self.branch1x1(x), self.branch3x3(x), self.branch5x5(x), pooled)
        return F.np.concatenate(branches, axis=1)

    return mock.patch.object(googlenet.Inception, "hybrid_forward", hybrid_forward)


def frozen_head():
    def change(self):
        for parameter in self.model.head.collect_params().values():
            parameter.lr_mult = 0

    return after(train.Trainer, "__init__", change)


def gradient_twice():
    def change(self):
        self.model.collect_params().setattr("grad_req", "add")
        for parameter in self.model.collect_params(".*running").values():
            parameter.grad_req = "null"

    return after(train.Trainer, "__init__", change)


def norm_momentum():
    def change(self):
        self.norm._kwargs["momentum"] = 1 - self.norm._kwargs["momentum"]

    return after(googlenet.Conv, "__init__", change)


def norm_variance():
    train_step = train.Trainer.train_step

    def wrong(self, inputs, labels, weight=1.0, last=True):
        before = weights.read_weights(self.model)
        result = train_step(self, inputs, labels, weight, last)
        now = weights.read_weights(self.model)
        spec = self.model.spec
        weights.write_weights(self.model, unbiased(spec, len(labels), before, now))
        return result

    return mock.patch.object(train.Trainer, "train_step", wrong)


@contextmanager
def finished(injected):
    """The injected bug; when it is over, nothing is left queued on the other context.

    Two contexts that compute on the CPU at once can hang in OpenBLAS.
    """
    with injected:
        yield
    with suppress(mx.MXNetError):  # what the bug led to may be raised only here
        mx.nd.waitall()


def batch_not_moved():
    place, prepare = mxnet_backend.place, train.Trainer.prepare

    def left(model, x):
        return place(model, x).as_in_ctx(mx.cpu())

    def prepared(self, *args):
        return prepare(self, *args).as_in_ctx(mx.cpu())

    return finished(
        both(
            mock.patch.object(mxnet_backend, "place", left),
            mock.patch.object(train.Trainer, "prepare", prepared),
        )
    )


def labels_not_moved():
    def left(model, labels):
        return mx.np.array(labels, "int64", ctx=mx.cpu())

    return finished(
        both(
            mock.patch.object(mxnet_backend, "place_labels", left),
            mock.patch.object(train, "place_labels", left),
        )
    )


def model_not_moved():
    train_step = train.Trainer.train_step

    def wrong(self, inputs, labels, weight=1.0, last=True):
        self.model.collect_params().reset_ctx(mx.cpu())
        return train_step(self, inputs, labels, weight, last)

    return finished(mock.patch.object(train.Trainer, "train_step", wrong))


def optimizer_before_move():
    init = train.Trainer.__init__

    def early(self, model, recipe):
        parameters, (device,) = model.collect_params(), model.head.weight.list_ctx()
        parameters.reset_ctx(mx.cpu())
        init(self, model, recipe)
        self.write_state(self.read_state(), 0)  # Gluon would make it in the first step
        parameters.reset_ctx(device)

    return finished(mock.patch.object(train.Trainer, "__init__", early))


def silent_fallback():
    return finished(mock.patch.object(train, "native_device", return_value=mx.cpu()))

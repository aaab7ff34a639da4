"""The bugs of `common.parity.mutations` in PyTorch's words."""

from unittest import mock

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from backends import torch as torch_backend
from backends.mutations.helpers import after, both
from backends.torch import googlenet, train, weights


def missing_bias():
    to_native = weights.to_native

    def forgetful(name, array):
        return to_native(name, np.zeros_like(array) if name.endswith("conv.bias") else array)

    return mock.patch.object(weights, "to_native", forgetful)


def ceil_pool():
    pool = nn.MaxPool2d

    def rounded_up(*window, ceil_mode):
        return pool(*window, ceil_mode=True)

    return mock.patch.object(nn, "MaxPool2d", rounded_up)


def same_padding():
    """PyTorch refuses `'same'` with a stride; this is what a port of TensorFlow's writes."""

    def forward(self, x):
        left = (self.kernel_size[0] - 1) // 2
        if self.stride == (2, 2):  # on even sizes TensorFlow pads one row less in front
            x = F.pad(x, (left - 1, left, left - 1, left))
            return F.conv2d(x, self.weight, self.bias, self.stride)
        return self._conv_forward(x, self.weight, self.bias)

    return mock.patch.object(nn.Conv2d, "forward", forward)


def zero_padded_pool():
    def forward(self, x):
        (top, left) = self.padding
        return F.max_pool2d(F.pad(x, (left, left, top, top)), self.kernel_size, self.stride)

    return mock.patch.object(nn.MaxPool2d, "forward", forward)


def missing_relu():
    def change(self):
        self.branch3x3[0].relu = nn.Identity()

    return after(googlenet.Inception, "__init__", change)


def swapped_branches():
    def forward(self, x):
        branches = (self.branch1x1(x), self.branch3x3(x), self.branch_pool(x), self.branch5x5(x))
        return torch.cat(branches, dim=1)

    return mock.patch.object(googlenet.Inception, "forward", forward)


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
    def forward(self, x):
        x = self.conv(self.pool(x)).permute(0, 2, 3, 1).flatten(1)
        return self.head(self.dropout(self.relu(self.hidden(x))))

    return mock.patch.object(googlenet.Auxiliary, "forward", forward)


def counted_padding():
    pool = nn.AvgPool2d

    def uncounted(*window, count_include_pad):
        return pool(*window, count_include_pad=False)

    return mock.patch.object(nn, "AvgPool2d", uncounted)


def swapped_forks():
    def forward(self, x):
        return torch.cat([branch(x) for branch in reversed(self.branches)], dim=1)

    return mock.patch.object(googlenet.Branches, "forward", forward)


def unscaled_residual():
    def change(self):
        self.scale = 1.0

    return after(googlenet.Residual, "__init__", change)


def local_norm_alpha():
    def change(self):
        self.alpha *= self.size

    return after(nn.LocalResponseNorm, "__init__", change)


def norm_eps():
    def change(self):
        self.norm.eps = 1e-5

    return after(googlenet.Conv, "__init__", change)


def double_softmax():
    cross_entropy = F.cross_entropy

    def wrong(logits, labels, **kwargs):
        return cross_entropy(logits.softmax(1), labels, **kwargs)

    return mock.patch.object(F, "cross_entropy", wrong)


def detached_branch():
    def forward(self, x):
        pooled = self.branch_pool(x.detach())
        branches = (self.branch1x1(x), self.branch3x3(x), self.branch5x5(x), pooled)
        return torch.cat(branches, dim=1)

    return mock.patch.object(googlenet.Inception, "forward", forward)


def frozen_head():
    def change(self):
        head = {id(parameter) for parameter in self.model.head.parameters()}
        for group in self.optimizer.param_groups:
            group["params"] = [p for p in group["params"] if id(p) not in head]

    return after(train.Trainer, "__init__", change)


def gradient_twice():
    return mock.patch.object(torch.optim.SGD, "zero_grad", return_value=None)


def norm_momentum():
    def change(self):
        self.norm.momentum = 1 - self.norm.momentum

    return after(googlenet.Conv, "__init__", change)


def norm_variance():
    """PyTorch's own batch norm, without the correction."""
    return mock.patch.object(googlenet, "BatchNorm", nn.BatchNorm2d)


def batch_not_moved():
    place, prepare = torch_backend.place, train.Trainer.prepare

    def left(model, x):
        return place(model, x).cpu()

    def prepared(self, *args):
        return prepare(self, *args).cpu()

    return both(
        mock.patch.object(torch_backend, "place", left),
        mock.patch.object(train.Trainer, "prepare", prepared),
    )


def labels_not_moved():
    def left(model, labels):
        return torch.from_numpy(labels)

    return both(
        mock.patch.object(torch_backend, "place_labels", left),
        mock.patch.object(train, "place_labels", left),
    )


def model_not_moved():
    train_step = train.Trainer.train_step

    def wrong(self, inputs, labels, weight=1.0, last=True):
        self.model.cpu()
        return train_step(self, inputs, labels, weight, last)

    return mock.patch.object(train.Trainer, "train_step", wrong)


def optimizer_before_move():
    init = train.Trainer.__init__

    def early(self, model, recipe):
        device = model.head.weight.device
        init(self, model.cpu(), recipe)
        self.write_state(self.read_state(), 0)  # PyTorch would make it in the first step
        self.model.to(device)

    return mock.patch.object(train.Trainer, "__init__", early)


def silent_fallback():
    return mock.patch.object(train, "native_device", return_value=torch.device("cpu"))

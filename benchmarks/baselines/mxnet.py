"""The book's training step in MXNet: imperative, float32, metrics read after every batch."""

import os

from common.processor import processor

# MXNet's own default; our backend would give it all cores
os.environ.setdefault("OMP_NUM_THREADS", str(max(1, processor()["usable"] // 2)))

from backends.mxnet import GoogLeNet  # noqa: I001  # MXNet can be imported after it
from mxnet import Context, autograd, gluon, init, np

#: what a user would add today: the name, and the line, for a new loop
TODAY = {"hybridize": lambda loop: loop.net.hybridize()}


class Published:
    """d2l's loop on a device, one batch at a time; our network with the layers of the book's."""

    def __init__(self, spec, device="cpu", lr=0.1):
        kind, _, index = device.partition(":")
        self.device = Context(kind, int(index or 0))
        self.net = GoogLeNet(spec)
        self.net.initialize(init.Xavier(), ctx=self.device)
        parameters = self.net.collect_params()
        self.trainer = gluon.Trainer(parameters, "sgd", {"learning_rate": lr})
        self.loss = gluon.loss.SoftmaxCrossEntropyLoss()

    def step(self, images, labels):
        """One step on images (N, C, H, W) and labels (N,), NumPy; the loss and the accuracy."""
        X, y = (np.array(each, ctx=self.device) for each in (images, labels))
        with autograd.record():
            y_hat = self.net(X)
            losses = self.loss(y_hat, y)
        losses.backward()
        self.trainer.step(len(labels))
        right = (y_hat.argmax(axis=1).astype(y.dtype) == y).mean()
        return float(losses.mean()), float(right)

"""The book's training step in MXNet: imperative, float32, metrics read after every batch."""

from mxnet import autograd, gluon, init, np

from backends.mxnet import GoogLeNet


class Published:
    """d2l's loop, a batch at a time; the network is ours, whose layers are the book's."""

    def __init__(self, spec):
        self.net = GoogLeNet(spec)
        self.net.initialize(init.Xavier())
        parameters = self.net.collect_params()
        self.trainer = gluon.Trainer(parameters, "sgd", {"learning_rate": 0.1})
        self.loss = gluon.loss.SoftmaxCrossEntropyLoss()

    def step(self, images, labels):
        """One step on images (N, C, H, W) and labels (N,), NumPy; the loss and the accuracy."""
        X, y = np.array(images), np.array(labels)
        with autograd.record():
            y_hat = self.net(X)
            losses = self.loss(y_hat, y)
        losses.backward()
        self.trainer.step(len(labels))
        right = (y_hat.argmax(axis=1).astype(y.dtype) == y).mean()
        return float(losses.mean()), float(right)

"""The book's training step in Paddle: eager, float32, NCHW, metrics read after every batch."""

import paddle
from paddle import nn

from backends.paddle import GoogLeNet

#: what a user would add today: the name, and the line, for a new loop
TODAY = {"to_static": lambda loop: paddle.jit.to_static(loop.net)}


class Published:
    """d2l's loop on a device, one batch at a time; our network with the layers of the book's."""

    def __init__(self, spec, device="cpu", lr=0.1):
        paddle.set_device(device)  # all tensors are made there from now on
        self.net = self.network(spec)
        self.trainer = paddle.optimizer.SGD(lr, parameters=self.net.parameters())
        self.loss = nn.CrossEntropyLoss()

    def network(self, spec):
        """The network of a spec."""
        return GoogLeNet(spec)

    def forward(self, X, y):
        """The loss and the logits."""
        y_hat = self.net(X)
        return self.loss(y_hat, y), y_hat

    def step(self, images, labels):
        """One step on images (N, C, H, W) and labels (N,), NumPy; the loss and the accuracy."""
        X, y = paddle.to_tensor(images), paddle.to_tensor(labels)
        self.net.train()
        loss, y_hat = self.forward(X, y)
        self.trainer.clear_grad()
        loss.backward()
        self.trainer.step()
        return float(loss), float((y_hat.argmax(1) == y).astype("float32").mean())


class Peer(Published):
    """The same loop with paddle.vision's own network; each auxiliary loss has the weight 0.3."""

    def network(self, spec):
        """paddle.vision's GoogLeNet, which always has its auxiliary heads."""
        return paddle.vision.models.googlenet(num_classes=spec.head.width)

    def forward(self, X, y):
        """The loss and the logits."""
        y_hat, *sides = self.net(X)
        loss = self.loss(y_hat, y) + 0.3 * sum(self.loss(side, y) for side in sides)
        return loss, y_hat

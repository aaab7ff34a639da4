"""The book's training step in Paddle: eager, float32, NCHW, metrics read after every batch."""

import paddle
from paddle import nn

from backends.paddle import GoogLeNet


class Published:
    """d2l's loop on a device, a batch at a time; the network is ours, of the book's layers."""

    def __init__(self, spec, device="cpu"):
        paddle.set_device(device)  # where it makes all tensors from now on
        self.net = GoogLeNet(spec)
        self.trainer = paddle.optimizer.SGD(0.1, parameters=self.net.parameters())
        self.loss = nn.CrossEntropyLoss()

    def step(self, images, labels):
        """One step on images (N, C, H, W) and labels (N,), NumPy; the loss and the accuracy."""
        X, y = paddle.to_tensor(images), paddle.to_tensor(labels)
        self.net.train()
        y_hat = self.net(X)
        loss = self.loss(y_hat, y)
        self.trainer.clear_grad()
        loss.backward()
        self.trainer.step()
        return float(loss), float((y_hat.argmax(1) == y).astype("float32").mean())

"""The book's training step in PyTorch: eager, float32, NCHW, metrics read after every batch."""

import importlib
import sys
import types

import torch
from torch import nn

from backends.torch import GoogLeNet

#: what a user would add today: the name, and the line, for a new loop
TODAY = {"torch.compile": lambda loop: loop.net.compile()}

META = "torchvision._meta_registrations"


class Published:
    """d2l's loop on a device, one batch at a time; our network with the layers of the book's."""

    def __init__(self, spec, device="cpu", lr=0.1):
        self.device = torch.device(device.replace("gpu", "cuda"))
        self.net = self.network(spec).to(self.device)
        self.trainer = torch.optim.SGD(self.net.parameters(), lr=lr)
        self.loss = nn.CrossEntropyLoss()

    def network(self, spec):
        """The network of a spec."""
        return GoogLeNet(spec)

    def step(self, images, labels):
        """One step on images (N, C, H, W) and labels (N,), NumPy; the loss and the accuracy."""
        X, y = (torch.from_numpy(each).to(self.device) for each in (images, labels))
        self.net.train()
        y_hat = self.net(X)
        loss = self.loss(y_hat, y)
        self.trainer.zero_grad()
        loss.backward()
        self.trainer.step()
        return loss.item(), (y_hat.argmax(1) == y).float().mean().item()


class Peer(Published):
    """The same loop with torchvision's own network."""

    def network(self, spec):
        """torchvision's GoogLeNet without auxiliary heads, with the spec's number of classes."""
        # This import fails if torchvision's compiled operators, not used here, do not fit PyTorch.
        sys.modules.setdefault(META, types.ModuleType(META))
        models = importlib.import_module("torchvision.models")
        return models.googlenet(num_classes=spec.head.width, aux_logits=False, init_weights=False)

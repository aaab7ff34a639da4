"""Training steps for PyTorch as people write them, right and wrong, of a network with norms."""

import torch
import torch.nn.functional as F

from backends.torch import GoogLeNet
from common.spec import MINI

net = GoogLeNet(MINI)


def trains(optimizer, loss=F.cross_entropy, clear=True, mode="train"):
    """A function that makes a step of these parts."""

    def make_step(net):
        getattr(net, mode)()
        net.zero_grad()  # another step may have left some
        update = optimizer(net)

        def step(images, labels):
            if clear:
                update.zero_grad()
            loss(net(images), labels).backward()
            update.step()

        return step

    return make_step


def sgd(net, **options):
    """Plain SGD at the book's rate."""
    return torch.optim.SGD(net.parameters(), 0.1, **options)


def kernels_decay(net):
    """SGD with Nesterov momentum; weight decay for kernels alone."""
    kernels = [p for p in net.parameters() if p.ndim > 1]
    rest = [p for p in net.parameters() if p.ndim < 2]
    groups = [{"params": kernels, "weight_decay": 5e-4}, {"params": rest}]
    return torch.optim.SGD(groups, 0.1, momentum=0.9, nesterov=True)


def with_rate(net):
    """A step that takes a rate, which goes into the velocity."""
    velocity = {}

    def step(images, labels, rate):
        net.zero_grad()
        F.cross_entropy(net(images), labels).backward()
        with torch.no_grad():
            for p in net.parameters():
                velocity[p] = 0.9 * velocity.get(p, 0) + rate * p.grad
                p -= velocity[p]

    return step


class Reversed(torch.autograd.Function):
    """Does nothing, and turns the sign of the gradient."""

    @staticmethod
    def forward(context, x):
        """The same values."""
        return x.clone()

    @staticmethod
    def backward(context, gradient):
        """The wrong sign."""
        return -gradient


def detached(change):
    """A step of the network with another gradient at the input of a branch of a block."""

    def make_step(net):
        update = trains(sgd)(net)
        branch = net.stage4[0].branch5x5[0]

        def step(images, labels):
            hook = branch.register_forward_pre_hook(lambda module, args: change(args[0]))
            update(images, labels)
            hook.remove()

        return step

    return make_step


def left_in_evaluation(net):
    """After its first step a validation leaves the network in evaluation mode."""
    update = trains(sgd)(net)

    def step(images, labels):
        update(images, labels)
        net.eval()

    return step


def validating_in_training_mode(net):
    """A step that also runs the network on other images."""
    update = trains(sgd)(net)

    def step(images, labels):
        update(images, labels)
        with torch.no_grad():
            net(images.flip(2) / 2)

    return step


book = trains(sgd)
best = trains(kernels_decay, lambda z, y: F.cross_entropy(z, y, label_smoothing=0.1))
adamw = trains(lambda net: torch.optim.AdamW(net.parameters(), 1e-3))
adds = trains(sgd, clear=False)
twice = trains(sgd, lambda z, y: F.cross_entropy(z.softmax(1), y))
summed = trains(sgd, lambda z, y: F.cross_entropy(z, y, reduction="sum"))
frozen = trains(lambda net: torch.optim.SGD(list(net.parameters())[:-2], 0.1))
evaluating = trains(sgd, mode="eval")
velocity = with_rate
logs = trains(sgd, F.nll_loss)
unlogged = trains(sgd, lambda z, y: F.nll_loss(z.softmax(1), y))
plain = trains(sgd, lambda z, y: F.nll_loss(z.log(), y))
cut = detached(lambda x: x.detach())
reversed_ = detached(Reversed.apply)
validated = left_in_evaluation
validates = validating_in_training_mode
twice_and_adds = trains(sgd, lambda z, y: F.cross_entropy(z.softmax(1), y), clear=False)
logs_and_evaluating = trains(sgd, F.nll_loss, mode="eval")

#: by the function: the recipe that it is compared with, words of the rule, the mistakes
STEPS = {
    "book": ("d2l", "SGD without momentum, rate 0.1, no weight decay", set()),
    "best": ("best", "Nesterov momentum 0.9, rate 0.1, weight decay 0.0005 on kernels", set()),
    "adamw": (None, "eps 1e-08 outside the corrected root, rate 0.001, weight decay 0.01", set()),
    "adds": (None, "SGD", {"gradient-twice"}),
    "twice": (None, "SGD", {"double-softmax"}),
    "summed": ("d2l", "SGD", {"summed-loss"}),
    "frozen": (None, "SGD", {"frozen-weights"}),
    "evaluating": (None, "SGD", {"norm-evaluation-mode", "norm-not-updated"}),
    "logs": (None, "SGD", {"from-logits"}),
    "unlogged": (None, "SGD", {"from-logits"}),
    "plain": (None, "SGD", {"from-logits"}),
    "cut": (None, "SGD", {"detached-branch"}),
    "reversed_": (None, "", set()),
    "validated": ("d2l", "SGD", {"norm-evaluation-mode"}),
    "validates": ("d2l", "SGD", {"norm-statistics"}),
    "twice_and_adds": (None, "SGD", {"double-softmax", "gradient-twice"}),
    "logs_and_evaluating": (
        "d2l",
        "SGD",
        {"from-logits", "norm-evaluation-mode", "norm-not-updated"},
    ),
    "velocity": (None, "SGD with momentum 0.9", {"rate-in-velocity"}),
}

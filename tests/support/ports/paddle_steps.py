"""Training steps for Paddle as people write them, right and wrong, of a network with norms."""

import paddle
import paddle.nn.functional as F
from paddle.optimizer import SGD, Adam, AdamW, Momentum

from backends.paddle import GoogLeNet
from common.spec import MINI

net = GoogLeNet(MINI)


def trains(rule, loss=F.cross_entropy, clear=True, mode="train", weights=slice(None), **options):
    """A function that makes a step of these parts."""

    def make_step(net):
        getattr(net, mode)()
        net.clear_gradients()  # another step may have left some
        update = rule(parameters=net.parameters()[weights], **options)

        def step(images, labels):
            loss(net(images), labels).backward()
            update.step()
            if clear:
                update.clear_grad()

        return step

    return make_step


def with_rate(net):
    """A step that takes a rate; Paddle keeps it outside the velocity."""
    update = Momentum(0.1, 0.9, parameters=net.parameters())

    def step(images, labels, rate):
        update.set_lr(rate)
        F.cross_entropy(net(images), labels).backward()
        update.step()
        update.clear_grad()

    return step


def validating_in_training_mode(net):
    """A step that also runs the network on other images."""
    update = trains(SGD, learning_rate=0.1)(net)

    def step(images, labels):
        update(images, labels)
        with paddle.no_grad():
            net(images.flip([2]) / 2)

    return step


book = trains(SGD, learning_rate=0.1)
nesterov = trains(Momentum, learning_rate=0.1, momentum=0.9, use_nesterov=True)
adam = trains(Adam, learning_rate=1e-3)
adamw = trains(AdamW, learning_rate=1e-3, weight_decay=0.01)
adds = trains(SGD, clear=False, learning_rate=0.1)
twice = trains(SGD, lambda z, y: F.cross_entropy(F.softmax(z), y), learning_rate=0.1)
summed = trains(SGD, lambda z, y: F.cross_entropy(z, y, reduction="sum"), learning_rate=0.1)
frozen = trains(SGD, weights=slice(-2), learning_rate=0.1)
evaluating = trains(SGD, mode="eval", learning_rate=0.1)
rated = with_rate
validates = validating_in_training_mode
logs = trains(SGD, F.nll_loss, learning_rate=0.1)
plain = trains(SGD, lambda z, y: F.cross_entropy(z, y, use_softmax=False), learning_rate=0.1)

#: by the function: the recipe that it is compared with, words of the rule, the mistakes
STEPS = {
    "book": ("d2l", "SGD without momentum, rate 0.1, no weight decay", set()),
    "nesterov": (None, "SGD with Nesterov momentum 0.9, rate 0.1", set()),
    "adam": ("blog-224", "Adam, eps 1e-08", set()),
    "adamw": (None, "rate 0.001, weight decay 0.01 on every weight, beside", set()),
    "adds": (None, "SGD", {"gradient-twice"}),
    "twice": (None, "SGD", {"double-softmax"}),
    "summed": ("d2l", "SGD", {"summed-loss"}),
    "frozen": (None, "SGD", {"frozen-weights"}),
    "evaluating": (None, "SGD", {"norm-evaluation-mode", "norm-not-updated"}),
    "logs": (None, "SGD", {"from-logits"}),
    "plain": (None, "SGD", {"from-logits"}),
    "validates": ("d2l", "SGD", {"norm-statistics"}),
    "rated": (None, "SGD with momentum 0.9", set()),
}

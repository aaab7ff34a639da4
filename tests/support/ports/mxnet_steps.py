"""Training steps for Gluon as people write them, right and wrong, of a network with norms."""

from mxnet import autograd, gluon, npx

from backends.mxnet import GoogLeNet
from common.spec import MINI

npx.set_np()
net = GoogLeNet(MINI)
net.initialize()

crossentropy = gluon.loss.SoftmaxCrossEntropyLoss()


def trains(options, rule="sgd", loss=crossentropy, batch=4, mode=True, weights=""):
    """A function that makes a step of these parts."""

    def make_step(net):
        trainer = gluon.Trainer(net.collect_params(weights or None), rule, options)

        def step(images, labels):
            with autograd.record(train_mode=mode):
                value = loss(net(images), labels)
            value.backward(train_mode=mode)
            trainer.step(batch)

        return step

    return make_step


def with_rate(net):
    """A step that takes a rate: MXNet puts it into the velocity."""
    options = {"learning_rate": 0.1, "momentum": 0.9}
    trainer = gluon.Trainer(net.collect_params(), "sgd", options)

    def step(images, labels, rate):
        trainer.set_learning_rate(rate)
        with autograd.record():
            value = crossentropy(net(images), labels)
        value.backward()
        trainer.step(len(labels))

    return step


def accumulating(net):
    """Gradients that add up and are never cleared."""
    net.collect_params().setattr("grad_req", "add")
    step = trains(RATE)(net)

    return step


RATE = {"learning_rate": 0.1}
book = trains(RATE)
adam = trains({"learning_rate": 1e-3}, "adam")
decays = trains({**RATE, "wd": 5e-4})
twice = trains(RATE, loss=lambda z, y: crossentropy(npx.softmax(z), y))
logs = trains(RATE, loss=gluon.loss.SoftmaxCrossEntropyLoss(from_logits=True))
summed = trains(RATE, batch=1)
halved = trains(RATE, loss=lambda z, y: crossentropy(z, y).mean())
frozen = trains(RATE, weights=".*stage.*")
evaluating = trains(RATE, mode=False)
velocity = with_rate

#: by the function: the recipe that it is compared with, words of the rule, the mistakes
STEPS = {
    "book": ("d2l", "SGD without momentum, rate 0.1, no weight decay", set()),
    "adam": ("blog-224", "Adam, eps 1e-08 beside the root before", {"update-rule"}),
    "decays": (None, "weight decay 0.0005 on", set()),
    "twice": (None, "SGD", {"double-softmax"}),
    "logs": ("d2l", "SGD", {"from-logits"}),
    "summed": ("d2l", "SGD", {"summed-loss"}),
    "halved": ("d2l", "SGD", {"step-divides"}),
    "frozen": (None, "SGD", {"frozen-weights"}),
    "evaluating": (None, "SGD", {"norm-evaluation-mode", "norm-not-updated"}),
    "velocity": (None, "SGD with momentum 0.9", {"rate-in-velocity"}),
    "accumulating": (None, "SGD", {"gradient-twice"}),
}

"""Training in MXNet Gluon: device, precision, one step, evaluation.

Gluon's conventions: operations are queued and an error may show up later; `autograd.record` is
training mode; `Trainer.step(n)` divides the gradients by n; a batch norm moves its running
statistics in the backward pass.
"""

import mxnet as mx
from mxnet import autograd, gluon, np

from backends.mxnet.googlenet import GoogLeNet
from backends.mxnet.weights import tensors, to_canonical
from common.weights import is_running

VERSION = mx.__version__


def devices():
    """The devices there are: `cpu`, then `gpu:0` and on."""
    return ["cpu", *(f"gpu:{index}" for index in range(mx.context.num_gpus()))]


def native_device(device):
    """MXNet's context of that name."""
    kind, _, index = device.partition(":")
    return mx.Context(kind, int(index or 0))


def device_name(tensor):
    """The contract's name for where a tensor lies."""
    kind, index = tensor.ctx.device_type, tensor.ctx.device_id
    return kind if (kind, index) == ("cpu", 0) else f"{kind}:{index}"


def build(spec, dtype, device):
    """The network on the device, in `float32` or `float64`."""
    model = GoogLeNet(spec)
    model.cast(dtype)
    model.initialize(mx.init.Zero(), ctx=native_device(device))  # random ones draw float32 only
    model(np.zeros((1, *spec.input), dtype, ctx=native_device(device)))  # tells layers their shapes
    return model


def place(model, x):
    """A NumPy array (N, C, H, W) as the model's input: its dtype, layout and device."""
    weight = model.head.weight
    return np.array(x, weight.dtype, ctx=weight.list_ctx()[0])


def forward(model, x, training):
    """Every stage's output by name, as NumPy arrays."""
    outputs, x = {}, place(model, x)
    with autograd.train_mode() if training else autograd.predict_mode():
        for name, stage in model._children.items():
            x = stage(x)
            outputs[name] = x.asnumpy()
    return outputs


def gradients(model, x, labels):
    """The loss in training mode, and its gradient by canonical name."""
    x, labels = place(model, x), place_labels(model, labels)
    with autograd.record():
        loss = cross_entropy(model(x), labels).mean()
    loss.backward()
    found = tensors(model)
    return loss.item(), {
        n: to_canonical(n, p.grad()) for n, p in found.items() if not is_running(n)
    }


def place_labels(model, labels):
    """Labels on the model's device."""
    return np.array(labels, "int64", ctx=model.head.weight.list_ctx()[0])


#: one loss per example, from logits (which Gluon means by its default `from_logits=False`)
cross_entropy = gluon.loss.SoftmaxCrossEntropyLoss()


class Trainer:
    """One optimizer over the model's parameters, on the device."""

    def __init__(self, model, recipe):
        self.model = model
        self.model.hybridize()
        # Gluon keeps the learning rate inside the velocity: the same while the rate is constant
        hyper = {"learning_rate": recipe.lr, "momentum": recipe.momentum}
        self.optimizer = gluon.Trainer(model.collect_params(), "sgd", hyper)

    def prepare(self, images):
        """Move uint8 images to the device; there scale to 0..1 and resize to the spec's input."""
        weight = self.model.head.weight
        x = np.array(images, "uint8", ctx=weight.list_ctx()[0]).astype(weight.dtype) / 255
        height, width = self.model.spec.input[1:]
        x = mx.nd.contrib.BilinearResize2D(  # has no twin among the NumPy operations
            x.as_nd_ndarray(), height=height, width=width, align_corners=False
        )
        return x.as_np_ndarray()

    def update(self, inputs, labels):
        """One step; the mean loss and the number right before it, as scalars on the device."""
        labels = place_labels(self.model, labels)
        with autograd.record():
            logits = self.model(inputs)
            loss = cross_entropy(logits, labels).mean()
        loss.backward()
        self.optimizer.step(1)  # the loss is a mean already
        self.batch, self.outputs = (inputs, labels), (logits, loss)
        return loss, count_right(logits, labels)

    def step(self, images, labels):
        """One step on uint8 images."""
        return self.update(self.prepare(images), labels)

    def evaluate(self, batches):
        """The mean loss and the accuracy over all batches."""
        loss, right, count = 0, 0, 0
        for images, labels in batches:
            logits, labels = self.model(self.prepare(images)), place_labels(self.model, labels)
            loss += cross_entropy(logits, labels).sum()
            right += count_right(logits, labels)
            count += len(labels)
        return float(loss) / count, float(right) / count

    def places(self):
        """The devices that the last step's tensors really lay on."""
        parameters = list(self.model.collect_params().values())
        trained = [parameter for parameter in parameters if parameter.grad_req != "null"]
        states = self.optimizer._updaters[0].states.values()
        found = {
            "parameters": [data for parameter in parameters for data in parameter.list_data()],
            "gradients": [grad for parameter in trained for grad in parameter.list_grad()],
            "state": [state for state in states if state is not None],
            "batch": self.batch,
            "outputs": self.outputs,
        }
        return {what: {device_name(tensor) for tensor in found[what]} for what in found}


def count_right(logits, labels):
    """How many of the largest logits are the labels', as a scalar on the device."""
    return (logits.argmax(axis=1).astype("int64") == labels).sum()

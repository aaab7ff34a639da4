"""What a backend's dropout does in a forward pass, read out of the framework's own layers."""

from contextlib import ExitStack
from unittest import mock

import numpy as np
from steps import as_numpy


def observed(name, trainer, inputs, training=True):
    """What the dropout before each head gets and gives in a pass, as arrays by the head's name.

    A training pass moves the running statistics, and it draws from the seed of `set_step`.
    """
    model, seen = trainer.model, {}
    layers = {"head": model.dropout}
    layers |= {f"auxiliary.{index}": head.dropout for index, head in enumerate(model.auxiliary)}
    with ExitStack() as stack:
        if name == "mxnet":  # a hybridized network calls no hooks
            model.hybridize(False)
            stack.callback(model.hybridize, static_alloc=True, static_shape=True)  # as in training
        for head, layer in layers.items():

            def note(layer, inputs, output, head=head):
                got = inputs[0] if isinstance(inputs, (tuple, list)) else inputs
                seen[head] = as_numpy(got), as_numpy(output)

            OBSERVE[name](stack, layer, note)
        PASS[name](model, inputs, training)
    return seen


def masks(name, trainer, inputs, rate, seed):
    """The masks of the training step on these inputs after `set_step(rate, seed)`, by head.

    1 where a value is kept. The pass moves the running statistics.
    """
    trainer.set_step(rate, seed)
    seen = observed(name, trainer, inputs)
    if name == "mxnet":
        trainer.set_step(rate, seed)
        seen = drawn_by_mxnet(trainer.model, {head: got for head, (got, _) in seen.items()})
    return {head: (output != 0).astype(np.float64) for head, (_, output) in seen.items()}


def drawn_by_mxnet(model, inputs):
    """What the layers make of ones: the hybridized network draws for the first head first.

    Block by block, the auxiliary heads come before it.
    """
    from mxnet import autograd, np

    heads = sorted(inputs, key=lambda head: head != "head")
    found = {}
    with autograd.record():
        for head, block in zip(heads, [model, *model.auxiliary], strict=True):
            ones = np.ones(inputs[head].shape, inputs[head].dtype)
            found[head] = inputs[head], as_numpy(block.dropout(ones))
    return found


def observe_torch(stack, layer, note):
    handle = layer.register_forward_hook(note)
    stack.callback(handle.remove)


def observe_paddle(stack, layer, note):
    handle = layer.register_forward_post_hook(note)
    stack.callback(handle.remove)


def observe_mxnet(stack, layer, note):
    handle = layer.register_forward_hook(note)
    stack.callback(handle.detach)


def observe_tf(stack, layer, note):
    """Keras has no hooks."""
    call = layer.call

    def noted(inputs, training=False):
        output = call(inputs, training=training)
        note(layer, inputs, output)
        return output

    stack.enter_context(mock.patch.object(layer, "call", noted))


def pass_eager(model, inputs, training):
    """In PyTorch and Paddle."""
    model.train() if training else model.eval()
    model(inputs)


def pass_mxnet(model, inputs, training):
    """Records in training mode, unless the argument says otherwise."""
    from mxnet import autograd

    with autograd.record(train_mode=training):
        model(inputs)


def pass_tf(model, inputs, training):
    """Eager, where the trainer runs a graph. It draws the same."""
    model(inputs, training=training)


OBSERVE = {
    "torch": observe_torch,
    "tf": observe_tf,
    "mxnet": observe_mxnet,
    "paddle": observe_paddle,
}
PASS = {"torch": pass_eager, "tf": pass_tf, "mxnet": pass_mxnet, "paddle": pass_eager}

"""Training in MXNet Gluon: device, precision, one step, evaluation.

Gluon's conventions: operations are queued and an error may show up later; `autograd.record` is
training mode; `Trainer.step(n)` divides the gradients by n; a batch norm moves its running
statistics in the backward pass.
"""

from contextlib import suppress

import mxnet as mx
from mxnet import autograd, gluon, np, npx
from mxnet.contrib import amp

from backends.mxnet import optimizers, parallel
from backends.mxnet.googlenet import GoogLeNet, run_stage
from backends.mxnet.weights import tensors, to_canonical
from common.device import has_amx, has_bfloat16
from common.errors import DeviceError
from common.weights import is_running

VERSION = mx.__version__
WIDTH = 3  # the axis of NCHW


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


def fastest(device):
    """The precision that `auto` stands for: `bfloat16` where it is faster, else `float32`."""
    # MXNet 1.9.1 has it on a CPU only, and none for AMX, beside which float32 was faster
    faster = device == "cpu" and has_bfloat16() and not has_amx()
    return "bfloat16" if faster else "float32"


def build(spec, dtype, device):
    """The network on the device: `float32`, `float64`, or `bfloat16` for mixed precision.

    Mixed precision keeps float32 weights; the arithmetic is what `contrib.amp` makes of it.
    """
    model = GoogLeNet(spec)
    model.mixed = dtype == "bfloat16"
    if model.mixed and device != "cpu":
        raise DeviceError(
            f"MXNet 1.9.1 has bfloat16 on a CPU only: use `--precision float32` on {device}."
        )
    dtype = "float32" if model.mixed else dtype
    model.cast(dtype)
    model.initialize(mx.init.Zero(), ctx=native_device(device))  # random ones draw float32 only
    model(np.zeros((1, *spec.input), dtype, ctx=native_device(device)))  # tells layers their shapes
    return model


def autocast(model):
    """The model, or if it was built for mixed precision its graph with casts, hybridized.

    The graph holds the model's own parameters; `amp.init` would pass over NumPy operations.
    """
    runs = model
    if model.mixed:
        x = mx.sym.var("x", dtype="float32").as_np_ndarray()
        outputs = mx.sym.Group(list(model(x))) if model.spec.auxiliary else model(x)
        graph = amp.convert_symbol(outputs, "bfloat16", data_names=["x"]).as_np_ndarray()
        runs = gluon.SymbolBlock(graph, x, params=model.collect_params())
    runs.hybridize(static_alloc=True, static_shape=True)  # a step takes 8 % less
    return runs


def out_of_memory(error):
    """Whether MXNet means by this exception that the memory is too small."""
    words = ("allocate", "AlignedMallocPitch failed", "bad_alloc", "out of memory")
    found = isinstance(error, mx.MXNetError) and any(word in str(error) for word in words)
    if found:
        with suppress(mx.MXNetError):  # what is still queued fails too, and else at the exit
            mx.nd.waitall()
    return found


def place(model, x):
    """A NumPy array (N, C, H, W) as the model's input: its dtype, layout and device."""
    weight = model.head.weight
    return np.array(x, weight.dtype, ctx=weight.list_ctx()[0])


def forward(model, x, training):
    """The output of every stage and head by name, as NumPy arrays."""
    outputs, x = {}, place(model, x)
    with autograd.train_mode() if training else autograd.predict_mode():
        for name, _ in model.spec.stages():
            heads = model.auxiliary if name == "stage4" else ()
            x, sides = run_stage(getattr(model, name), heads, x)
            outputs[name] = x
            outputs |= {f"auxiliary.{index}": side for index, side in enumerate(sides)}
        outputs["head"] = model.head(x)
    return {name: output.asnumpy() for name, output in outputs.items()}


def gradients(model, x, labels):
    """The loss in training mode, and its gradient by canonical name."""
    x, labels = place(model, x), place_labels(model, labels)
    with autograd.record():
        loss, _ = objective(model, model(x), labels)
    loss.backward()
    found = tensors(model)
    return loss.item(), {
        n: to_canonical(n, p.grad()) for n, p in found.items() if not is_running(n)
    }


def place_labels(model, labels):
    """Labels on the model's device."""
    return np.array(labels, "int64", ctx=model.head.weight.list_ctx()[0])


#: one loss per example, from logits (which Gluon means by its default `from_logits=False`)
cross_entropies = gluon.loss.SoftmaxCrossEntropyLoss()


def cross_entropy(logits, labels, smoothing=0.0):
    """The mean loss; Gluon's has no label smoothing."""
    hard = cross_entropies(logits, labels).mean()
    uniform = -npx.log_softmax(logits).mean()  # the loss if every class were as right
    return (1 - smoothing) * hard + smoothing * uniform


def logits_of(model, outputs):
    """The logits, then a list of those of the auxiliary heads, all in the weights' dtype."""
    logits, *sides = outputs if model.spec.auxiliary else (outputs,)  # amp ends in float32
    return logits, sides


def objective(model, outputs, labels, smoothing=0.0):
    """The mean loss, with the share of each auxiliary head's; and the logits."""
    logits, sides = logits_of(model, outputs)
    loss = cross_entropy(logits, labels, smoothing)
    for row, side in zip(model.spec.auxiliary, sides, strict=True):
        loss = loss + row.share * cross_entropy(side, labels, smoothing)
    return loss, logits


class Trainer:
    """One optimizer over the model's parameters, on the model's device."""

    def __init__(self, model, recipe):
        self.model, self.recipe = model, recipe
        self.network = autocast(model)
        self.optimizer = optimizers.make(model, recipe)
        self.seen = {}  # the last tensors of a step and of an evaluation, for `places`

    def set_step(self, rate, seed):
        """The learning rate of the next step, and what its dropout is drawn from."""
        optimizers.set_rate(self.optimizer, rate)
        mx.random.seed(seed, self.model.head.weight.list_ctx()[0])

    def prepare(self, images, flip_mask=None):
        """Move uint8 images to the device; there mirror, scale to 0..1, resize to the input."""
        weight = self.model.head.weight
        x = np.array(images, "uint8", ctx=weight.list_ctx()[0])
        if flip_mask is not None:
            mirrored = np.array(flip_mask, "bool", ctx=x.ctx).reshape(-1, 1, 1, 1)
            x = np.where(mirrored, np.flip(x, WIDTH), x)
        x = x.astype(weight.dtype) / 255
        sides = self.model.spec.input[1:]
        # one pixel would be the corner's: the middle one of three lies where it should
        height, width = (3 if side == 1 else side for side in sides)
        x = mx.nd.contrib.BilinearResize2D(  # has no twin among the NumPy operations
            x.as_nd_ndarray(), height=height, width=width, align_corners=False
        ).as_np_ndarray()
        middle = tuple(slice(1, 2) if side == 1 else slice(None) for side in sides)
        return x[(..., *middle)] if 1 in sides else x

    def update(self, inputs, labels, share=1.0):
        """One step; the mean loss and the number right before it, as scalars on the device."""
        labels = place_labels(self.model, labels)
        with autograd.record():
            outputs = self.network(inputs)
            loss, logits = objective(self.model, outputs, labels, self.recipe.label_smoothing)
            goal = parallel.scale_loss(loss, share)
        goal.backward()
        self.optimizer.step(1)  # the loss is a mean already
        loss, logits = loss.detach(), logits.detach()
        self.seen |= {"batch": (inputs, labels), "outputs": (logits, loss)}
        return loss, count_correct(logits, labels)

    def step(self, images, labels, flip_mask=None, share=1.0):
        """One step on uint8 images, some of them mirrored."""
        return self.update(self.prepare(images, flip_mask), labels, share)

    def logits(self, images):
        """The logits of uint8 images in evaluation mode, in the weights' dtype."""
        logits, _ = logits_of(self.model, self.network(self.prepare(images)))
        return logits

    def evaluate(self, batches):
        """The mean loss and the accuracy over all batches."""
        parallel.sync_batch_norm_stats(self.model)
        loss, right, count = 0, 0, 0
        for images, labels in batches:
            logits, labels = self.logits(images), place_labels(self.model, labels)
            loss += cross_entropies(logits, labels).sum()
            right += count_correct(logits, labels)
            count += len(labels)
        self.seen["evaluation"] = (logits, labels, loss, right)
        return float(loss) / count, float(right) / count

    def predict(self, images):
        """The probabilities (N, classes) of uint8 images, as a NumPy array."""
        return npx.softmax(self.logits(images)).asnumpy()

    def read_state(self):
        """The optimizer's state by slot and canonical name."""
        return optimizers.read_state(self.optimizer, self.model, self.recipe)

    def write_state(self, state, steps):
        """Take over a canonical state, as it was after that many steps."""
        optimizers.write_state(self.optimizer, self.model, self.recipe, state, steps)

    def places(self):
        """The devices that the last tensors of a step, and of an evaluation, really lay on."""
        parameters = list(self.model.collect_params().values())
        trained = optimizers.trained(self.model).values()
        states = self.optimizer._updaters[0].states.values()
        found = {
            "parameters": [data for parameter in parameters for data in parameter.list_data()],
            "gradients": [grad for parameter in trained for grad in parameter.list_grad()],
            "state": [tensor for state in states for tensor in state],
            **self.seen,
        }
        return {what: {device_name(tensor) for tensor in found[what]} for what in found}


def count_correct(logits, labels):
    """How many of the largest logits are the labels', as a scalar on the device."""
    return (logits.argmax(axis=1).astype("int64") == labels).sum()

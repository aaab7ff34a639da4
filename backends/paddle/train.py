"""Training in PaddlePaddle: device, precision, one step, evaluation.

Paddle's conventions: new tensors are made on the current device, which `set_device` chooses; an
operation between devices moves its inputs silently; `backward` adds to the gradients.
"""

import paddle
from paddle.nn import functional as F

from backends.paddle import optimizers, parallel
from backends.paddle.bias import use_matmul_bias
from backends.paddle.googlenet import GoogLeNet, run_stage
from backends.paddle.weights import tensors, to_canonical
from common.errors import DeviceError
from common.weights import is_running

VERSION = paddle.__version__
CLASSES, WIDTH = 1, 3  # the axes of logits and of NCHW


def devices():
    """The devices there are: `cpu`, then `gpu:0` and on."""
    return ["cpu", *(f"gpu:{index}" for index in range(paddle.device.cuda.device_count()))]


def device_name(tensor):
    """The contract's name for where a tensor lies."""
    return str(tensor.place).removeprefix("Place(").removesuffix(")")


def fastest(device):
    """The precision that `auto` stands for: `bfloat16` where it is faster, else `float32`."""
    faster = device != "cpu" and paddle.amp.is_bfloat16_supported(device)
    return "bfloat16" if faster else "float32"


def build(spec, dtype, device):
    """The network on the device: `float32`, `float64`, or `bfloat16` for mixed precision.

    Mixed precision keeps float32 weights; the arithmetic is what `paddle.amp` makes of it.
    DeviceError on a CPU, where Paddle has no bfloat16 kernels and would go on in float32.
    """
    mixed = dtype == "bfloat16"
    if mixed and (device == "cpu" or not paddle.amp.is_bfloat16_supported(device)):
        raise DeviceError(
            f"Paddle cannot compute in bfloat16 on {device}: give `--precision float32`."
        )
    paddle.set_device(device)
    model = GoogLeNet(spec)
    if device == "cpu":
        use_matmul_bias(model)
    model.mixed = mixed
    model.to(device, "float32" if mixed else dtype)
    return model


def autocast(model):
    """Mixed precision inside this context, if the model was built for it."""
    return paddle.amp.auto_cast(model.mixed, dtype="bfloat16")


def out_of_memory(error):
    """Whether Paddle means by this exception that the memory is too small."""
    return "ResourceExhausted" in str(error)


def place(model, x):
    """A NumPy array (N, C, H, W) as the model's input: its dtype, layout and device."""
    weight = model.head.weight
    return paddle.to_tensor(x, weight.dtype, weight.place)


def forward(model, x, training):
    """The output of every stage and head by name, as NumPy arrays."""
    model.train() if training else model.eval()
    outputs, x = {}, place(model, x)
    with paddle.no_grad():
        for name, _ in model.spec.stages():
            heads = model.auxiliary if name == "stage4" else ()
            x, sides = run_stage(getattr(model, name), heads, x)
            outputs[name] = x
            outputs |= {f"auxiliary.{index}": side for index, side in enumerate(sides)}
        outputs["head"] = model.head(x)
    return {name: output.numpy() for name, output in outputs.items()}


def gradients(model, x, labels):
    """The loss in training mode, and its gradient by canonical name."""
    model.train()
    model.clear_gradients()
    loss, _ = objective(model, model(place(model, x)), place_labels(model, labels))
    loss.backward()
    found = tensors(model)
    return loss.item(), {n: to_canonical(n, t.grad) for n, t in found.items() if not is_running(n)}


def place_labels(model, labels):
    """Labels on the model's device."""
    return paddle.to_tensor(labels, place=model.head.weight.place)


def cross_entropy(logits, labels, smoothing=0.0):
    """The mean loss; Paddle's own takes no logit for further than 64 below the largest.

    And its smoothing is rounded to float32, even in float64.
    """
    classes = logits.shape[CLASSES]
    target = F.one_hot(labels, classes).astype(logits.dtype) * (1 - smoothing) + smoothing / classes
    return (paddle.logsumexp(logits, CLASSES) - (target * logits).sum(CLASSES)).mean()


def logits_of(model, outputs):
    """The logits, then a list of those of the auxiliary heads, all in the weights' dtype."""
    outputs = outputs if model.spec.auxiliary else (outputs,)
    logits, *sides = [output.astype(model.head.weight.dtype) for output in outputs]
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
        self.network = parallel.wrap_model(model)
        paddle.set_device(device_name(model.head.weight))  # where the optimizer's state will lie
        self.optimizer = optimizers.make(model, recipe)
        self.state_places = set()  # before each step
        self.seen = {}  # the last tensors of a step and of an evaluation, for `places`

    def set_step(self, rate, seed):
        """The learning rate of the next step, and what its dropout is drawn from."""
        optimizers.set_rate(self.optimizer, rate)
        paddle.seed(seed)

    def prepare(self, images, flip_mask=None):
        """Move uint8 images to the device; there mirror, scale to 0..1, resize to the input."""
        weight = self.model.head.weight
        x = paddle.to_tensor(images, place=weight.place).astype(weight.dtype)
        if flip_mask is not None:  # Paddle mirrors no uint8
            mirrored = paddle.to_tensor(flip_mask, place=weight.place)[:, None, None, None]
            x = paddle.where(mirrored, x.flip(WIDTH), x)
        x = x / 255
        sides = self.model.spec.input[1:]
        # one pixel would be the corner's: the middle one of three lies where it should
        size = [3 if side == 1 else side for side in sides]
        x = F.interpolate(x, size, mode="bilinear", align_corners=False, align_mode=0)
        middle = tuple(slice(1, 2) if side == 1 else slice(None) for side in sides)
        return x[(..., *middle)] if 1 in sides else x

    def update(self, inputs, labels, share=1.0):
        """One step; the mean loss and the number right before it, as scalars on the device."""
        self.model.train()
        labels = place_labels(self.model, labels)
        self.optimizer.clear_grad()
        with autocast(self.model):
            outputs = self.network(inputs)
        loss, logits = objective(self.model, outputs, labels, self.recipe.label_smoothing)
        parallel.scale_loss(loss, share).backward()
        # a step moves in silence what of the state lies elsewhere: where it lay is noted before
        slots = [optimizers.SLOTS[slot] for slot in self.recipe.slots()]
        states = [self.optimizer._accumulators[slot].values() for slot in slots]
        self.state_places |= {device_name(tensor) for state in states for tensor in state}
        self.optimizer.step()
        loss, logits = loss.detach(), logits.detach()
        self.seen |= {"batch": (inputs, labels), "outputs": (logits, loss)}
        return loss, count_correct(logits, labels)

    def step(self, images, labels, flip_mask=None, share=1.0):
        """One step on uint8 images, some of them mirrored."""
        return self.update(self.prepare(images, flip_mask), labels, share)

    def logits(self, images):
        """The logits of uint8 images in evaluation mode, in the weights' dtype."""
        self.model.eval()
        with paddle.no_grad(), autocast(self.model):
            logits, _ = logits_of(self.model, self.model(self.prepare(images)))
            return logits

    def evaluate(self, batches):
        """The mean loss and the accuracy over all batches."""
        parallel.sync_batch_norm_stats(self.model)
        loss, right, count = 0, 0, 0
        for images, labels in batches:
            logits, labels = self.logits(images), place_labels(self.model, labels)
            loss += cross_entropy(logits, labels) * len(labels)
            right += count_correct(logits, labels)
            count += len(labels)
        self.seen["evaluation"] = (logits, labels, loss, right)
        return float(loss) / count, float(right) / count

    def predict(self, images):
        """The probabilities (N, classes) of uint8 images, as a NumPy array."""
        return F.softmax(self.logits(images)).numpy()

    def read_state(self):
        """The optimizer's state by slot and canonical name."""
        return optimizers.read_state(self.optimizer, self.model, self.recipe)

    def write_state(self, state, steps):
        """Take over a canonical state, as it was after that many steps."""
        optimizers.write_state(self.optimizer, self.model, self.recipe, state, steps)

    def places(self):
        """The devices that the last tensors of a step, and of an evaluation, really lay on."""
        trained = optimizers.trained(self.model).values()
        found = {
            "parameters": list(self.model.state_dict().values()),
            "gradients": [p.grad for p in trained if p.grad is not None],
            "state": [],
            **self.seen,
        }
        places = {what: {device_name(tensor) for tensor in found[what]} for what in found}
        return {**places, "state": self.state_places}


def count_correct(logits, labels):
    """How many of the largest logits are the labels', as a scalar on the device."""
    return (logits.argmax(1) == labels).sum()

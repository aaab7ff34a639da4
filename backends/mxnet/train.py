"""Training in MXNet Gluon: mixed precision, one step, evaluation.

Gluon's conventions: operations are queued and an error may show up later; `autograd.record` is
training mode; `Trainer.update(n)` divides the gradients by n; a batch norm updates its running
statistics in the backward pass.
"""

from collections.abc import Iterable
from typing import Any

import mxnet as mx
import numpy
from mxnet import autograd, gluon, np, npx
from mxnet.contrib import amp

from backends.mxnet import optimizers, parallel
from backends.mxnet.device import native_device, place_labels
from backends.mxnet.googlenet import GoogLeNet
from common.device import has_avx512
from common.errors import DeviceError
from common.recipe import Recipe
from common.spec import Spec
from common.weights import Weights

WIDTH = 3  # the axis of NCHW


def build(spec: Spec, dtype: str, device: str) -> GoogLeNet:
    """The network on the device: `float32`, `float64`, or `bfloat16` for mixed precision.

    Mixed precision keeps float32 weights; `contrib.amp` chooses what is computed in bfloat16.
    DeviceError for mixed precision on a GPU or on a processor without AVX-512.
    """
    model = GoogLeNet(spec)
    model.mixed = dtype == "bfloat16"
    if model.mixed and device != "cpu":
        raise DeviceError(
            f"MXNet 1.9.1 has bfloat16 on a CPU only: use `--precision float32` on {device}."
        )
    if model.mixed and not has_avx512():
        raise DeviceError(
            "MXNet 1.9.1 has bfloat16 on processors with AVX-512 only: use `--precision float32`."
        )
    weights, context = "float32" if model.mixed else dtype, native_device(device)
    model.cast(weights)
    model.initialize(ctx=context)
    model(np.zeros((1, *spec.input), weights, ctx=context))  # layers learn their shapes
    return model


def autocast(model: GoogLeNet) -> gluon.HybridBlock:
    """What runs the model, hybridized: itself, or for mixed precision its graph with casts.

    The graph holds the model's own parameters; `amp.init` would pass over NumPy operations.
    """
    network = model
    if model.mixed:
        x = mx.sym.var("x", dtype="float32").as_np_ndarray()
        outputs = mx.sym.Group(model(x)) if model.spec.auxiliary else model(x)
        graph = amp.convert_symbol(outputs, "bfloat16", data_names=["x"]).as_np_ndarray()
        network = gluon.SymbolBlock(graph, x, params=model.collect_params())
    network.hybridize(static_alloc=True, static_shape=True)  # a step takes 8 % less
    return network


def split_logits(model: GoogLeNet, outputs: Any) -> tuple[np.ndarray, list[np.ndarray]]:
    """The logits, then a list of those of the auxiliary heads, all in the weights' dtype."""
    logits, *aux_logits = outputs if model.spec.auxiliary else [outputs]  # amp ends in float32
    return logits, aux_logits


#: one loss per example, from logits (which Gluon means by its default `from_logits=False`)
cross_entropies = gluon.loss.SoftmaxCrossEntropyLoss()


def cross_entropy(logits: np.ndarray, labels: np.ndarray, smoothing: float = 0.0) -> np.ndarray:
    """The mean loss; Gluon's has no label smoothing."""
    hard = cross_entropies(logits, labels).mean()
    uniform = -npx.log_softmax(logits).mean()  # the loss of a target that is equal for all classes
    return (1 - smoothing) * hard + smoothing * uniform


def objective(
    model: GoogLeNet, outputs: Any, labels: np.ndarray, smoothing: float = 0.0
) -> tuple[np.ndarray, np.ndarray]:
    """The mean loss, with the share of each auxiliary head's; and the logits."""
    logits, aux_logits = split_logits(model, outputs)
    loss = cross_entropy(logits, labels, smoothing)
    for row, side in zip(model.spec.auxiliary, aux_logits, strict=True):
        loss = loss + row.share * cross_entropy(side, labels, smoothing)
    return loss, logits


class Trainer:
    """One optimizer over the model's parameters, on the model's device."""

    def __init__(self, model: GoogLeNet, recipe: Recipe) -> None:
        self.model, self.recipe = model, recipe
        self.network = autocast(model)
        self.optimizer = optimizers.make(model, recipe)
        self.earlier: list[np.ndarray] = []  # the gradients of the batch's parts until now

    def set_step(self, rate: float, seed: int) -> None:
        """The learning rate of the next step, and the seed of its dropout."""
        optimizers.set_rate(self.optimizer, rate)
        mx.random.seed(seed, self.model.head.weight.list_ctx()[0])

    def prepare(self, images: numpy.ndarray, flip_mask: numpy.ndarray | None = None) -> np.ndarray:
        """Move uint8 images to the device; there mirror, scale to 0..1, resize to the input."""
        weight = self.model.head.weight
        x = np.array(images, "uint8", ctx=weight.list_ctx()[0])
        if flip_mask is not None:
            mirrored = np.array(flip_mask, "bool", ctx=x.ctx).reshape(-1, 1, 1, 1)
            x = np.where(mirrored, np.flip(x, WIDTH), x)
        x = x.astype(weight.dtype) / 255
        size = self.model.spec.input[1:]
        # for a size of one pixel MXNet takes the corner: the middle one of three is at the centre
        height, width = (3 if side == 1 else side for side in size)
        x = mx.nd.contrib.BilinearResize2D(  # is not among the NumPy operations
            x.as_nd_ndarray(), height=height, width=width, align_corners=False
        ).as_np_ndarray()
        middle = tuple(slice(1, 2) if side == 1 else slice(None) for side in size)
        return x[(..., *middle)] if 1 in size else x

    def train_step(
        self, inputs: np.ndarray, labels: np.ndarray, weight: float = 1.0, last: bool = True
    ) -> tuple[np.ndarray, np.ndarray]:
        """One step; the mean loss and the number correct before it, as scalars on the device."""
        with autograd.record():
            outputs = self.network(inputs)
            loss, logits = objective(self.model, outputs, labels, self.recipe.label_smoothing)
            scaled = parallel.scale_loss(loss, weight)
        scaled.backward()
        if self.earlier or not last:  # the batch has several parts
            # not by `grad_req = "add"`, with which mixed precision leaves the gradients at zero
            gradients = [parameter.grad() for parameter in optimizers.trained(self.model).values()]
            for gradient, earlier in zip(gradients, self.earlier, strict=False):
                gradient += earlier
            self.earlier = [] if last else [gradient.copy() for gradient in gradients]
        if last:
            self.optimizer.allreduce_grads()
            optimizers.clip_gradients(self.model, self.recipe.clip)
            self.optimizer.update(1)  # the loss is a mean already
        return loss.detach(), count_correct(logits, labels)

    def logits(self, images: numpy.ndarray) -> np.ndarray:
        """The logits of uint8 images in evaluation mode, in the weights' dtype."""
        logits, _ = split_logits(self.model, self.network(self.prepare(images)))
        return logits

    def evaluate(
        self, batches: Iterable[tuple[numpy.ndarray, numpy.ndarray]]
    ) -> tuple[np.ndarray, np.ndarray, int]:
        """The summed loss and the number correct, on the device; and how many examples."""
        parallel.sync_batch_norm_stats(self.model)
        loss, correct, count = 0, 0, 0
        for images, labels in batches:
            logits, labels = self.logits(images), place_labels(self.model, labels)
            loss += cross_entropies(logits, labels).sum()
            correct += count_correct(logits, labels)
            count += len(labels)
        return loss, correct, count

    def predict(self, images: numpy.ndarray) -> numpy.ndarray:
        """The probabilities (N, classes) of uint8 images, as a NumPy array."""
        return npx.softmax(self.logits(images)).asnumpy()

    def read_state(self) -> dict[str, Weights]:
        """The optimizer's state by slot and canonical name."""
        return optimizers.read_state(self.optimizer, self.model, self.recipe)

    def write_state(self, state: dict[str, Weights], steps: int) -> None:
        """Take over a canonical state, as it was after that many steps."""
        optimizers.write_state(self.optimizer, self.model, self.recipe, state, steps)


def count_correct(logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """How many of the largest logits are the labels', as a scalar on the device."""
    return (logits.argmax(axis=1).astype("int64") == labels).sum()

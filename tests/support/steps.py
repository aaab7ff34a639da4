"""Steps and evaluations of a backend from NumPy arrays, in a line each."""

import numpy as np


def as_numpy(native):
    """A native tensor as a NumPy array."""
    if hasattr(native, "detach") and not hasattr(native, "asnumpy"):
        native = native.detach()  # PyTorch's and Paddle's may want a gradient
    return native.asnumpy() if hasattr(native, "asnumpy") else np.asarray(native)


def channels_first(native):
    """A native batch of grey images as a NumPy array (N, 1, H, W)."""
    got = as_numpy(native)
    return np.moveaxis(got, -1, 1) if got.shape[1] != 1 else got


def step(backend, trainer, x, labels, weight=1.0, last=True):
    """One step on a float batch (N, C, H, W); the loss and the number correct, native."""
    inputs = backend.place(trainer.model, x)
    return trainer.train_step(inputs, backend.place_labels(trainer.model, labels), weight, last)


def step_in_parts(backend, trainer, x, labels):
    """One step on a batch, as the loop divides it by the recipe; the mean loss."""
    parts, loss = np.array_split(np.arange(len(x)), min(trainer.recipe.accumulate, len(x))), 0.0
    for part in parts:
        weight = len(part) / len(x)
        found, _ = step(backend, trainer, x[part], labels[part], weight, part is parts[-1])
        loss += weight * float(found)
    return loss


def step_on_images(backend, trainer, images, labels, flip_mask=None):
    """One step on uint8 images, some of them mirrored; the loss and the number correct, native."""
    inputs = trainer.prepare(images, flip_mask)
    return trainer.train_step(inputs, backend.place_labels(trainer.model, labels))


def evaluate(trainer, batches):
    """The mean loss and the accuracy over batches of uint8 images and labels."""
    loss, correct, count = trainer.evaluate(batches)
    return float(loss) / count, float(correct) / count

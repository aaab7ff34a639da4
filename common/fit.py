"""The epoch loop that every backend shares: batches in, metrics and a progress bar out."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tqdm import tqdm

from common.contract import Backend
from common.data import Dataset, batches
from common.errors import DeviceError
from common.recipe import Recipe
from common.spec import Spec
from common.weights import draw

EVALUATION_BATCH = 256  # images; the result does not depend on it
REFRESH = 10  # steps between two looks at the metrics, each of which waits for the device


@dataclass(frozen=True)
class Epoch:
    """What one epoch came to: mean training loss and accuracy while it ran, then the test set's."""

    number: int
    loss: float
    train_accuracy: float
    test_loss: float
    test_accuracy: float
    seconds: float  # of training alone


@dataclass(frozen=True)
class Run:
    """A finished training run."""

    epochs: list[Epoch]
    examples_per_second: float
    device: str
    places: dict[str, set[str]]


def fit(
    backend: Backend,
    spec: Spec,
    recipe: Recipe,
    data: Dataset,
    device: str,
    report: Callable[[Epoch], None] = lambda epoch: None,
) -> Run:
    """Train from the canonical initial weights of the recipe's seed.

    The same seed gives the same weights and the same batches in every backend. DeviceError if
    anything of the last step lay elsewhere than on the device.
    """
    model = backend.build(spec, "float32", device)
    backend.write_weights(model, draw(spec, recipe.seed))
    trainer = backend.Trainer(model, recipe)
    epochs = []
    for number in range(recipe.epochs):
        epoch = _epoch(trainer, recipe, data, number)
        epochs.append(epoch)
        report(epoch)
    seconds = sum(epoch.seconds for epoch in epochs)
    speed = len(epochs) * len(data.train_labels) / seconds
    places = trainer.places()
    elsewhere = [what for what, found in places.items() if found - {device}]
    if elsewhere:
        raise DeviceError(f"{', '.join(elsewhere)} did not lie on {device}, which was chosen.")
    return Run(epochs, speed, device, places)


def _epoch(trainer: Any, recipe: Recipe, data: Dataset, number: int) -> Epoch:
    count = len(data.train_labels)
    loss, right, seen = 0, 0, 0  # the first two live on the device
    with tqdm(
        total=count,
        desc=f"epoch {number + 1}/{recipe.epochs}",
        unit=" examples",
        disable=not sys.stderr.isatty(),
        leave=False,
    ) as bar:
        start = time.perf_counter()
        order = batches(count, recipe.batch_size, recipe.seed, number)
        for step, indices in enumerate(order):
            images, labels = data.train_images[indices], data.train_labels[indices]
            batch_loss, batch_right = trainer.step(images, labels)
            loss, right = loss + batch_loss * len(indices), right + batch_right
            seen += len(indices)
            if step % REFRESH == 0 and not bar.disable:
                bar.set_postfix(loss=f"{float(loss) / seen:.3f}", acc=f"{float(right) / seen:.3f}")
            bar.update(len(indices))
        mean_loss, accuracy = float(loss) / count, float(right) / count  # waits for the device
        seconds = time.perf_counter() - start
    slices = [
        slice(at, at + EVALUATION_BATCH) for at in range(0, len(data.test_labels), EVALUATION_BATCH)
    ]
    test_loss, test_accuracy = trainer.evaluate(
        (data.test_images[part], data.test_labels[part]) for part in slices
    )
    return Epoch(number + 1, mean_loss, accuracy, test_loss, test_accuracy, seconds)

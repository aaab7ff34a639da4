"""The speed of a training step: the book's loop and ours, turn about in one process.

Timings on a shared machine drift, so the loops take turns, round by round, and a ratio is taken
within a round. The batch is drawn and already resized: what is timed is the step, with moving the
batch to the device.
"""

from __future__ import annotations

import importlib
import os
import platform
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from tabulate import tabulate

from backends import load
from common.arithmetic import layers
from common.contract import Backend
from common.device import choose, enough_memory
from common.doctor import processor
from common.errors import DeviceError, SpecError
from common.recipe import PRECISIONS, Recipe
from common.weights import draw

BOOK = "as published"

Step = Callable[[], Any]  #: one training step; gives its loss, which may still be on its way


@dataclass(frozen=True)
class Row:
    """One loop: examples a second over the rounds, and the median ratio to the book's."""

    backend: str
    version: str
    loop: str
    precision: str
    device: str
    batch_size: int
    size: int
    median: float
    lowest: float
    highest: float
    ratio: float


def bench(name: str, recipe: Recipe, requested: str, rounds: int, steps: int) -> dict[str, Any]:
    """`rounds` turns of every loop, `steps` steps each; the machine and a `Row` for each loop.

    On the device: the book's loop in float32, ours in float32, and ours in bfloat16 where the
    framework has it. The first step of each is not counted. SpecError for an image that is too
    small, and for auxiliary heads, which the book's loop knows nothing of.
    """
    if requested == "cpu":
        os.environ["CUDA_VISIBLE_DEVICES"] = "-1"  # some frameworks would use one all the same
    spec = recipe.network()
    layers(spec)
    if spec.auxiliary:
        raise SpecError(f"{spec.name} has auxiliary heads: give `--spec` a network without them.")
    backend = load(name)
    device = choose(requested, backend.devices())
    random = np.random.RandomState(0)
    images = random.uniform(0, 1, (recipe.batch_size, *spec.input)).astype(np.float32)
    labels = random.randint(0, spec.head.width, recipe.batch_size).astype(np.int64)
    with enough_memory(backend, device, recipe.batch_size, "a smaller `--batch-size`"):
        book = importlib.import_module(f"benchmarks.published.{name}").Published(spec, device)
        loops: dict[tuple[str, str], Step] = {
            (BOOK, "float32"): lambda: book.step(images, labels)[0]
        }
        for precision in PRECISIONS:
            own = replace(recipe, precision=precision)
            with suppress(DeviceError):  # no bfloat16 there
                loops["ours", precision] = ours(backend, own, device, images, labels)
        for step in loops.values():
            turn(step, 1)
        seconds = np.array([[turn(step, steps) for step in loops.values()] for _ in range(rounds)])
    speeds = recipe.batch_size * steps / seconds
    rows = [
        Row(
            backend=name,
            version=backend.VERSION,
            loop=loop,
            precision=precision,
            device=device,
            batch_size=recipe.batch_size,
            size=recipe.size,
            median=round(float(np.median(speeds[:, at])), 1),
            lowest=round(float(speeds[:, at].min()), 1),
            highest=round(float(speeds[:, at].max()), 1),
            ratio=round(float(np.median(speeds[:, at] / speeds[:, 0])), 2),
        )
        for at, (loop, precision) in enumerate(loops)
    ]
    return {"machine": machine(), "rows": [asdict(row) for row in rows]}


def ours(
    backend: Backend, recipe: Recipe, device: str, images: np.ndarray, labels: np.ndarray
) -> Step:
    """Our step, which gives the loss where it lies: on the device."""
    spec = recipe.network()
    model = backend.build(spec, recipe.precision, device)
    backend.write_weights(model, draw(spec, recipe.seed))
    trainer = backend.Trainer(model, recipe)
    return lambda: trainer.update(backend.place(model, images), labels)[0]


def turn(step: Step, steps: int) -> float:
    """The seconds of so many steps, until the last one's loss is here."""
    start = time.perf_counter()
    for _ in range(steps):
        loss = step()
    float(loss)
    return time.perf_counter() - start


def machine() -> str:
    """The processor and what of it may be used, in one line."""
    chip = processor()
    best = chip["instructions"][-1:] or ["no instruction sets that are known here"]
    return f"{chip['name']}, {chip['usable']} cores, up to {best[0]}, {platform.system()}"


def render(found: dict[str, Any]) -> str:
    """The rows as text."""
    rows = [
        (
            row["loop"],
            row["precision"],
            row["median"],
            f"{row['lowest']} to {row['highest']}",
            row["ratio"],
        )
        for row in found["rows"]
    ]
    first = found["rows"][0]
    head = (
        f"{first['backend']} {first['version']} on {first['device']}, batch {first['batch_size']} "
        f"at {first['size']} pixels; {found['machine']}"
    )
    heads = ("loop", "precision", "examples/s", "range", "ratio")
    return f"{head}\n{tabulate(rows, heads)}"

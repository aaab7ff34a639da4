"""The training loop that all backends share: batches in; metrics, checkpoints and history out."""

from __future__ import annotations

import math
import signal
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from copy import deepcopy
from typing import Any

import numpy as np

from common import terminal
from common.contract import Backend
from common.data.dataset import Dataset
from common.data.sampling import batches, flip_mask, shard
from common.device import enough_memory
from common.errors import DeviceError, DivergedError, RunError, Stopped
from common.training.checkpoint import Checkpoint, Progress, same_data
from common.training.history import Epoch
from common.training.run import Run

EVALUATION_BATCH = 256  # at most; the result does not depend on it
LOG_EVERY = 20  # steps between metric syncs; each of them waits for the device
SIGNAL_POLL_SECONDS = 2.0  # several workers poll for signals about this often

#: of each part of a batch: images, labels, flip mask or None, this worker's fraction of the batch
Batch = list[tuple[np.ndarray, np.ndarray, np.ndarray | None, float]]


class TrainingLoop:
    """One run in one backend, from a checkpoint to the last epoch.

    The same checkpoint gives the same weights, the same batches in the same order and the same
    mirrored images in every backend; the first checkpoint is the initial weights of the seed.
    Several workers divide every batch among them, so their number does not change the run.
    """

    def __init__(
        self,
        backend: Backend,
        name: str,
        checkpoint: Checkpoint,
        data: Dataset,
        device: str,
        run: Run | None = None,
        report: Callable[[Epoch], None] = lambda epoch: None,
        stop: Callable[[], int] = lambda: 0,
        save_every: float = math.inf,
        rank: int = 0,
        workers: int = 1,
    ) -> None:
        """`report` is called after each epoch. `stop` returns a received signal's number, or 0.

        With a `run`, checkpoints are written after each epoch, after `save_every` seconds and when
        stopped. Of several workers only the first has a run. RunError if the data is not what the
        checkpoint was trained on.
        """
        self.config, self.progress = checkpoint.config, deepcopy(checkpoint.progress)
        if not same_data(self.config, data):
            raise RunError(
                f"The images in {data.source} are not those that this run was begun with: give "
                "their folder with `--data`."
            )
        self.recipe = self.config.recipe
        self.backend, self.name, self.device, self.data = backend, name, device, data
        self.run, self.report, self.stop, self.save_every = run, report, stop, save_every
        self.rank, self.workers = rank, workers
        self.log_every = LOG_EVERY if workers == 1 else 1
        self.steps_an_epoch = self.recipe.steps_an_epoch(len(data.train_labels))
        with self.memory():
            self.model = backend.build(self.config.network(), self.recipe.precision, device)
            backend.write_weights(self.model, checkpoint.weights)
            self.trainer = backend.Trainer(self.model, self.recipe)
            if checkpoint.state:
                self.trainer.write_state(checkpoint.state, self.progress.steps)
        # of the steps since the last sync, of each part: loss and number correct, on the device,
        # and the weight
        self.pending: list[list[tuple[Any, Any, float]]] = []
        self.last: dict[str, tuple[Any, ...]] = {}  # native tensors of the last step and evaluation
        self.saved = self.synced = time.monotonic()

    def __call__(self) -> Progress:
        """Train to the end.

        DeviceError if a tensor of the first step is not on the chosen device, DivergedError if a
        loss is not finite, OutOfMemoryError with a batch size to try, Stopped after a signal.
        """
        for number in range(len(self.progress.epochs), self.recipe.epochs):
            with self.memory():
                self.train(number)
                test_loss, test_accuracy = self.evaluate()
            self.finish(number, test_loss, test_accuracy)
        return self.progress

    def train(self, number: int) -> None:
        """Train the remaining steps of an epoch."""
        progress, recipe = self.progress, self.recipe
        count, steps = len(self.data.train_labels), self.steps_an_epoch
        shown = terminal.progress(
            f"epoch {number + 1}/{recipe.epochs}",
            count,
            min(count, len(progress.losses) * recipe.batch_size),
            "examples",
            quiet=self.rank > 0,
        )
        with shown as bar, ThreadPoolExecutor(1) as pool:
            start, seconds, wait = time.perf_counter(), progress.seconds, progress.wait
            order = self.train_batches(number, progress.steps - number * steps)
            next_batch = pool.submit(next, order, None)
            while True:
                asked = time.perf_counter()
                batch = next_batch.result()
                wait += time.perf_counter() - asked
                if batch is None:
                    break
                next_batch = pool.submit(next, order, None)  # is read while the step runs
                self.step(batch)
                bar.advance(
                    min(
                        recipe.batch_size,
                        count - recipe.batch_size * ((progress.steps - 1) % steps),
                    )
                )
                signum = self.stop() if self.workers == 1 else 0  # several poll in `sync_metrics`
                if signum or len(self.pending) >= self.log_every or progress.steps % steps == 0:
                    signum = self.sync_metrics(signum)
                    progress.places = self.check_devices()
                    progress.wait = wait
                    progress.seconds = seconds + time.perf_counter() - start
                    done = len(progress.losses) * recipe.batch_size
                    bar.advance(
                        0,
                        f"loss {np.mean(progress.losses):.3f}, "
                        f"acc {progress.right / min(done, count):.3f}",
                    )
                    if signum or time.monotonic() - self.saved > self.save_every:
                        self.save()
                        start, seconds = time.perf_counter(), progress.seconds
                    self.raise_if_stopped(signum)

    def step(self, batch: Batch) -> None:
        """One optimizer step; its metrics stay on the device until `sync_metrics`."""
        progress, recipe = self.progress, self.recipe
        rate = recipe.rate(progress.steps, recipe.epochs * self.steps_an_epoch)
        seed = recipe.seed + 1_000_003 * progress.steps + 15_485_863 * self.rank
        self.trainer.set_step(rate, seed % 2**31)
        first = not self.last  # of this process: a resumed run may begin with an evaluation
        if first:
            self.check_devices()  # the step would move an optimizer's state from a wrong device
        self.pending.append([])
        for number, (images, labels, mirrored, weight) in enumerate(batch, 1):
            inputs = self.trainer.prepare(images, mirrored)
            native_labels = self.backend.place_labels(self.model, labels)
            last = number == len(batch)
            loss, correct = self.trainer.train_step(inputs, native_labels, weight, last)
            self.last |= {"batch": (inputs, native_labels), "outputs": (loss, correct)}
            self.pending[-1].append((loss, correct, weight))
        progress.steps += 1
        if first:
            self.check_devices()

    def sync_metrics(self, signum: int) -> int:
        """Wait for the metrics of the last steps; DivergedError for one that is not finite.

        Several workers sum them. They also agree here on a signal that one of them got, and on the
        number of steps until the next sync.
        """
        progress = self.progress
        losses = [sum(weight * float(loss) for loss, _, weight in parts) for parts in self.pending]
        counted = ((correct, weight) for parts in self.pending for _, correct, weight in parts)
        correct = sum(int(correct) for correct, weight in counted if weight)
        if self.workers > 1:
            signum = self.stop()
            received = [float(signum == each) for each in (signal.SIGTERM, signal.SIGINT)]
            now = time.monotonic()
            numbers = np.array([*losses, correct, *received, now - self.synced])
            found = self.backend.all_reduce_sum(numbers)
            *losses, correct, terminated, interrupted, seconds = found.tolist()
            signum = signal.SIGTERM if terminated else signal.SIGINT if interrupted else 0
            pace = seconds / self.workers / len(losses)
            self.log_every = min(LOG_EVERY, 1 + int(SIGNAL_POLL_SECONDS / max(pace, 0.01)))
            self.synced = now
        for value in losses:
            if not math.isfinite(value):
                step = len(progress.losses) + 1
                where = f"step {step} of epoch {len(progress.epochs) + 1}"
                raise self.diverged(f"The loss became {value} at {where}")
            progress.losses.append(value)
        progress.right += int(correct)
        self.pending.clear()
        return signum

    def evaluate(self) -> tuple[float, float]:
        """Return the mean loss and the accuracy over the test set."""
        part, weight = shard(np.arange(len(self.data.test_labels)), self.rank, self.workers)
        batches = self.test_batches(part[0], part[-1] + 1)
        loss, correct, count = self.trainer.evaluate(batches)
        self.last["evaluation"] = (loss, correct)
        means = np.array([float(loss), float(correct)]) / count
        if self.workers > 1:
            means = self.backend.all_reduce_sum(weight * means)
        loss, accuracy = means.tolist()
        return loss, accuracy

    def finish(self, number: int, test_loss: float, test_accuracy: float) -> None:
        """Add the epoch to the history, and save."""
        progress, count = self.progress, len(self.data.train_labels)
        if not math.isfinite(test_loss):
            raise self.diverged(f"The test loss became {test_loss} after epoch {number + 1}")
        sizes = [len(indices) for indices in self.order(number)]
        epoch = Epoch(
            number=number + 1,
            loss=float(np.average(progress.losses, weights=sizes)),
            train_accuracy=progress.right / count,
            test_loss=test_loss,
            test_accuracy=test_accuracy,
            examples=count,
            seconds=progress.seconds,
            wait=progress.wait,
            backend=self.name,
            version=self.backend.VERSION,
            device=self.device,
            places=progress.places | {w: on for w, on in self.check_devices().items() if on},
            losses=tuple(progress.losses),
        )
        best = all(epoch.test_accuracy > other.test_accuracy for other in progress.epochs)
        self.progress = Progress(progress.steps, [*progress.epochs, epoch])
        self.save(best)
        if self.run:
            self.run.record(self.progress.epochs)
        self.report(epoch)

    def checkpoint(self) -> Checkpoint:
        """Return the current state of the run in canonical form."""
        weights = self.backend.read_weights(self.model)
        return Checkpoint(self.config, weights, self.trainer.read_state(), deepcopy(self.progress))

    def save(self, best: bool = False) -> None:
        """Write the last checkpoint, and also the best one if `best`.

        DivergedError if a weight is not finite.
        """
        if not self.run:
            return
        now = self.checkpoint()
        for name, array in now.weights.items():
            if not np.isfinite(array).all():
                raise self.diverged(f"{name} is no longer finite after step {self.progress.steps}")
        if best:  # first: a run killed in between repeats the end of this epoch
            self.run.save(now, "best")
        self.run.save(now)
        self.saved = time.monotonic()

    def diverged(self, what: str) -> DivergedError:
        """Return the error for numbers that are not finite."""
        kept = f"; what was saved before is in {self.run.folder}" if self.run else ""
        return DivergedError(f"{what}{kept}: a smaller `--lr` may help.")

    def raise_if_stopped(self, signum: int) -> None:
        """Raise Stopped if a signal was received."""
        if signum:
            way_on = f"; go on with `--resume {self.run.folder}`" if self.run else ""
            raise Stopped(f"stopped after step {self.progress.steps}{way_on}.", signum)

    def check_devices(self) -> dict[str, list[str]]:
        """Return the devices of the last step's tensors; DeviceError if one is wrong."""
        found = self.backend.tensor_devices(self.trainer)
        found |= {
            what: {self.backend.device_name(tensor) for tensor in tensors}
            for what, tensors in self.last.items()
        }
        places = {what: sorted(devices) for what, devices in found.items()}
        stepped = "outputs" in self.last
        for what, devices in places.items():
            elsewhere = sorted(set(devices) - {self.device})
            if elsewhere or (not devices and what != "state" and stepped):
                where = ", ".join(elsewhere) or "no device"
                raise DeviceError(
                    f"{what}: on {where}, and not on {self.device}, which was chosen."
                )
        return places

    def order(self, number: int) -> Iterator[np.ndarray]:
        """Return the indices of each batch of an epoch."""
        recipe = self.recipe
        return batches(len(self.data.train_labels), recipe.batch_size, recipe.seed, number)

    def train_batches(self, number: int, done: int) -> Iterator[Batch]:
        """Yield the batches of an epoch, without the first `done`.

        A batch is divided into the recipe's parts first, and each part among the workers: so the
        parts are the same for any number of workers.
        """
        data, recipe = self.data, self.recipe
        count = len(data.train_labels)
        mirrored = flip_mask(count, recipe.seed, number) if recipe.flip else None
        for step, indices in enumerate(self.order(number)):
            if step < done:
                continue
            batch: Batch = []
            for piece in np.array_split(indices, min(recipe.accumulate, len(indices))):
                part, weight = shard(piece, self.rank, self.workers)
                weight *= len(piece) / len(indices)
                chosen = None if mirrored is None else mirrored[part]
                batch.append((data.train_images[part], data.train_labels[part], chosen, weight))
            yield batch

    def test_batches(self, first: int, end: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yield the test examples from `first` up to `end`, exclusive, in order.

        A single worker polls for signals between batches; several poll at their next metric sync.
        """
        images, labels = self.data.test_images, self.data.test_labels
        size = min(EVALUATION_BATCH, self.recipe.batch_size)  # not above training's batch
        for at in range(first, end, size):
            if self.workers == 1 and (signum := self.stop()):
                self.save()
                self.raise_if_stopped(signum)
            part = slice(at, min(at + size, end))
            yield images[part], labels[part]

    def memory(self) -> AbstractContextManager[None]:
        """Return a context that turns a lack of memory into an error with a batch size to try."""
        size = self.recipe.batch_size
        way_out = f"`--batch-size {size // 2}`" if size > 1 else "a smaller `--size`"
        return enough_memory(self.backend.out_of_memory, self.device, size, way_out)

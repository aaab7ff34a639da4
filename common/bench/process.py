"""One training loop of the benchmark in a process of its own."""

from __future__ import annotations

import multiprocessing
import os
import signal
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from backends import load, load_module
from common.data.dataset import Dataset
from common.device import choose, enough_memory
from common.errors import BackendError, GoogLeNetError, OutOfMemoryError
from common.recipe import Recipe
from common.spec import Spec
from common.training.checkpoint import Checkpoint, Config
from common.training.loop import TrainingLoop

if TYPE_CHECKING:
    from common.contract import Backend


BOOK, PEER, OURS = "as published", "package's own", "ours"

SIDES = {"cpu": 4096, "gpu": 8192}  # of the square matrices that the peak is measured with


@dataclass(frozen=True)
class Loop:
    """What a process is to run: the book's step, a peer's, or ours."""

    kind: str
    backend: str
    recipe: Recipe
    spec: Spec
    requested: str  #: device
    threads: int | None

    def inputs(self) -> tuple[np.ndarray, np.ndarray]:
        """The drawn batch, the same for all loops: float32 (N, C, H, W) and int64 (N,)."""
        random, count = np.random.RandomState(0), self.recipe.batch_size
        images = random.uniform(0, 1, (count, *self.spec.input)).astype(np.float32)
        return images, random.randint(0, self.spec.head.width, count).astype(np.int64)


class Runner:
    """A loop in the process that it runs in."""

    def __init__(self, loop: Loop, data: Dataset) -> None:
        """Make the network and take the first step; `data` is for our loop alone."""
        if loop.requested == "cpu":
            os.environ["CUDA_VISIBLE_DEVICES"] = "-1"  # some frameworks use one all the same
        self.size = loop.recipe.batch_size
        if loop.kind == OURS:
            self.backend = load(loop.backend)
        else:  # without what `load` sets for a whole process: it is not the book's
            baseline = load_module(loop.backend, f"benchmarks.baselines.{loop.backend}")
            self.backend = cast("Backend", load_module(loop.backend, f"backends.{loop.backend}"))
        self.device = choose(loop.requested, self.backend.devices())
        self.precision = loop.recipe.precision
        self.probes = load_module(loop.backend, f"benchmarks.probes.{loop.backend}")
        images, labels = loop.inputs()
        self.loop: TrainingLoop | None = None
        with self.enough_memory():
            if loop.kind == OURS:
                checkpoint = Checkpoint.first(Config.of(loop.recipe, loop.backend, data))
                self.loop = TrainingLoop(self.backend, loop.backend, checkpoint, data, self.device)
                self.step: Callable[[], Any] = lambda: self.train_step(images, labels)
            else:
                made = baseline.Peer if loop.kind == PEER else baseline.Published
                book = made(loop.spec, self.device, loop.recipe.lr)
                self.step = lambda: book.step(images, labels)[0]
        self.first = self.turn(1)

    def train_step(self, images: np.ndarray, labels: np.ndarray) -> Any:
        """Our step on a float batch; its loss."""
        assert self.loop
        inputs = self.backend.place(self.loop.model, images)
        return self.loop.trainer.train_step(
            inputs, self.backend.place_labels(self.loop.model, labels)
        )[0]

    def enough_memory(self) -> Any:
        """A context that turns too little memory into an error of one sentence."""
        return enough_memory(
            self.backend.out_of_memory, self.device, self.size, "a smaller `--batch-size`"
        )

    def about(self) -> dict[str, Any]:
        """The version, the device, what a GPU is called, and the seconds of the first step."""
        gpu = None if self.device == "cpu" else self.probes.label(self.device)
        facts = {"version": self.backend.VERSION, "device": self.device}
        return {**facts, "gpu": gpu, "first": self.first}

    def turn(self, steps: int) -> float:
        """The seconds of so many steps, until the last one's loss is here and all work is done."""
        with self.enough_memory():
            start = time.perf_counter()
            for _ in range(steps):
                loss = self.step()
            float(loss)
            self.probes.wait(self.device)
            return time.perf_counter() - start

    def epoch(self) -> tuple[float, float]:
        """The seconds of an epoch of `train`'s loop, and those of them that it waited for images.

        The data set is as large as an epoch is to be.
        """
        assert self.loop
        with self.enough_memory():
            start = time.perf_counter()
            self.loop.train(len(self.loop.progress.epochs))
            self.probes.wait(self.device)
            seconds, wait = time.perf_counter() - start, self.loop.progress.wait
        self.loop.finish(len(self.loop.progress.epochs), 0.0, 0.0)
        return seconds, wait

    def memory(self) -> tuple[int | None, int | None]:
        """The peak so far, in bytes: resident, and on the GPU."""
        found = self.probes.peak_memory(self.device)
        try:  # not `ru_maxrss` on Linux: it begins with the peak of the process that started this
            lines = Path("/proc/self/status").read_text().splitlines()
            (peak,) = [line for line in lines if line.startswith("VmHWM:")]
            return int(peak.split()[1]) * 1024, found
        except (OSError, ValueError):
            return None, found

    def peak(self, side: int) -> float:
        """Floating-point operations a second of a product of two square matrices."""
        count = 1 if self.device == "cpu" else 20
        multiply = self.probes.product(side, self.precision, self.device)
        seconds = []
        for _ in range(4):  # the first may be slow
            start = time.perf_counter()
            for _ in range(count):
                multiply()
            self.probes.wait(self.device)
            seconds.append(time.perf_counter() - start)
        return float(2 * side**3 * count / min(seconds))

    def operators(self, steps: int) -> list[tuple[str, int, float]]:
        """Name, calls and seconds of each operator in so many steps, the slowest first."""
        found = self.probes.operators(lambda: self.turn(steps), self.device)
        return sorted(found, key=lambda row: -row[2])


class Process:
    """A `Runner` in a fresh process: its methods by name."""

    def __init__(self, loop: Loop, data: Dataset) -> None:
        """Start it; `start` is the seconds until its first step was done."""
        context = multiprocessing.get_context("spawn")
        self.loop = loop
        self.pipe, theirs = context.Pipe()
        with tempfile.NamedTemporaryFile(delete=False, prefix="bench-") as log:
            self.log = Path(log.name)
        begun = time.perf_counter()
        self.process = context.Process(target=_serve, args=(theirs, self.log), daemon=True)
        with threads(loop.threads):
            self.process.start()
        theirs.close()
        try:
            self.facts: dict[str, Any] = self._ask(loop, data)
        except BaseException:
            self.close()
            raise
        self.start = time.perf_counter() - begun

    def __call__(self, method: str, *arguments: Any) -> Any:
        """What the method gives; its refusal, or RuntimeError for any other exception."""
        return self._ask(method, arguments)

    def peak(self) -> float:
        """The peak with matrices that keep the device busy."""
        peak: float = self("peak", SIDES[self.facts["device"].partition(":")[0]])
        return peak

    def _ask(self, *words: Any) -> Any:
        try:
            self.pipe.send(words)
            found, error = self.pipe.recv()
        except (EOFError, OSError) as gone:
            self.process.join()
            status, name = self.process.exitcode or 0, f"{self.loop.backend}'s loop"
            if status == -signal.SIGKILL:  # what systems do for want of memory
                raise OutOfMemoryError(
                    f"The process of {name} was killed: try a smaller `--batch-size`."
                ) from gone
            said = self.log.read_text(errors="replace").strip().splitlines() or [""]
            raise BackendError(
                f"The process of {name} ended with status {status}: {said[-1][:200]}"
            ) from gone
        if isinstance(error, GoogLeNetError):
            raise error
        if error:
            raise RuntimeError(error)
        return found

    def close(self) -> None:
        """End it."""
        self.pipe.close()  # which ends its wait for the next word
        self.process.join(1)
        self.process.kill()
        self.process.join()
        self.log.unlink(missing_ok=True)


def _serve(pipe: Connection, log: Path) -> None:
    """Make a Runner of the first words, then answer one method after the other."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the first process ends this one
    with log.open("wb") as file:  # the frameworks' notices, shown where the process breaks
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    runner: Runner | None = None
    with suppress(EOFError, OSError):
        while True:
            words = pipe.recv()
            try:
                if runner is None:
                    runner = Runner(*words)
                    found = runner.about()
                else:
                    method, arguments = words
                    found = getattr(runner, method)(*arguments)
            except GoogLeNetError as error:
                pipe.send((None, error))
            except Exception:
                pipe.send((None, traceback.format_exc()))
            else:
                pipe.send((found, None))


@contextmanager
def threads(count: int | None) -> Iterator[None]:
    """Let processes that start meanwhile have so many threads and cores; None changes nothing."""
    if count is None:
        yield
        return
    before = os.environ.get("OMP_NUM_THREADS")
    os.environ["OMP_NUM_THREADS"] = str(count)
    bind = getattr(os, "sched_setaffinity", None)  # Linux alone has it
    cores = os.sched_getaffinity(0) if bind else set()
    try:
        if bind:
            bind(0, sorted(cores)[:count])
        yield
    finally:
        if bind:
            bind(0, cores)
        os.environ.pop("OMP_NUM_THREADS")
        if before is not None:
            os.environ["OMP_NUM_THREADS"] = before

"""Runs one training loop of the benchmark in its own process."""

from __future__ import annotations

import multiprocessing
import os
import signal
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from backends import load, load_module
from common.data.dataset import Dataset
from common.device import choose, enough_memory
from common.errors import BackendError, GoogLeNetError, OutOfMemoryError, one_line
from common.processor import processor
from common.recipe import Recipe
from common.spec import Spec
from common.training.checkpoint import Checkpoint, Config
from common.training.loop import TrainingLoop

if TYPE_CHECKING:
    from common.contract import Backend


BOOK, PEER, OURS = "as published", "package's own", "ours"
#: what a user would write today, by backend; benchmarks/baselines/ has the lines
TODAY = {
    "torch": ("torch.compile",),
    "tf": ("fit", "fit, jit_compile"),
    "mxnet": ("hybridize",),
    "paddle": ("to_static",),
}

SIDES = {"cpu": 4096, "gpu": 8192}  # of the square matrices that measure the peak
COPIED = 2**26  # float32 numbers in the copy that measures the bandwidth, more than a cache holds


@dataclass(frozen=True)
class Loop:
    """The loop that a process runs: the book's, a peer's, one of TODAY or ours."""

    kind: str
    backend: str
    recipe: Recipe
    spec: Spec
    requested: str  #: device
    threads: int | None

    def inputs(self) -> tuple[np.ndarray, np.ndarray]:
        """The drawn batch, equal in all loops: images float32 (N, C, H, W), labels int64 (N,)."""
        random, count = np.random.RandomState(0), self.recipe.batch_size
        images = random.uniform(0, 1, (count, *self.spec.input)).astype(np.float32)
        return images, random.randint(0, self.spec.head.width, count).astype(np.int64)


class Runner:
    """A loop, inside its process."""

    def __init__(self, loop: Loop, data: Dataset) -> None:
        """Make the network and take the first step; only our loop uses `data`."""
        if loop.requested == "cpu":
            os.environ["CUDA_VISIBLE_DEVICES"] = "-1"  # some frameworks use a GPU even then
        self.size = loop.recipe.batch_size
        if loop.kind == OURS:
            self.backend = load(loop.backend)
        else:  # not by `load`, whose settings for the whole process the book does not have
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
                self.steps = repeated(lambda: self.train_step(images, labels))
            else:
                own = loop.kind != BOOK and hasattr(baseline, "Peer")
                made = baseline.Peer if own else baseline.Published
                book = made(loop.spec, self.device, loop.recipe.lr)
                self.steps = repeated(lambda: book.step(images, labels)[0])
        with may_not_run(loop.kind):
            if loop.kind in TODAY[loop.backend]:
                baseline.TODAY[loop.kind](book)
                if hasattr(book, "fit"):
                    self.steps = lambda count: book.fit(images, labels, count, self.begin)[0]
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
        """The version, the device, the name of the GPU, and the seconds of the first step."""
        gpu = None if self.device == "cpu" else self.probes.label(self.device)
        facts = {"version": self.backend.VERSION, "device": self.device}
        return {**facts, "gpu": gpu, "first": self.first}

    def turn(self, steps: int) -> float:
        """The seconds of `steps` steps, until the last loss is read and the device has finished."""
        with self.enough_memory():
            self.begin()
            float(self.steps(steps))
            self.probes.wait(self.device)
            return time.perf_counter() - self.begun

    def begin(self) -> None:
        """Let a turn begin now."""
        self.begun = time.perf_counter()

    def epoch(self) -> tuple[float, float]:
        """The seconds of an epoch of `train`'s loop, and the seconds in which it waited for images.

        The data set has the size of one epoch.
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
        """The peak memory so far, in bytes: of the process, and on the GPU."""
        found = self.probes.peak_memory(self.device)
        try:  # not `ru_maxrss`: on Linux it starts with the peak of the parent process
            lines = Path("/proc/self/status").read_text().splitlines()
            (peak,) = [line for line in lines if line.startswith("VmHWM:")]
            return int(peak.split()[1]) * 1024, found
        except (OSError, ValueError):
            return None, found

    def peak(self, side: int) -> float:
        """Floating-point operations per second in a product of two square matrices."""
        multiply = self.probes.product(side, self.precision, self.device)
        return 2 * side**3 / self.least_seconds(multiply)

    def bandwidth(self, count: int) -> float:
        """Bytes read and written per second in a copy of `count` float32 numbers."""
        on_cpu = self.device == "cpu"  # where some frameworks copy with a single thread
        copy = copy_of_array(count) if on_cpu else self.probes.copy(count, self.device)
        return 2 * 4 * count / self.least_seconds(copy)

    def least_seconds(self, work: Callable[[], Any]) -> float:
        """The seconds of one call, in the fastest of four tries."""
        count = 1 if self.device == "cpu" else 20
        seconds = []
        for _ in range(4):  # the first may be slow
            start = time.perf_counter()
            for _ in range(count):
                work()
            self.probes.wait(self.device)
            seconds.append((time.perf_counter() - start) / count)
        return min(seconds)

    def operators(self, steps: int) -> list[tuple[str, int, float]]:
        """Name, calls and seconds of each operator in `steps` steps, the slowest first."""
        found = self.probes.operators(lambda: self.turn(steps), self.device)
        return sorted(found, key=lambda row: -row[2])


@contextmanager
def may_not_run(kind: str) -> Iterator[None]:
    """Turn any error of a loop of TODAY, as of a missing compiler, into one of one sentence."""
    try:
        yield
    except Exception as error:
        if kind in (BOOK, PEER, OURS) or isinstance(error, GoogLeNetError):
            raise
        raise BackendError(f"{kind} does not run here: {one_line(error)[:200]}") from error


def repeated(step: Callable[[], Any]) -> Callable[[int], Any]:
    """A function that takes a number of steps and returns the last loss."""

    def steps(count: int) -> Any:
        for _ in range(count):
            loss = step()
        return loss

    return steps


class Process:
    """A `Runner` in a fresh process; its methods are called by name."""

    def __init__(self, loop: Loop, data: Dataset) -> None:
        """Start the process; `self.start` is the seconds until the end of its first step."""
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
        """The method's result; raises its GoogLeNetError, or RuntimeError for other exceptions."""
        return self._ask(method, arguments)

    def peak(self) -> float:
        """The peak, with matrices that are large enough for the device."""
        peak: float = self("peak", SIDES[self.facts["device"].partition(":")[0]])
        return peak

    def bandwidth(self) -> float:
        """The bandwidth, with arrays that no cache holds."""
        bandwidth: float = self("bandwidth", COPIED)
        return bandwidth

    def _ask(self, *message: Any) -> Any:
        try:
            self.pipe.send(message)
            found, error = self.pipe.recv()
        except (EOFError, OSError) as closed:
            self.process.join()
            status, name = self.process.exitcode, f"{self.loop.backend}'s loop"
            if status == -signal.SIGKILL:  # systems do this when the memory runs out
                raise OutOfMemoryError(
                    f"The process of {name} was killed: try a smaller `--batch-size`."
                ) from closed
            lines = self.log.read_text(errors="replace").strip().splitlines() or [""]
            raise BackendError(
                f"The process of {name} ended with status {status}: {lines[-1][:200]}"
            ) from closed
        if isinstance(error, GoogLeNetError):
            raise error
        if error:
            raise RuntimeError(error)
        return found

    def close(self) -> None:
        """End the process."""
        self.pipe.close()  # the process then stops waiting for requests
        self.process.join(1)
        self.process.kill()
        self.process.join()
        self.log.unlink(missing_ok=True)


def _serve(pipe: Connection, log: Path) -> None:
    """Make a Runner from the first message, then call one method for each further message."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent process ends this one
    with log.open("wb") as file:  # the frameworks' output, shown if the process dies
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    runner: Runner | None = None
    with suppress(EOFError, OSError):
        while True:
            message = pipe.recv()
            try:
                if runner is None:
                    runner = Runner(*message)
                    found = runner.about()
                else:
                    method, arguments = message
                    found = getattr(runner, method)(*arguments)
            except GoogLeNetError as error:
                pipe.send((None, error))
            except Exception:
                pipe.send((None, traceback.format_exc()))
            else:
                pipe.send((found, None))


def copy_of_array(count: int) -> Callable[[], None]:
    """A function that copies `count` float32 numbers with NumPy, in a thread for each core."""
    cores = processor()["usable"]
    sources, targets = (np.array_split(np.ones(count, np.float32), cores) for _ in range(2))

    def copy() -> None:
        with ThreadPoolExecutor(cores) as pool:
            list(pool.map(np.copyto, targets, sources))

    return copy


@contextmanager
def threads(count: int | None) -> Iterator[None]:
    """Give processes that start meanwhile `count` threads and cores; None changes nothing."""
    if count is None:
        yield
        return
    before = os.environ.get("OMP_NUM_THREADS")
    os.environ["OMP_NUM_THREADS"] = str(count)
    bind = getattr(os, "sched_setaffinity", None)  # only Linux has it
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

"""The speed of a training step: the book's loop and ours, turn about, a process for each loop.

Timings on a shared machine drift, so the loops take turns, round by round, and a ratio is taken
within a round. Each loop has a process of its own, which waits while another one's turn is on: so
each has its own threads, memory and start-up, and what our backend sets for a whole process is not
set for the book's loop. A batch is drawn once, already resized; a step moves it to the device.
"""

from __future__ import annotations

import importlib.util
import multiprocessing
import os
import platform
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from itertools import groupby
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from tabulate import tabulate

from backends import load, load_module, require
from common.arithmetic import layers
from common.data import Dataset, whereabouts
from common.data import load as read_images
from common.device import choose, enough_memory
from common.doctor import processor
from common.errors import BackendError, DeviceError, GoogLeNetError, OutOfMemoryError, SpecError
from common.fit import Fit
from common.recipe import PRECISIONS, Recipe
from common.run import Checkpoint, Config, Epoch, read_history
from common.spec import Spec

if TYPE_CHECKING:
    from common.contract import Backend

ROOT = Path(__file__).parent.parent
BOOK, PEER, OURS = "as published", "package's own", "ours"
TURN = 2.0  # seconds that the book's loop is given a turn, unless a number of steps is asked for
PAUSE = 0.25  # seconds before a turn: OpenMP's threads spin for 0.2 s after their work
SIDES = {"cpu": 4096, "gpu": 8192}  # of the square matrices that the peak is measured with
TOP = 15  # operators of a profile
PASSES = 3  # a training step's multiply-adds, in those of its forward pass: dx and dw besides


@dataclass(frozen=True)
class Row:
    """One loop. Speeds are examples a second; `ratio` is the median of those to the book's.

    `role` holds `a` for the book's loop (or a package's own network), `b` for ours by default, `c`
    for the fastest of ours. What is None is not known of that loop.
    """

    backend: str
    version: str
    role: str
    loop: str
    spec: str
    precision: str
    device: str
    threads: int | None  #: None: what the framework takes by itself
    batch_size: int
    size: int
    median: float
    lowest: float
    highest: float
    ratio: float
    peak: float  #: GFLOP/s of a matrix product in that precision: on a CPU the best of all loops
    share: float  #: of it that the step reaches
    memory: int | None  #: peak of the process, in MB
    device_memory: int | None  #: peak on a GPU, in MB
    start: float  #: seconds from the start of the process to the end of the first step
    compile: float  #: seconds that the first step and turn took longer than later ones
    repaid: int | None  #: examples until a later start than `a`'s is caught up with; None: never
    real: float | None  #: examples a second of `train`'s loop over real images
    real_share: float | None  #: of the speed on the drawn batch
    wait: float | None  #: share of the time that `train`'s loop waited for images


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
            published = load_module(loop.backend, f"benchmarks.published.{loop.backend}")
            self.backend = cast("Backend", load_module(loop.backend, f"backends.{loop.backend}"))
        self.device = choose(loop.requested, self.backend.devices())
        self.precision = loop.recipe.precision
        self.instruments = load_module(loop.backend, f"benchmarks.instruments.{loop.backend}")
        images, labels = loop.inputs()
        self.fit: Fit | None = None
        with self.memory_told():
            if loop.kind == OURS:
                checkpoint = Checkpoint.first(Config.of(loop.recipe, loop.backend, data))
                fit = self.fit = Fit(self.backend, loop.backend, checkpoint, data, self.device)
                self.step: Callable[[], Any] = lambda: fit.trainer.update(
                    self.backend.place(fit.model, images), labels
                )[0]
            else:
                made = published.Peer if loop.kind == PEER else published.Published
                book = made(loop.spec, self.device, loop.recipe.lr)
                self.step = lambda: book.step(images, labels)[0]
        self.first = self.turn(1)

    def memory_told(self) -> Any:
        """A context in which too little memory is told in one sentence."""
        return enough_memory(self.backend, self.device, self.size, "a smaller `--batch-size`")

    def about(self) -> dict[str, Any]:
        """The version, the device, what a GPU is called, and the seconds of the first step."""
        gpu = None if self.device == "cpu" else self.instruments.label(self.device)
        facts = {"version": self.backend.VERSION, "device": self.device}
        return {**facts, "gpu": gpu, "first": self.first}

    def turn(self, steps: int) -> float:
        """The seconds of so many steps, until the last one's loss is here and all work is done."""
        with self.memory_told():
            start = time.perf_counter()
            for _ in range(steps):
                loss = self.step()
            float(loss)
            self.instruments.wait(self.device)
            return time.perf_counter() - start

    def epoch(self) -> tuple[float, float]:
        """The seconds of an epoch of `train`'s loop, and those of them that it waited for images.

        The data set is as large as an epoch is to be.
        """
        assert self.fit
        with self.memory_told():
            start = time.perf_counter()
            self.fit.train(len(self.fit.progress.epochs))
            self.instruments.wait(self.device)
            seconds, wait = time.perf_counter() - start, self.fit.progress.wait
        self.fit.finish(len(self.fit.progress.epochs), 0.0, 0.0)
        return seconds, wait

    def memory(self) -> tuple[int | None, int | None]:
        """The peak so far, in bytes: resident, and on the GPU."""
        found = self.instruments.peak_memory(self.device)
        try:  # not `ru_maxrss` on Linux: it begins with the peak of the process that started this
            lines = Path("/proc/self/status").read_text().splitlines()
            (peak,) = [line for line in lines if line.startswith("VmHWM:")]
            return int(peak.split()[1]) * 1024, found
        except (OSError, ValueError):
            return None, found

    def peak(self, side: int) -> float:
        """Floating-point operations a second of a product of two square matrices."""
        count = 1 if self.device == "cpu" else 20
        multiply = self.instruments.product(side, self.precision, self.device)
        seconds = []
        for _ in range(4):  # the first may be slow
            start = time.perf_counter()
            for _ in range(count):
                multiply()
            self.instruments.wait(self.device)
            seconds.append(time.perf_counter() - start)
        return float(2 * side**3 * count / min(seconds))

    def operators(self, steps: int) -> list[tuple[str, int, float]]:
        """Name, calls and seconds of each operator in so many steps, the slowest first."""
        found = self.instruments.operators(lambda: self.turn(steps), self.device)
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


@dataclass(frozen=True)
class Plan:
    """What is asked of one benchmark."""

    backend: str
    recipe: Recipe
    device: str = "auto"
    precision: str | None = None  #: of `c`; None: the fastest of all that there are
    threads: int | None = None
    rounds: int = 5
    steps: int | None = None  #: in a turn; None: as many as the book's loop does in TURN seconds
    peer: bool = False

    def checked(self) -> Plan:
        """The same with the peer's spec; SpecError for what the published loop cannot take."""
        require(self.backend)
        usable = processor()["usable"]
        if self.threads is not None and not 1 <= self.threads <= usable:
            raise SpecError(f"--threads {self.threads} is not possible: give 1 to {usable}.")
        if not self.peer:
            spec = self.recipe.network()
            if spec.auxiliary:
                raise SpecError(
                    f"{spec.name} has auxiliary heads: give `--spec` a network without them."
                )
            layers(spec)
            return self
        if self.backend not in PEERS:
            raise SpecError(f"{self.backend} has no GoogLeNet of its own: {', '.join(PEERS)} have.")
        package, name = PEERS[self.backend]
        if not importlib.util.find_spec(package):
            raise BackendError(
                f"{package} is not installed; install it with `pip install {package}`."
            )
        plan = replace(self, recipe=replace(self.recipe, spec=name, lr=PEER_LR))
        layers(plan.spec())
        return plan

    def spec(self) -> Spec:
        """The network of all loops."""
        return self.recipe.network(channels=3 if self.peer else 1)

    def wants(self, precision: str) -> bool:
        """Whether `c` may have that precision."""
        return self.precision in (None, precision)

    def loop(self, kind: str, precision: str) -> Loop:
        """One of its loops."""
        recipe = replace(self.recipe, precision=precision)
        return Loop(kind, self.backend, recipe, self.spec(), self.device, self.threads)

    def published(self) -> Loop:
        """The loop that ours is held against."""
        return self.loop(PEER if self.peer else BOOK, "float32")

    def own(self) -> list[Loop]:
        """Ours by default, then the others that are tried."""
        others = [self.precision] if self.precision else PRECISIONS
        return [self.loop(OURS, each) for each in dict.fromkeys([self.recipe.precision, *others])]


PEER_LR = 1e-3  # with the book's, paddle.vision's network, which has no norm, soon computes NaN

#: the package that has its own GoogLeNet, and our spec of the same function
PEERS = {"torch": ("torchvision", "torchvision"), "paddle": ("paddle", "paddle-vision")}


def bench(plan: Plan) -> dict[str, Any]:
    """The machine, where the real images are from, and a `Row` for each loop.

    The first step of each loop and the turn after it are not counted. SpecError, DeviceError or
    BackendError for what cannot be done, OutOfMemoryError for a batch that is too large.
    """
    plan = plan.checked()
    real = images()
    with ExitStack() as stack:

        def start(loop: Loop, data: Dataset) -> Process:
            return stack.enter_context(closing(Process(loop, data)))

        with closing(Process(plan.published(), cut(real, 1, plan.spec()))) as scout:
            # whose start, perhaps from a cold disk, does not count
            steps = plan.steps or max(2, min(100, round(TURN / scout("turn", 1))))
        data = cut(real, plan.recipe.batch_size * steps, plan.spec())
        running = [start(plan.published(), data)]
        for loop in plan.own():
            try:
                running.append(start(loop, data))
            except DeviceError:  # the framework has no such precision
                if loop.recipe.precision == plan.precision:
                    raise
        rows = _rows(plan, running, steps)
        where = machine(running[0].facts["gpu"])
    return {"machine": where, "data": real.source, "rows": [asdict(row) for row in rows]}


def _rows(plan: Plan, running: list[Process], steps: int) -> list[Row]:
    """Let the loops take turns, the book's first; what each came to."""
    turns: list[Callable[[], tuple[float, float]]] = [
        *(lambda each=each: (each("turn", steps), 0.0) for each in running),
        *(lambda each=each: each("epoch") for each in running[1:]),
    ]

    def round_of_turns() -> Iterator[tuple[float, float]]:
        for turn in turns:
            time.sleep(PAUSE)
            yield turn()

    early = [seconds for seconds, _ in round_of_turns()]
    taken = np.array([list(round_of_turns()) for _ in range(plan.rounds)])
    memories = [each("memory") for each in running]  # before the large matrices
    peaks = [(each.loop.recipe.precision, each.peak()) for each in running]

    size = plan.recipe.batch_size
    speeds = size * steps / taken[:, :, 0]
    medians = np.median(speeds, axis=0)
    asked = [at for at, (precision, _) in enumerate(peaks) if at and plan.wants(precision)]
    roles = (0, 1, max(asked, key=lambda at: medians[at]))
    flop = 2 * PASSES * sum(layer.multiply_adds for layer in layers(plan.spec()))
    rows = []
    for at, each in enumerate(running):
        precision = each.loop.recipe.precision
        resident, on_device = memories[at]
        same = [found for other, found in peaks if other == precision]
        # on a GPU a library may round float32 to TF32 in one process and not in another
        peak = max(same) if each.facts["device"] == "cpu" else peaks[at][1]
        slow = each.facts["first"] + early[at]
        later = max(0.0, each.start - running[0].start)
        gain = 1 / medians[0] - 1 / medians[at]  # seconds an example
        epoch = len(running) + at - 1
        row = Row(
            backend=plan.backend,
            version=each.facts["version"],
            role="".join(role for role, its in zip("abc", roles, strict=True) if its == at),
            loop=each.loop.kind,
            spec=plan.recipe.spec,
            precision=precision,
            device=each.facts["device"],
            threads=plan.threads,
            batch_size=size,
            size=plan.recipe.size,
            **_figures(speeds, at),
            peak=round(peak / 1e9, 1),
            share=round(float(medians[at]) * flop / peak, 3),
            memory=resident and round(resident / 1e6),
            device_memory=on_device and round(on_device / 1e6),
            start=round(each.start, 2),
            compile=round(max(0.0, slow - (1 + steps) * size / float(medians[at])), 2),
            repaid=0 if not later else round(later / gain) if gain > 0 else None,
            real=round(float(medians[epoch]), 1) if at else None,
            real_share=round(float(np.median(speeds[:, epoch] / speeds[:, at])), 3) if at else None,
            wait=round(float(np.median(taken[:, epoch, 1] / taken[:, epoch, 0])), 4)
            if at
            else None,
        )
        rows.append(row)
    return rows


def _figures(speeds: np.ndarray, at: int) -> dict[str, float]:
    """What one column of speeds (rounds, loops) came to; the ratio is to the first column."""
    own = speeds[:, at]
    return {
        "median": round(float(np.median(own)), 1),
        "lowest": round(float(own.min()), 1),
        "highest": round(float(own.max()), 1),
        "ratio": round(float(np.median(own / speeds[:, 0])), 2),
    }


def profile(plan: Plan, steps: int) -> dict[str, Any]:
    """Where the time of a step goes, in the book's loop and ours: `{"machine", "profiles"}`.

    Ours in the precision asked for, or by default. `floor` is the seconds that the step's
    multiply-adds would take at the measured peak, `step` those that it takes without a profiler.
    """
    plan = plan.checked()
    flop = 2 * PASSES * sum(layer.multiply_adds for layer in layers(plan.spec()))
    flop *= plan.recipe.batch_size
    found: list[dict[str, Any]] = []
    for loop in (plan.published(), plan.loop(OURS, plan.precision or plan.recipe.precision)):
        with closing(Process(loop, cut(images(), loop.recipe.batch_size, loop.spec))) as process:
            process("turn", steps)
            step = process("turn", steps) / steps
            operators = process("operators", steps)
            whole = sum(seconds for _, _, seconds in operators)
            found.append(
                {
                    "backend": plan.backend,
                    "version": process.facts["version"],
                    "loop": loop.kind,
                    "precision": loop.recipe.precision,
                    "device": process.facts["device"],
                    "batch_size": plan.recipe.batch_size,
                    "size": plan.recipe.size,
                    "step": step,
                    "floor": flop / process.peak(),
                    "operators": [
                        {"name": n, "calls": c / steps, "seconds": s / steps, "share": s / whole}
                        for n, c, s in operators[:TOP]
                    ],
                }
            )
            where = machine(process.facts["gpu"])
    return {"machine": where, "profiles": found}


def scale(plan: Plan, counts: Sequence[int]) -> dict[str, Any]:
    """The speed of `train` with so many workers, turn about: `{"machine", "data", "scaling"}`.

    A turn is a run of two epochs of `steps` steps over real images, of which the second counts; the
    batch is that of all workers together. `ratio` is the median of the speeds' ratios to the first
    count's. Refusals are those of `train`.
    """
    plan = plan.checked()
    real, recipe = images(), plan.recipe
    examples = min(recipe.batch_size * (plan.steps or 10), len(real.train_labels))
    words = ["--backend", plan.backend, "--spec", recipe.spec, "--size", str(recipe.size)]
    words += ["--batch-size", str(recipe.batch_size), "--epochs", "2", "--device", plan.device]
    words += ["--precision", plan.precision or recipe.precision, "--data", real.source]
    words += ["--limit-train", str(examples), "--limit-test", str(min(counts[-1], examples))]
    epochs = [[_trained(words, count) for count in counts] for _ in range(plan.rounds)]
    speeds = np.array([[epoch.examples / epoch.seconds for epoch in turns] for turns in epochs])
    last = epochs[-1][0]
    rows = [
        {
            "backend": plan.backend,
            "version": last.version,
            "workers": count,
            "precision": plan.precision or recipe.precision,
            "device": last.device,
            "batch_size": recipe.batch_size,
            "size": recipe.size,
            **_figures(speeds, at),
        }
        for at, count in enumerate(counts)
    ]
    return {"machine": machine(), "data": real.source, "scaling": rows}


def _trained(words: list[str], count: int) -> Epoch:
    """The last epoch of a run of `googlenet train` with so many workers."""
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        run = Path(folder) / "run"
        command = [sys.executable, "-m", "common.cli", "train", *words, "--workers", str(count)]
        child = subprocess.run(
            [*command, "--out", str(run)],
            cwd=ROOT,
            capture_output=True,
            text=True,
            errors="replace",
        )
        if child.returncode:
            lines = child.stderr.strip().splitlines() or [f"train ended with {child.returncode}."]
            refusal = GoogLeNetError(lines[-1].removeprefix("googlenet: "))
            refusal.exit_code = max(child.returncode, 1)
            raise refusal
        return read_history(run / "history.jsonl")[-1]


def joined(results: list[dict[str, Any]]) -> dict[str, Any]:
    """The results of several plans as one."""
    (key,) = {*results[0]} & {"rows", "profiles"}
    return {**results[0], key: [row for found in results for row in found[key]]}


def images() -> Dataset:
    """Fashion-MNIST where it is there already, else the sample."""
    found = [count for name, (_, count) in whereabouts().items() if name != "sample"]
    return read_images(None if max(found) == 4 else "sample")


def cut(data: Dataset, count: int, spec: Spec) -> Dataset:
    """So many training images, repeated if there are fewer, of the spec's channels."""

    def fitted(images: Any, wanted: int) -> np.ndarray:
        whole = np.resize(images, (wanted, *images.shape[1:]))
        return np.repeat(whole, spec.input[0], axis=1)

    return replace(
        data,
        train_images=fitted(data.train_images, count),
        train_labels=np.resize(data.train_labels, count),
        test_images=fitted(data.test_images, 1),
        test_labels=data.test_labels[:1],
    )


def machine(gpu: str | None = None) -> str:
    """The processor and what of it may be used, and the GPU that was used, in one line."""
    chip = processor()
    best = chip["instructions"][-1:] or ["no instruction sets that are known here"]
    found = f"{chip['name']}, {chip['usable']} cores, up to {best[0]}, {platform.system()}"
    return f"{gpu}; {found}" if gpu else found


#: heads of the text's tables, and what of a row stands under each
COLUMNS: dict[str, Callable[[dict[str, Any]], Any]] = {
    "": lambda row: row["role"],
    "loop": lambda row: row["loop"],
    "precision": lambda row: row["precision"],
    "examples/s": lambda row: row["median"],
    "range": lambda row: f"{row['lowest']} to {row['highest']}",
    "ratio": lambda row: row["ratio"],
    "of peak": lambda row: f"{row['share']:.1%} of {row['peak']:.0f} GFLOP/s",
    "memory": lambda row: _memory(row),
    "start": lambda row: f"{row['start']} s",
    "compile": lambda row: f"{row['compile']} s",
    "repaid after": lambda row: "never" if row["repaid"] is None else row["repaid"],
    "real data": lambda row: row["real"],
    "of drawn": lambda row: _percent(row["real_share"]),
    "wait": lambda row: _percent(row["wait"]),
}
#: of the tables of several workers
WORKERS = {
    "workers": lambda row: row["workers"],
    **{head: COLUMNS[head] for head in ("examples/s", "range", "ratio")},
}
SETTING = ("backend", "version", "device", "spec", "batch_size", "size", "threads")


def _percent(share: float | None) -> str | None:
    return None if share is None else f"{share:.1%}"


def _memory(row: dict[str, Any]) -> str:
    both = {"": row["memory"], " on the GPU": row["device_memory"]}
    return ", ".join(f"{size} MB{where}" for where, size in both.items() if size is not None)


def render(found: dict[str, Any]) -> str:
    """The rows as text, a table for each setting."""
    parts = [f"{found['machine']}; real data: {found['data']}"]
    for setting, rows in groupby(found["rows"], key=lambda row: [row[k] for k in SETTING]):
        backend, version, device, spec, batch_size, size, count = setting
        cores = f", --threads {count}" if count else ""
        parts.append(
            f"{backend} {version} on {device}, {spec}, batch {batch_size} at {size} pixels{cores}"
        )
        table = [[of(row) for of in COLUMNS.values()] for row in rows]
        parts.append(tabulate(table, list(COLUMNS)))
    return "\n\n".join(parts)


def render_scaling(found: dict[str, Any]) -> str:
    """The speeds with several workers as text."""
    first = found["scaling"][0]
    head = (
        f"{found['machine']}; real data: {found['data']}\n\n{first['backend']} {first['version']} "
        f"on {first['device']}, {first['precision']}, batch {first['batch_size']} of all workers "
        f"at {first['size']} pixels"
    )
    rows = [[of(row) for of in WORKERS.values()] for row in found["scaling"]]
    return f"{head}\n\n{tabulate(rows, list(WORKERS))}"


def render_profile(found: dict[str, Any]) -> str:
    """The profiles as text."""
    parts = [found["machine"]]
    for each in found["profiles"]:
        step, floor = each["step"], each["floor"]
        parts.append(
            f"{each['backend']} {each['version']} on {each['device']}, {each['loop']} in "
            f"{each['precision']}, batch {each['batch_size']} at {each['size']} pixels: "
            f"{step * 1e3:.1f} ms a step, at the peak {floor * 1e3:.1f} ms ({floor / step:.1%})"
        )
        rows = [
            (row["name"][:60], round(row["calls"], 1), row["seconds"] * 1e3, f"{row['share']:.1%}")
            for row in each["operators"]
        ]
        heads = ("operator", "calls", "ms a step", "share")
        parts.append(tabulate(rows, heads, floatfmt=".1f"))
    return "\n\n".join(parts)

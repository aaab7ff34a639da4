"""The speed of a training step: alternating runs of the book's loop and ours.

Timings on a shared machine drift. So the loops take turns, round by round, and a ratio compares
turns of the same round. Each loop has its own process, which waits during the turns of the others.
So each loop has its own threads, memory and start-up, and our backend's settings for a whole
process do not affect the book's loop. A batch is drawn once, already resized; a step moves it to
the device.
"""

from __future__ import annotations

import importlib.util
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import click
import numpy as np

from backends import require
from common.bench.process import BOOK, OURS, PEER, TODAY, Loop, Process
from common.data.dataset import Dataset
from common.data.sources import load as read_images
from common.data.sources import whereabouts
from common.errors import BackendError, DeviceError, GoogLeNetError, SpecError, printable
from common.files import ROOT
from common.processor import processor
from common.recipe import PRECISIONS, Recipe
from common.spec import Spec
from common.spec.arithmetic import fewest_bytes, layers
from common.terminal import doing
from common.training.history import Epoch, read_history

TURN = 2.0  # seconds of a turn of the book's loop, if the number of steps is not given
PAUSE = 0.25  # seconds before a turn, because OpenMP's threads spin for 0.2 s after their work

TOP = 15  # operators in a profile
PASSES = 3  # of equal multiply-adds in a training step: forward, dx, dw


@dataclass(frozen=True)
class Row:
    """One loop. Speeds are in examples per second; `ratio` is the median ratio to the book's loop.

    `role` has the letters `a` for the book's loop (or a package's own network), `b` for our
    default, `c` for our fastest loop; none for what a user would write today. A field is None if
    it is not known for that loop.
    """

    backend: str
    version: str
    role: str
    loop: str
    spec: str
    precision: str
    device: str
    threads: int | None  #: None: the framework's default
    batch_size: int
    size: int
    median: float
    lowest: float
    highest: float
    ratio: float
    peak: float  #: GFLOP/s of a matrix product in that precision; on a CPU the best of all loops
    share: float  #: of the peak that the step reaches
    memory: int | None  #: peak of the process, in MB
    device_memory: int | None  #: peak on a GPU, in MB
    start: float  #: seconds from the start of the process to the end of the first step
    compile: float  #: extra seconds of the first step and turn compared with later ones
    repaid: int | None  #: examples until a loop that starts later than `a` catches up; None: never
    real: float | None  #: examples per second of `train`'s loop over real images
    real_share: float | None  #: `real` relative to the speed on the drawn batch
    wait: float | None  #: share of the time in which `train`'s loop waited for images
    bandwidth: float  #: GB/s read and written by a copy; on a CPU the best of all loops
    roofline: (
        float  #: least time of a step (operations at the peak + bytes at the bandwidth) / time
    )


@dataclass(frozen=True)
class Plan:
    """The settings of one benchmark."""

    backend: str
    recipe: Recipe
    device: str = "auto"
    precision: str | None = None  #: of `c`; None: the fastest that the framework has
    threads: int | None = None
    rounds: int = 5
    steps: int | None = None  #: in a turn; None: as many as the book's loop takes in TURN seconds
    peer: bool = False

    @property
    def own_network(self) -> bool:
        """Whether the package's own network is the peer."""
        return self.peer and self.backend in PEERS

    def checked(self) -> Plan:
        """This plan, with the peer's spec if any; SpecError if the baseline cannot run it."""
        require(self.backend)
        usable = processor()["usable"]
        if self.threads is not None and not 1 <= self.threads <= usable:
            raise SpecError(f"--threads {self.threads} is not possible: give 1 to {usable}.")
        if not self.own_network:
            spec = self.recipe.network()
            if spec.auxiliary:
                raise SpecError(
                    f"{spec.name} has auxiliary heads: give `--spec` a network without them."
                )
            layers(spec)
            return self
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
        return self.recipe.network(channels=3 if self.own_network else 1)

    def wants(self, precision: str) -> bool:
        """Whether `c` may use this precision."""
        return self.precision in (None, precision)

    def loop(self, kind: str, precision: str) -> Loop:
        """A loop of this kind and precision."""
        recipe = replace(self.recipe, precision=precision)
        return Loop(kind, self.backend, recipe, self.spec(), self.device, self.threads)

    def published(self) -> Loop:
        """The baseline: the loop that ours is compared with."""
        return self.loop(PEER if self.own_network else BOOK, "float32")

    def today(self) -> list[Loop]:
        """What a user would write today, if `peer`: the baseline with a line more."""
        return [self.loop(kind, "float32") for kind in TODAY[self.backend] if self.peer]

    def own(self) -> list[Loop]:
        """Our loop by default, then our loops in the other precisions."""
        others = [self.precision] if self.precision else PRECISIONS
        return [self.loop(OURS, each) for each in dict.fromkeys([self.recipe.precision, *others])]


PEER_LR = 1e-3  # with the book's rate, paddle.vision's network, which has no norm, computes NaN

#: packages with a GoogLeNet of their own, and our spec of the same function, by backend
PEERS = {"torch": ("torchvision", "torchvision"), "paddle": ("paddle", "paddle-vision")}


def bench(plan: Plan) -> dict[str, Any]:
    """`{"machine", "data", "rows"}`: the source of the real images, and a `Row` for each loop.

    The first step of each loop and the turn after it do not count. SpecError, DeviceError or
    BackendError for an impossible plan, OutOfMemoryError for a batch that is too large. A loop of
    TODAY that does not run here is left out, with a warning.
    """
    plan = plan.checked()
    real = images()
    with ExitStack() as stack:

        def start(loop: Loop, data: Dataset) -> Process:
            return stack.enter_context(closing(Process(loop, data)))

        with closing(Process(plan.published(), cut(real, 1, plan.spec()))) as scout:
            # its start, perhaps from a cold disk, does not count
            steps = plan.steps or max(2, min(100, round(TURN / scout("turn", 1))))
        data = cut(real, plan.recipe.batch_size * steps, plan.spec())
        running = [start(plan.published(), data)]
        for loop in plan.today():
            try:
                running.append(start(loop, data))
            except BackendError as error:
                click.echo(f"warning: {printable(error)}", err=True)
        for loop in plan.own():
            try:
                running.append(start(loop, data))
            except DeviceError:  # the framework does not have this precision
                if loop.recipe.precision == plan.precision:
                    raise
        rows = _rows(plan, running, steps)
        where = machine(running[0].facts["gpu"])
    return {"machine": where, "data": real.source, "rows": [asdict(row) for row in rows]}


def _rows(plan: Plan, running: list[Process], steps: int) -> list[Row]:
    """Let the loops take turns, the book's first; the row of each loop."""
    turns: list[Callable[[], tuple[float, float]]] = [
        *(lambda each=each: (each("turn", steps), 0.0) for each in running),
        *(lambda each=each: each("epoch") for each in running if each.loop.kind == OURS),
    ]

    def round_of_turns() -> Iterator[tuple[float, float]]:
        for turn in turns:
            time.sleep(PAUSE)
            yield turn()

    early = [seconds for seconds, _ in round_of_turns()]
    rounds = []
    for number in range(1, plan.rounds + 1):
        doing(f"{plan.backend}: round {number} of {plan.rounds}")
        rounds.append(list(round_of_turns()))
    taken = np.array(rounds)
    memories = [each("memory") for each in running]  # before the large matrices of the peaks
    peaks = [(each.loop.recipe.precision, each.peak()) for each in running]
    bandwidths = [each.bandwidth() for each in running]

    size = plan.recipe.batch_size
    speeds = size * steps / taken[:, :, 0]
    medians = np.median(speeds, axis=0)
    ours = [at for at, each in enumerate(running) if each.loop.kind == OURS]
    wanted = [at for at in ours if plan.wants(peaks[at][0])]
    roles = (0, ours[0], max(wanted, key=lambda at: medians[at]))
    epochs = {at: len(running) + index for index, at in enumerate(ours)}  # their columns
    flop = 2 * PASSES * sum(layer.multiply_adds for layer in layers(plan.spec()))
    rows = []
    for at, each in enumerate(running):
        precision = each.loop.recipe.precision
        resident, on_device = memories[at]
        same = [found for other, found in peaks if other == precision]
        # on a GPU a library may round float32 to TF32 in one process and not in another
        on_cpu = each.facts["device"] == "cpu"
        peak = max(same) if on_cpu else peaks[at][1]
        bandwidth = max(bandwidths) if on_cpu else bandwidths[at]
        moved = fewest_bytes(plan.spec(), size, precision)
        least = size * flop / peak + moved / bandwidth  # seconds of a step
        slow = each.facts["first"] + early[at]
        later = max(0.0, each.start - running[0].start)
        gain = 1 / medians[0] - 1 / medians[at]  # seconds per example
        row = Row(
            backend=plan.backend,
            version=each.facts["version"],
            role="".join(role for role, owner in zip("abc", roles, strict=True) if owner == at),
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
            **_real(taken, speeds, at, epochs.get(at)),
            bandwidth=round(bandwidth / 1e9, 1),
            roofline=round(least * float(medians[at]) / size, 3),
        )
        rows.append(row)
    return rows


def _real(taken: np.ndarray, speeds: np.ndarray, at: int, epoch: int | None) -> dict[str, Any]:
    """The figures of the loop in column `at` over real images, which are in the column `epoch`."""
    if epoch is None:
        return dict.fromkeys(("real", "real_share", "wait"))
    return {
        "real": round(float(np.median(speeds[:, epoch])), 1),
        "real_share": round(float(np.median(speeds[:, epoch] / speeds[:, at])), 3),
        "wait": round(float(np.median(taken[:, epoch, 1] / taken[:, epoch, 0])), 4),
    }


def _figures(speeds: np.ndarray, at: int) -> dict[str, float]:
    """The summary of one column of speeds (rounds, loops); the ratio is to the first column."""
    own = speeds[:, at]
    return {
        "median": round(float(np.median(own)), 1),
        "lowest": round(float(own.min()), 1),
        "highest": round(float(own.max()), 1),
        "ratio": round(float(np.median(own / speeds[:, 0])), 2),
    }


def profile(plan: Plan, steps: int) -> dict[str, Any]:
    """The time of a step by operator, in the book's loop and ours: `{"machine", "profiles"}`.

    Our loop uses the plan's precision, or the default. `step` is the seconds of a step without the
    profiler. `floor` is the seconds that its multiply-adds would take at the measured peak.
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
    """The speed of `train` with each number of workers: `{"machine", "data", "scaling"}`.

    The runs alternate. A turn is a run of two epochs of `steps` steps over real images; the second
    epoch counts. The batch is that of all workers together. `ratio` is the median ratio to the
    speed of the first count. The errors are those of `train`.
    """
    plan = plan.checked()
    real, recipe = images(), plan.recipe
    examples = min(recipe.batch_size * (plan.steps or 10), len(real.train_labels))
    words = ["--backend", plan.backend, "--spec", recipe.spec, "--size", str(recipe.size)]
    words += ["--batch-size", str(recipe.batch_size), "--epochs", "2", "--device", plan.device]
    source = real.source if real.source == "sample" else str(Path(real.source).absolute())
    words += ["--precision", plan.precision or recipe.precision, "--data", source]
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
    """The last epoch of a run of `googlenet train` with `count` workers."""
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
    """Fashion-MNIST if it is already on this machine, else the sample."""
    found = [count for name, (_, count) in whereabouts().items() if name != "sample"]
    return read_images(None if max(found) == 4 else "sample")


def cut(data: Dataset, count: int, spec: Spec) -> Dataset:
    """`count` training images, repeated if there are fewer, with the spec's channels."""

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
    """The GPU if one was used, the processor and its usable cores, in one line."""
    chip = processor()
    best = chip["instructions"][-1:] or ["no instruction sets that are known here"]
    found = f"{chip['name']}, {chip['usable']} cores, up to {best[0]}, {platform.system()}"
    return f"{gpu}; {found}" if gpu else found

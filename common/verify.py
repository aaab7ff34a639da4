"""The parity ladder: a backend held against the arbiter, rung by rung, until one fails.

parameters, shapes, forward, loss, gradients, one step, ten steps, running statistics, device.
A rung stands on the ones below, so the first that fails ends the climb and names the first stage or
tensor that differs. float64 is the gate; float32 is held to what float32 can hold.

The error of a tensor is its largest difference over its largest value, or over 1e-9 of the largest
value of its kind in the network where its own is smaller still.
"""

from __future__ import annotations

import math
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from backends import load, simulated
from backends.numpy import GoogLeNet, Trainer
from common import arithmetic
from common.contract import Backend
from common.device import choose
from common.errors import DeviceError, one_line
from common.plants import Bug, plant
from common.recipe import Recipe
from common.spec import BLOG_224, D2L, D2L_BN, PADDLE_VISION, TORCHVISION_IMAGENET_AUX, Spec, find
from common.weights import Weights, is_running, shapes

#: What `googlenet verify` covers by default; the other specs are parts of these.
DEFAULTS = {
    D2L.name: (96, 97, 33, 1),
    BLOG_224.name: (96, 97, 33, 21),
    D2L_BN.name: (96, 97),
    TORCHVISION_IMAGENET_AUX.name: (96,),
    PADDLE_VISION.name: (189,),
}

#: Seeds whose fixture lies far from every tie of a ReLU or a max pool, where one float32 rounding
#: could turn a gradient; a test measures the distance.
SEEDS = {(D2L.name, 96): 51, (BLOG_224.name, 96): 15}

EXACT = 0.0
FORWARD = {"float64": 1e-12, "float32": 1e-5}
GPU_GRADIENT = 1e-3  # in float32: cuDNN's of a 5x5 kernel is off by 2e-4, without cuDNN by 8e-7
TRAINING = 1e-11  # with norm, in training mode
TEN_STEPS = 1e-9  # without norm; with norm every step starts from the arbiter's state
ZERO_GRADIENT = 1e-10  # of a bias in front of a norm, as a share of its weight's gradient
LEAST_LOSS = 0.5  # below it later steps prove nothing


@dataclass(frozen=True)
class Rung:
    """One comparison: the worst error, what it may be, and where it is or what was raised."""

    name: str
    passed: bool
    error: float | None
    tolerance: float
    where: str
    stages: dict[str, float] = field(default_factory=dict)  #: the error of each, where it is known


@dataclass(frozen=True)
class Report:
    """The climb of one backend for one spec, size and dtype."""

    backend: str
    version: str
    spec: str
    size: int
    dtype: str
    rungs: list[Rung]

    @property
    def failed(self) -> Rung | None:
        """The rung that failed, if one did."""
        return next((rung for rung in self.rungs if not rung.passed), None)

    def as_json(self) -> dict[str, Any]:
        """The report as plain data; JSON has no infinity, so what cannot be measured is null."""
        plain = asdict(self)
        for rung in plain["rungs"]:
            rung["error"] = finite(rung["error"])
            stages = {name: finite(error) for name, error in rung.pop("stages").items()}
            rung |= {"stages": stages} if stages else {}
        return plain


@dataclass(frozen=True, eq=False)  # a key by identity, as `expected` needs
class Fixture:
    """Weights, a batch and a recipe on which every number of the network matters."""

    spec: Spec
    inputs: np.ndarray  # (N, C, H, W), values that float32 holds exactly
    labels: np.ndarray
    weights: Weights
    recipe: Recipe


def draw_fixture(spec: Spec, seed: int | None = None) -> Fixture:
    """He-normal weights; biases and norm values that are neither 0 nor 1, nor equal."""
    if seed is None:
        seed = SEEDS.get((spec.name, spec.input[1]), 0)
    random = np.random.RandomState(seed)
    ranges = {
        "conv.bias": (-0.1, 0.1),
        "head.bias": (-0.1, 0.1),
        "hidden.bias": (-0.1, 0.1),
        "norm.weight": (0.5, 1.5),
        "norm.bias": (-0.2, 0.2),
        "norm.running_mean": (-0.5, 0.5),
        "norm.running_var": (0.5, 1.5),
    }
    weights = {}
    for name, shape in shapes(spec).items():
        if len(shape) > 1:
            array = random.standard_normal(shape) * math.sqrt(2 / math.prod(shape[1:]))
        else:
            array = random.uniform(*ranges[kind(name)], shape)
        weights[name] = array.astype(np.float32)
    batch = 8 if spec.norm else 2  # batch norm needs a batch
    inputs = random.uniform(0, 1, (batch, *spec.input)).astype(np.float32)
    labels = np.arange(batch) % spec.head.width
    # Rates at which the loss falls and stays above LEAST_LOSS. With norm each step starts from the
    # arbiter's weights, so there is no velocity to carry.
    recipe = Recipe(lr=5e-5) if spec.norm else Recipe(lr=1e-4, momentum=0.9)
    return Fixture(spec, inputs, labels, weights, recipe)


def finite(error: float | None) -> float | None:
    """The error, or None if it is no finite number."""
    return error if error is not None and math.isfinite(error) else None


def kind(name: str) -> str:
    """`conv.weight`, `norm.bias`, `head.weight`, ...: the last two words of a tensor's name."""
    return ".".join(name.split(".")[-2:])


def tensor_error(got: np.ndarray, want: np.ndarray, floor: float = 0.0) -> float:
    """The largest difference over the largest wanted value (`floor` at least); inf if misshapen."""
    if got.shape != want.shape:
        return math.inf
    difference = float(np.max(np.abs(got.astype(np.float64) - want)))
    if not math.isfinite(difference):
        return math.inf
    if not difference:
        return 0.0
    scale = max(float(np.max(np.abs(want))), floor)
    return difference / scale if scale else math.inf


def compare(
    name: str, got: Mapping[str, np.ndarray], want: Mapping[str, np.ndarray], tolerance: float
) -> Rung:
    """All tensors of `want` in its order: the first that differs, else the worst."""
    largest: dict[str, float] = {}
    for tensor, array in want.items():
        value = float(np.max(np.abs(array)))
        largest[kind(tensor)] = max(largest.get(kind(tensor), 0.0), value)
    worst, where = 0.0, ""
    for tensor, array in want.items():
        if tensor not in got:
            return Rung(name, False, None, tolerance, f"{tensor} is missing")
        error = tensor_error(got[tensor], array, 1e-9 * largest[kind(tensor)])
        if error > tolerance:
            return Rung(name, False, error, tolerance, tensor)
        if error > worst:
            worst, where = error, tensor
    return Rung(name, True, worst, tolerance, where)


class Ladder:
    """One climb: a backend's model on a device beside the arbiter, both started from a fixture."""

    def __init__(
        self, backend: Backend, fixture: Fixture, dtype: str, device: str, model: Any = None
    ) -> None:
        self.backend, self.fixture, self.dtype, self.device = backend, fixture, dtype, device
        self.spec, self.model = fixture.spec, model

    def climb(self) -> Iterator[Rung]:
        """The rungs, one by one; what a framework raises is a rung that failed."""
        for name, rung in self.rungs():
            try:
                found = rung()
            except Exception as error:  # a planted or real bug may raise anything
                where = f"{type(error).__name__}: {one_line(error)[:120]}"
                found = Rung(name, False, None, 0.0, where)
            yield found
            if not found.passed:
                return

    def rungs(self) -> list[tuple[str, Callable[[], Rung]]]:
        """The comparisons that this spec and dtype allow, lowest first."""
        norm, double = self.spec.norm is not None, self.dtype == "float64"
        vetted = (self.spec.name, self.spec.input[1]) in SEEDS
        rungs: list[tuple[str, Callable[[], Rung]]] = [
            ("parameters", self.parameters),
            ("shapes", self.shapes),
            ("forward", self.forward),
        ]
        if double and norm:
            rungs.append(("forward in training", self.forward_in_training))
        if double or (vetted and not norm):
            rungs += [("loss", self.loss), ("gradients", self.gradients)]
        if double and norm:
            rungs.append(("zero gradients", self.zero_gradients))
        if double:
            rungs += [("one step", self.one_step), ("ten steps", self.ten_steps)]
        if double and norm:
            rungs.append(("running statistics", self.running_statistics))
        if double:
            rungs.append(("device", self.places))
        return rungs

    @property
    def tolerance(self) -> float:
        """What a loss, a gradient or a first step may differ by."""
        if self.dtype == "float32":
            return FORWARD["float32"] if self.device == "cpu" else GPU_GRADIENT
        return TRAINING if self.spec.norm else FORWARD["float64"]

    def restart(self) -> None:
        """Give the model the fixture's weights again."""
        self.backend.write_weights(self.model, self.fixture.weights)

    def parameters(self) -> Rung:
        """The weights come back from the model as they went in, none missing and none besides."""
        if self.model is None:
            self.model = self.backend.build(self.spec, self.dtype, self.device)
        self.restart()
        got = self.backend.read_weights(self.model)
        for name in got:
            if name not in self.fixture.weights:
                return Rung("parameters", False, None, EXACT, f"{name} is not in the spec")
        return compare("parameters", got, self.fixture.weights, EXACT)

    def shapes(self) -> Rung:
        """Every stage's output has the shape that arithmetic gives."""
        got = self.backend.forward(self.model, self.fixture.inputs[:1], False)
        for stage, shape in arithmetic.stage_shapes(self.spec).items():
            found = got[stage].shape if stage in got else None
            if found != shape:
                return Rung("shapes", False, None, EXACT, f"{stage} is {found}, not {shape}")
        return Rung("shapes", True, 0.0, EXACT, "")

    def forward(self) -> Rung:
        """Every stage's activations in evaluation mode."""
        self.restart()
        got = self.backend.forward(self.model, self.fixture.inputs, False)
        want = expected(self.fixture).evaluation
        stages = {name: tensor_error(got[name], want[name]) for name in want if name in got}
        return replace(compare("forward", got, want, FORWARD[self.dtype]), stages=stages)

    def forward_in_training(self) -> Rung:
        """Every stage's activations in training mode, where a norm uses the batch's statistics."""
        self.restart()
        got = self.backend.forward(self.model, self.fixture.inputs, True)
        return compare("forward in training", got, expected(self.fixture).training, TRAINING)

    def loss(self) -> Rung:
        """The loss in training mode."""
        self.restart()
        loss, self.found = self.backend.gradients(
            self.model, self.fixture.inputs, self.fixture.labels
        )
        want = expected(self.fixture).loss
        if want < LEAST_LOSS:
            return Rung("loss", False, want, LEAST_LOSS, "the fixture's own loss is too small")
        return compare("loss", {"loss": np.array(loss)}, {"loss": np.array(want)}, self.tolerance)

    def gradients(self) -> Rung:
        """Every gradient, from the head back: the first that differs is nearest to its cause."""
        want = expected(self.fixture).gradients
        order = [name for name in reversed(want) if not self.without_gradient(name)]
        return compare("gradients", self.found, {n: want[n] for n in order}, self.tolerance)

    def without_gradient(self, name: str) -> bool:
        """Whether the norm behind this bias takes it out again."""
        return self.spec.norm is not None and name.endswith("conv.bias")

    def zero_gradients(self) -> Rung:
        """The gradients that are zero on paper, over the largest of their layer's weight."""
        want = expected(self.fixture).gradients
        worst, where = 0.0, ""
        for name in filter(self.without_gradient, want):
            if name not in self.found:
                missing = f"{name} is missing"
                return Rung("zero gradients", False, None, ZERO_GRADIENT, missing)
            for side in (want, self.found):
                scale = np.max(np.abs(side[name.replace("bias", "weight")]))
                share = float(np.max(np.abs(side[name])) / scale)
                if not share <= ZERO_GRADIENT:
                    return Rung("zero gradients", False, share, ZERO_GRADIENT, name)
                if share > worst:
                    worst, where = share, name
        return Rung("zero gradients", True, worst, ZERO_GRADIENT, where)

    def one_step(self) -> Rung:
        """The weights after the first optimizer step, by the method that training runs."""
        self.restart()
        self.arbiter = GoogLeNet(self.spec, self.fixture.weights)
        self.teacher = Trainer(self.arbiter, self.fixture.recipe)
        self.trainer = self.backend.Trainer(self.model, self.fixture.recipe)
        return self.compare_step("one step", self.tolerance)

    def ten_steps(self) -> Rung:
        """The weights after ten steps; with norm, each from the arbiter's weights."""
        for _ in range(8):
            if self.spec.norm:
                rung = self.compare_step("ten steps", TRAINING)
                if not rung.passed:
                    return rung
            else:
                self.step()
        return self.compare_step("ten steps", TRAINING if self.spec.norm else TEN_STEPS)

    def step(self) -> None:
        """One step on both sides."""
        if self.spec.norm:
            self.backend.write_weights(self.model, self.arbiter.weights)
        self.teacher.update(self.fixture.inputs.astype(np.float64), self.fixture.labels)
        inputs = self.backend.place(self.model, self.fixture.inputs)
        self.trainer.update(inputs, self.fixture.labels)

    def compare_step(self, name: str, tolerance: float) -> Rung:
        """One step on both sides, then every weight."""
        self.step()
        want = {n: array for n, array in self.arbiter.weights.items() if not is_running(n)}
        return compare(name, self.backend.read_weights(self.model), want, tolerance)

    def running_statistics(self) -> Rung:
        """The running means and variances that the last step left."""
        want = {n: array for n, array in self.arbiter.weights.items() if is_running(n)}
        got = self.backend.read_weights(self.model)
        return compare("running statistics", got, want, TRAINING)

    def places(self) -> Rung:
        """Parameters, gradients, optimizer state, batch and outputs lie on the chosen device."""
        found = self.trainer.places()
        for what in ("parameters", "gradients", "batch", "outputs"):  # momentum 0 has no state
            if not found.get(what):
                return Rung("device", False, None, EXACT, f"{what} on no device")
        for what, devices in found.items():
            if devices - {self.device}:
                where = f"{what} on {', '.join(sorted(devices))}, chosen {self.device}"
                return Rung("device", False, None, EXACT, where)
        return Rung("device", True, 0.0, EXACT, "")


@dataclass(frozen=True)
class Expected:
    """What the arbiter finds for a fixture."""

    evaluation: Weights
    training: Weights
    loss: float
    gradients: Weights


@lru_cache
def expected(fixture: Fixture) -> Expected:
    """The arbiter's activations, loss and gradients for a fixture, computed once."""
    inputs = fixture.inputs.astype(np.float64)
    arbiter = GoogLeNet(fixture.spec, fixture.weights)
    evaluation = arbiter.forward(inputs)
    training = arbiter.forward(inputs, training=True)
    return Expected(evaluation, training, *arbiter.gradients(inputs, fixture.labels))


@lru_cache
def fixture_of(spec: Spec, size: int) -> Fixture:
    """The fixture of a spec at a size, drawn once."""
    return draw_fixture(spec.at(size=size, dropout=0.0))


def climb(
    backend: Backend, name: str, spec: Spec, sizes: Sequence[int], dtype: str, device: str
) -> Iterator[Report]:
    """One climb for each size, all with one model: its weights do not depend on the size."""
    model = None
    for size in sizes:
        ladder = Ladder(backend, fixture_of(spec, size), dtype, device, model)
        yield Report(name, backend.VERSION, spec.name, size, dtype, list(ladder.climb()))
        model = ladder.model


def verify(
    name: str, spec: str | None = None, size: int | None = None, device: str = "auto"
) -> Iterator[Report]:
    """Climb with one backend: the defaults, those of one spec, or one spec (d2l) at one size."""
    backend = load(name)
    chosen = choose(device, backend.devices())
    names = list(DEFAULTS) if spec is None and size is None else [spec or D2L.name]
    for case in map(find, names):
        sizes = DEFAULTS[case.name] if size is None else (size,)
        for each in sizes:
            arithmetic.layers(case.at(size=each))  # refuses what is too small
        for dtype in FORWARD:
            yield from climb(backend, name, case, sizes, dtype, chosen)


def verify_planted(name: str, bug: Bug, device: str = "auto") -> Report:
    """Climb with a bug planted in the backend, on the spec and size where it shows."""
    beside = second_device(name, device) if bug.simulated and device in ("auto", "cpu") else None
    backend = load(name)
    with plant(name, bug.name):
        chosen = beside or choose(device, backend.devices())
        return next(climb(backend, name, bug.spec, [bug.size], "float64", chosen))


def second_device(name: str, device: str = "auto") -> str:
    """Where a bug is planted that shows only beside the CPU: the simulated device.

    To be called before the framework's first use. Where there is a GPU and PyTorch, which takes no
    second one beside it, what `device` chooses.
    """
    try:
        return simulated.start(name)
    except DeviceError:
        chosen = choose(device, load(name).devices())
        if chosen == "cpu":
            raise
        return chosen


def in_child(name: str, options: Sequence[str], **streams: Any) -> subprocess.CompletedProcess[str]:
    """`googlenet verify` in a process of its own: two frameworks never need to share one."""
    return subprocess.run(
        [sys.executable, "-m", "common.cli", "verify", "--backend", name, *options],
        cwd=Path(__file__).parent.parent,
        text=True,
        **streams,
    )


def sentence(report: Report) -> str:
    """The outcome of a climb in one line."""
    head = f"{report.backend} {report.version}  {report.spec} at {report.size}, {report.dtype}:"
    rung = report.failed
    if rung is None:
        worst = max(report.rungs, key=lambda rung: rung.error or 0)
        return f"{head} all {len(report.rungs)} rungs hold, worst {worst.error:.0e} ({worst.name})"
    size = "" if rung.error is None else f", error {rung.error:.1e} of {rung.tolerance:.0e}"
    return f"{head} FAILED at {rung.name!r}: {rung.where}{size}"

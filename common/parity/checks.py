"""The parity checks compare a backend with the reference, one check after the other.

The checks: parameters, shapes, forward, forward in training, loss, gradients, zero gradients, one
step, ten steps, running statistics, device. Each check depends on those before it. So the first
failure ends the run, and it names the first stage or tensor that differs. float64 decides; float32
has wider tolerances and fewer checks.

The error of a tensor is its largest difference divided by its largest value. The divisor is at
least 1e-9 of the largest value among tensors of the same kind in the network.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np

from backends.numpy import GoogLeNet, Trainer
from common.contract import Backend
from common.errors import one_line
from common.parity.fixtures import SEEDS, Fixture, expected
from common.parity.report import Check, compare, tensor_error
from common.spec import arithmetic
from common.weights import is_running

EXACT = 0.0
FORWARD = {"float64": 1e-12, "float32": 1e-5}
GPU_GRADIENT = 1e-3  # float32: the gradient of a 5x5 kernel is off by 2e-4, without cuDNN by 8e-7
TRAINING = 1e-11  # with norm, in training mode
TEN_STEPS = 1e-9  # without norm; with norm every step starts from the reference's state
ZERO_GRADIENT = 1e-10  # of a bias before a norm, as a share of its weight's gradient
LEAST_LOSS = 0.5  # with a smaller loss, later steps prove nothing


class ParityChecks:
    """One run: a backend's model on a device and the reference, both with a fixture's weights."""

    def __init__(
        self, backend: Backend, fixture: Fixture, dtype: str, device: str, model: Any = None
    ) -> None:
        self.backend, self.fixture, self.dtype, self.device = backend, fixture, dtype, device
        self.spec, self.model = fixture.spec, model

    def run_checks(self, steps: bool = True) -> Iterator[Check]:
        """The results, one by one, up to the first failure; an exception is a failure.

        Without `steps` only what another image size can change: up to the gradients.
        """
        for name, check in self.checks(steps):
            try:
                found = check()
            except Exception as error:  # an injected or real bug may raise anything
                where = f"{type(error).__name__}: {one_line(error)[:120]}"
                found = Check(name, False, None, 0.0, where)
            yield found
            if not found.passed:
                return

    def checks(self, steps: bool = True) -> list[tuple[str, Callable[[], Check]]]:
        """The names and methods of the checks for this spec and dtype, in order."""
        norm, double = self.spec.norm is not None, self.dtype == "float64"
        vetted = (self.spec.name, self.spec.input[1]) in SEEDS
        checks: list[tuple[str, Callable[[], Check]]] = [
            ("parameters", self.parameters),
            ("shapes", self.shapes),
            ("forward", self.forward),
        ]
        if double and norm:
            checks.append(("forward in training", self.forward_in_training))
        if double or (vetted and not norm):
            checks += [("loss", self.loss), ("gradients", self.gradients)]
        if double and norm:
            checks.append(("zero gradients", self.zero_gradients))
        if double and steps:
            checks += [("one step", self.one_step), ("ten steps", self.ten_steps)]
            if norm:
                checks.append(("running statistics", self.running_statistics))
            checks.append(("device", self.devices))
        return checks

    @property
    def tolerance(self) -> float:
        """The tolerance of the loss, the gradients and the first step."""
        if self.dtype == "float32":
            return FORWARD["float32"] if self.device == "cpu" else GPU_GRADIENT
        return TRAINING if self.spec.norm else FORWARD["float64"]

    def restart(self) -> None:
        """Write the fixture's weights into the model again."""
        self.backend.write_weights(self.model, self.fixture.weights)

    def parameters(self) -> Check:
        """The model returns exactly the weights that were written, no name missing or extra."""
        if self.model is None:
            self.model = self.backend.build(self.spec, self.dtype, self.device)
        self.restart()
        got = self.backend.read_weights(self.model)
        for name in got:
            if name not in self.fixture.weights:
                return Check("parameters", False, None, EXACT, f"{name} is not in the spec")
        return compare("parameters", got, self.fixture.weights, EXACT)

    def shapes(self) -> Check:
        """Every stage's output has the shape that `arithmetic` computes."""
        got = self.backend.forward(self.model, self.fixture.inputs[:1], False)
        for stage, shape in arithmetic.stage_shapes(self.spec).items():
            found = got[stage].shape if stage in got else None
            if found != shape:
                return Check("shapes", False, None, EXACT, f"{stage} is {found}, not {shape}")
        return Check("shapes", True, 0.0, EXACT, "")

    def forward(self) -> Check:
        """Every stage's activations in evaluation mode."""
        self.restart()
        got = self.backend.forward(self.model, self.fixture.inputs, False)
        want = expected(self.fixture).evaluation
        stages = {name: tensor_error(got[name], want[name]) for name in want if name in got}
        return replace(compare("forward", got, want, FORWARD[self.dtype]), stages=stages)

    def forward_in_training(self) -> Check:
        """Every stage's activations in training mode, where a norm uses the batch's statistics."""
        self.restart()
        got = self.backend.forward(self.model, self.fixture.inputs, True)
        return compare("forward in training", got, expected(self.fixture).training, TRAINING)

    def loss(self) -> Check:
        """The loss in training mode."""
        self.restart()
        loss, self.found = self.backend.gradients(
            self.model, self.fixture.inputs, self.fixture.labels
        )
        want = expected(self.fixture).loss
        if want < LEAST_LOSS:
            return Check("loss", False, want, LEAST_LOSS, "the fixture's own loss is too small")
        return compare("loss", {"loss": np.array(loss)}, {"loss": np.array(want)}, self.tolerance)

    def gradients(self) -> Check:
        """Every gradient, from the head back: the first that differs is nearest to the cause."""
        want = expected(self.fixture).gradients
        order = [name for name in reversed(want) if not self.without_gradient(name)]
        return compare("gradients", self.found, {n: want[n] for n in order}, self.tolerance)

    def without_gradient(self, name: str) -> bool:
        """Whether this is a bias that a norm after it removes, so that its gradient is zero.

        The norm need not be its own: in Inception-ResNet-v2 a sum and another convolution stand
        between. There the reference's gradient is nothing but rounding.
        """
        if not name.endswith("conv.bias"):
            return False
        want = expected(self.fixture).gradients
        bias, weight = (
            np.max(np.abs(want[each])) for each in (name, name.replace("bias", "weight"))
        )
        return name.replace("conv.bias", "norm.bias") in want or bool(
            bias <= ZERO_GRADIENT * weight
        )

    def zero_gradients(self) -> Check:
        """Gradients that are zero in theory, relative to the largest of the same layer's weight."""
        want = expected(self.fixture).gradients
        worst, where = 0.0, ""
        for name in filter(self.without_gradient, want):
            if name not in self.found:
                missing = f"{name} is missing"
                return Check("zero gradients", False, None, ZERO_GRADIENT, missing)
            for side in (want, self.found):
                scale = np.max(np.abs(side[name.replace("bias", "weight")]))
                share = float(np.max(np.abs(side[name])) / scale)
                if not share <= ZERO_GRADIENT:
                    return Check("zero gradients", False, share, ZERO_GRADIENT, name)
                if share > worst:
                    worst, where = share, name
        return Check("zero gradients", True, worst, ZERO_GRADIENT, where)

    def one_step(self) -> Check:
        """The weights after the first optimizer step, by the method that training uses."""
        self.restart()
        self.reference = GoogLeNet(self.spec, self.fixture.weights)
        self.reference_trainer = Trainer(self.reference, self.fixture.recipe)
        self.trainer = self.backend.Trainer(self.model, self.fixture.recipe)
        # some frameworks move misplaced tensors in the first step, so look before it
        self.before = self.backend.tensor_devices(self.trainer)
        return self.compare_step("one step", self.tolerance)

    def ten_steps(self) -> Check:
        """The weights after ten steps; with norm, each step starts from the reference's weights."""
        for _ in range(8):
            if self.spec.norm:
                check = self.compare_step("ten steps", TRAINING)
                if not check.passed:
                    return check
            else:
                self.step()
        return self.compare_step("ten steps", TRAINING if self.spec.norm else TEN_STEPS)

    def step(self) -> None:
        """One step on both sides."""
        if self.spec.norm:
            self.backend.write_weights(self.model, self.reference.weights)
        self.reference_trainer.train_step(
            self.fixture.inputs.astype(np.float64), self.fixture.labels
        )
        inputs = self.backend.place(self.model, self.fixture.inputs)
        labels = self.backend.place_labels(self.model, self.fixture.labels)
        outputs = self.trainer.train_step(inputs, labels)
        self.last = {"batch": (inputs, labels), "outputs": outputs}

    def compare_step(self, name: str, tolerance: float) -> Check:
        """One step on both sides, then a comparison of every weight."""
        self.step()
        want = {n: array for n, array in self.reference.weights.items() if not is_running(n)}
        return compare(name, self.backend.read_weights(self.model), want, tolerance)

    def running_statistics(self) -> Check:
        """The running means and variances after the last step."""
        want = {n: array for n, array in self.reference.weights.items() if is_running(n)}
        got = self.backend.read_weights(self.model)
        return compare("running statistics", got, want, TRAINING)

    def devices(self) -> Check:
        """Parameters, gradients, optimizer state, batch and outputs lie on the chosen device."""
        found = self.backend.tensor_devices(self.trainer)
        found = {what: devices | self.before[what] for what, devices in found.items()}
        for what, tensors in self.last.items():
            found[what] = {self.backend.device_name(tensor) for tensor in tensors}
        for what in ("parameters", "gradients", "batch", "outputs"):  # momentum 0 has no state
            if not found.get(what):
                return Check("device", False, None, EXACT, f"{what} on no device")
        for what, devices in found.items():
            if devices - {self.device}:
                where = f"{what} on {', '.join(sorted(devices))}, chosen {self.device}"
                return Check("device", False, None, EXACT, where)
        return Check("device", True, 0.0, EXACT, "")

"""The parity checks, run on the reference itself as a backend: honest, then with one fault.

Long because every check gets every fault that it can meet, on one shared fixture.
"""

# ruff: noqa: D102 - common/contract.py says what a backend's methods do

import json
import math
from contextlib import nullcontext
from dataclasses import dataclass, replace
from itertools import count

import numpy as np
import pytest
from small_specs import EVERY  # in tests/support

from backends.mutations.helpers import unbiased
from backends.numpy import GoogLeNet, googlenet
from backends.numpy import Trainer as Teacher
from common.errors import DeviceError, SpecError
from common.parity import checks, fixtures, suite
from common.parity.checks import FORWARD, LEAST_LOSS
from common.parity.fixtures import SEEDS, draw_fixture
from common.parity.mutations import LINEAR_STEM, SMALL, SMALL_AUX, SMALL_BN, InjectedBug
from common.parity.report import CHECK_KEY, CHECKS_KEY, Check, Report, compare, tensor_error
from common.parity.suite import DEFAULTS, run_checks, verify
from common.recipe import Recipe
from common.spec import (
    SPECS,
    Conv,
    GlobalAvgPool,
    Inception,
    Linear,
    MaxPool,
    Norm,
    Spec,
    find,
    inception,
)
from common.weights import draw, is_running, shapes

SIZE = 9
BLOCK = inception(3, (4, 4), (4, 4), 4)
TINY = Spec(
    "tiny",
    (1, SIZE, SIZE),
    stage1=(Conv(4, 3, stride=2, padding=1), MaxPool(3, stride=2, padding=1)),
    stage2=(Conv(6, 1),),
    stage3=(BLOCK,),
    stage4=(BLOCK,),
    stage5=(BLOCK, GlobalAvgPool()),
    head=Linear(3),
)
TINY_BN = replace(TINY, name="tiny-bn", norm=Norm(1e-3, 0.9))
BOTH = {spec.name: spec for spec in (TINY, TINY_BN)}

PLAIN_CHECKS = [
    "parameters",
    "shapes",
    "forward",
    "loss",
    "gradients",
    "one step",
    "ten steps",
    "device",
]
NORM_CHECKS = [
    "parameters",
    "shapes",
    "forward",
    "forward in training",
    "loss",
    "gradients",
    "zero gradients",
    "one step",
    "ten steps",
    "running statistics",
    "device",
]


@dataclass
class Native:
    """The fake framework's model."""

    net: GoogLeNet
    dtype: str
    device: str


class Fake:
    """The reference as a backend.

    A fault is given what its function found, and returns what it says. Faults go by the
    function's name; `train_step` is the trainer's.
    """

    VERSION = "0.1"

    def __init__(self, **faults):
        self.faults, self.calls = faults, []
        self.Trainer = lambda model, recipe: FakeTrainer(self, model, recipe)

    def say(self, function, found, *context):
        self.calls.append(function)
        fault = self.faults.get(function)
        return fault(found, *context) if fault else found

    def devices(self):
        return ["cpu", "gpu:0"]

    def build(self, spec, dtype, device):
        self.device = device
        return self.say("build", Native(GoogLeNet(spec, draw(spec, 0)), dtype, device))

    def place(self, model, x):
        return self.say("place", x.astype(np.float64))

    def place_labels(self, model, labels):
        return self.say("place_labels", labels)

    def device_name(self, tensor):
        return self.say("device_name", self.device, tensor)

    def tensor_devices(self, trainer):
        own, none = {trainer.model.device}, set()
        gradients = own if trainer.teacher.steps else none
        return self.say(
            "tensor_devices", {"parameters": own, "gradients": gradients, "state": own}, trainer
        )

    def forward(self, model, x, training):
        found = model.net.forward(x.astype(np.float64), training)
        return self.say("forward", {n: y.astype(model.dtype) for n, y in found.items()}, training)

    def gradients(self, model, x, labels):
        loss, found = model.net.gradients(x.astype(np.float64), labels)
        found = {name: gradient.astype(model.dtype) for name, gradient in found.items()}
        return self.say("gradients", (float(loss), found))

    def read_weights(self, model):
        found = {name: weight.astype(model.dtype) for name, weight in model.net.weights.items()}
        return self.say("read_weights", found)

    def write_weights(self, model, weights):
        for name, weight in self.say("write_weights", weights).items():
            model.net.weights[name][...] = weight


class FakeTrainer:
    """The reference's trainer as a backend's."""

    def __init__(self, backend, model, recipe):
        self.backend, self.model = backend, model
        self.teacher = Teacher(model.net, backend.say("Trainer", recipe))

    def train_step(self, inputs, labels):
        self.before = {name: weight.copy() for name, weight in self.model.net.weights.items()}
        return self.backend.say("train_step", self.teacher.train_step(inputs, labels), self)


def checked(spec=TINY, dtype="float64", **faults):
    """The report of a run with these faults."""
    return next(run_checks(Fake(**faults), "fake", spec, [SIZE], dtype, "cpu"))


def failed_at(check, where, spec=TINY, **faults):
    """Run the checks with these faults: they must end at this one, and with this `where`."""
    report = checked(spec, **faults)
    assert report.failed is not None, report.sentence()
    assert (report.failed.name, report.failed.where) == (check, where), report.failed
    order = NORM_CHECKS if spec.norm else PLAIN_CHECKS
    assert [r.name for r in report.checks] == order[: order.index(check) + 1]
    assert [r.passed for r in report.checks[:-1]] == [True] * (len(report.checks) - 1)
    return report.failed


def off(share):
    """A tensor's fault: its largest value off by this share of it."""

    def change(array):
        at = np.unravel_index(np.abs(array).argmax(), array.shape)
        array[at] *= 1 + share
        return array

    return change


def at(name, change):
    """A fault of one tensor of several."""
    return lambda found, *_: {**found, name: change(found[name].copy())}


# Honest backends


@pytest.mark.parametrize("spec", BOTH)
def test_an_honest_backend_runs_all_checks(spec):
    report = checked(BOTH[spec])
    assert report.failed is None, report.sentence()
    assert [check.name for check in report.checks] == (
        NORM_CHECKS if "bn" in spec else PLAIN_CHECKS
    )
    worst = max(check.error for check in report.checks if check.name != "zero gradients")
    assert worst == 0, "it is the reference"
    assert all(check.passed and check.error <= check.tolerance for check in report.checks)


@pytest.mark.parametrize("spec", BOTH)
def test_the_tiny_networks_have_no_dead_layer(spec):
    found = fixtures.expected(fixtures.fixture_of(BOTH[spec], SIZE))
    assert all(np.abs(y).max() > 0 for y in found.evaluation.values())
    assert all(np.abs(g).max() > 0 for g in found.gradients.values())


def test_the_steps_are_ten_and_run_as_training_runs_them():
    backend = Fake()
    list(run_checks(backend, "fake", TINY, [SIZE], "float64", "cpu"))
    for function in ("train_step", "place", "place_labels"):
        assert backend.calls.count(function) == 10, function
    assert backend.calls.count("Trainer") == 1


def test_with_a_norm_every_step_starts_from_the_references_weights():
    drift = 3e-12  # of every weight in every step: 10 of them together would be too much

    def drifts(found, trainer):
        for name in trainer.before:
            trainer.model.net.weights[name] *= 1 + drift
        return found

    assert checked(TINY_BN, train_step=drifts).failed is None


def test_in_float32_only_what_float32_can_hold_is_compared(monkeypatch):
    low = ["parameters", "shapes", "forward"]
    for spec in BOTH.values():
        report = checked(spec, "float32")
        assert (report.failed, [check.name for check in report.checks]) == (None, low)
    monkeypatch.setitem(SEEDS, ("tiny", SIZE), 0)
    monkeypatch.setitem(SEEDS, ("tiny-bn", SIZE), 0)
    assert [check.name for check in checked(TINY_BN, "float32").checks] == low
    report = checked(TINY, "float32")
    assert (report.failed, [r.name for r in report.checks]) == (None, [*low, "loss", "gradients"])
    assert [check.tolerance for check in report.checks] == [0, 0, 1e-5, 1e-5, 1e-5]


@pytest.mark.parametrize(("share", "passed"), [(5e-6, True), (2e-5, False)])
def test_float32_is_held_to_a_hundred_thousandth(monkeypatch, share, passed):
    monkeypatch.setitem(SEEDS, ("tiny", SIZE), 0)
    faults = {
        "forward": at("stage3", off(share)),
        "loss": lambda found: (found[0] * (1 + share), found[1]),
        "gradients": lambda found: (found[0], at("head.bias", off(share))(found[1])),
    }
    for check, fault in faults.items():
        report = checked(TINY, "float32", **{check if check == "forward" else "gradients": fault})
        assert (report.failed is None) == passed
        assert passed or report.failed.name == check


def test_float32_weights_that_are_not_the_bits_that_were_written_fail():
    one_bit = at("stage4.0.branch1x1.0.conv.weight", lambda w: np.nextafter(w, np.float32(9)))
    failed = checked(TINY, "float32", read_weights=one_bit).failed
    assert (failed.name, failed.where) == ("parameters", "stage4.0.branch1x1.0.conv.weight")


# One fault: parameters and shapes

DEEP = "stage3.0.branch5x5.1.conv.weight"


def test_a_lost_tensor_fails_at_the_parameters():
    failed_at(
        "parameters",
        f"{DEEP} is missing",
        read_weights=lambda found: {n: w for n, w in found.items() if n != DEEP},
    )


def test_an_extra_tensor_fails_at_the_parameters():
    failed_at(
        "parameters",
        "head.scale is not in the spec",
        read_weights=lambda found: {**found, "head.scale": np.ones(3)},
    )


def test_a_weight_that_is_off_by_its_last_bit_fails_at_the_parameters():
    def nudge(weight):
        weight[-1, -1, -1, -1] = np.nextafter(weight[-1, -1, -1, -1], 9)
        return weight

    failed = failed_at("parameters", DEEP, read_weights=at(DEEP, nudge))
    assert 0 < failed.error < 1e-15


def test_weights_that_are_not_taken_in_fail_at_the_parameters():
    first = "stage1.0.conv.weight"  # drawn by the build, not the fixture's
    failed_at("parameters", first, write_weights=lambda weights: {})


def test_a_running_variance_that_is_left_out_fails_at_the_parameters():
    name = "stage5.0.branch3x3.0.norm.running_var"
    fault = at(name, np.ones_like)
    failed_at("parameters", name, TINY_BN, read_weights=fault)


@pytest.mark.parametrize(
    ("change", "shape"),
    [
        (lambda y: y[:, :, 1:], "(1, 15, 2, 3)"),
        (lambda y: y.transpose(0, 2, 3, 1), "(1, 3, 3, 15)"),
        (lambda y: y[0], "(15, 3, 3)"),
    ],
)
def test_a_stage_of_another_shape_fails_at_the_shapes(change, shape):
    where = f"stage3 is {shape}, not (1, 15, 3, 3)"
    failed_at("shapes", where, forward=at("stage3", change))


def test_a_stage_that_is_not_given_fails_at_the_shapes():
    failed_at(
        "shapes",
        "head is None, not (1, 3)",
        forward=lambda found, _: {n: y for n, y in found.items() if n != "head"},
    )


# One fault: activations, loss, gradients


@pytest.mark.parametrize("stage", ["stage1", "stage4", "head"])
@pytest.mark.parametrize("spec", BOTH)
def test_an_activation_that_is_off_by_1e_11_of_the_largest_fails_at_the_forward(spec, stage):
    failed = failed_at("forward", stage, BOTH[spec], forward=at(stage, off(1e-11)))
    assert failed.error == pytest.approx(1e-11, rel=1e-2)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_activations_that_are_no_numbers_fail_at_the_forward(value):
    failed = failed_at("forward", "stage2", forward=at("stage2", lambda y: y * 0 + value))
    assert failed.error == math.inf


def test_a_fault_in_all_later_stages_is_named_by_the_first():
    def spreads(found, training):
        return {n: y if n in ("stage1", "stage2") else y * 1.5 for n, y in found.items()}

    failed_at("forward", "stage3", forward=spreads)


def test_a_fault_of_training_mode_alone_fails_there():
    def fault(found, training):
        return at("stage2", off(1e-10))(found) if training else found

    failed_at("forward in training", "stage2", TINY_BN, forward=fault)


@pytest.mark.parametrize(("spec", "share"), [("tiny", 1e-11), ("tiny-bn", 1e-10)])
def test_a_loss_that_is_off_fails_at_the_loss(spec, share):
    fault = lambda found: (found[0] * (1 + share), found[1])  # noqa: E731
    failed_at("loss", "loss", BOTH[spec], gradients=fault)


@pytest.mark.parametrize("loss", [math.nan, math.inf])
def test_a_loss_that_is_no_number_fails_at_the_loss(loss):
    failed_at("loss", "loss", gradients=lambda found: (loss, found[1]))


def test_a_fixture_whose_own_loss_is_too_small_fails_at_the_loss(monkeypatch):
    monkeypatch.setattr(checks, "LEAST_LOSS", 100)
    failed_at("loss", "the fixture's own loss is too small")


@pytest.mark.parametrize("name", ["stage1.0.conv.weight", DEEP, "head.weight", "head.bias"])
@pytest.mark.parametrize(("spec", "share"), [("tiny", 1e-11), ("tiny-bn", 1e-10)])
def test_a_gradient_that_is_off_fails_at_the_gradients(spec, share, name):
    fault = lambda found: (found[0], at(name, off(share))(found[1]))  # noqa: E731
    failed_at("gradients", name, BOTH[spec], gradients=fault)


def test_gradients_are_named_from_the_head_back():
    def detached(found):  # below stage4 no gradient is right
        loss, found = found
        low = ("stage1", "stage2", "stage3")
        return loss, {n: g * (2.0 if n.startswith(low) else 1.0) for n, g in found.items()}

    failed_at("gradients", "stage3.0.branch_pool.1.conv.bias", gradients=detached)


def test_a_gradient_that_is_not_given_fails_at_the_gradients():
    failed_at(
        "gradients",
        f"{DEEP} is missing",
        gradients=lambda found: (found[0], {n: g for n, g in found[1].items() if n != DEEP}),
    )


BEHIND = "stage4.0.branch1x1.0.conv"  # a convolution with a norm behind it


def of_the_weights(found, share):
    """The gradients with one bias's, zero on paper, at this share of its weight's."""
    loss, found = found
    size = np.abs(found[f"{BEHIND}.weight"]).max() * share
    return loss, {**found, f"{BEHIND}.bias": np.array([0, size, 0])}


@pytest.mark.parametrize("value", [1e-9, 1.0])
def test_a_gradient_that_is_not_zero_where_it_is_on_paper_fails_at_the_zero_gradients(value):
    fault = lambda found: of_the_weights(found, value)  # noqa: E731
    failed_at("zero gradients", f"{BEHIND}.bias", TINY_BN, gradients=fault)
    fault = lambda found: of_the_weights(found, 1e-12)  # noqa: E731
    assert checked(TINY_BN, gradients=fault).failed is None


def test_no_gradient_at_all_where_it_is_zero_on_paper_fails_too():
    name = f"{BEHIND}.bias"
    fault = lambda found: (found[0], {n: g for n, g in found[1].items() if n != name})  # noqa: E731
    failed_at("zero gradients", f"{name} is missing", TINY_BN, gradients=fault)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_gradient_that_is_no_number_where_it_is_zero_on_paper_fails_too(value):
    fault = lambda found: of_the_weights(found, value)  # noqa: E731
    failed_at("zero gradients", f"{BEHIND}.bias", TINY_BN, gradients=fault)


# One fault: steps, running statistics, device


@pytest.mark.parametrize("spec", BOTH)
def test_a_head_that_the_optimizer_forgot_fails_at_one_step(spec):
    def forgets(found, trainer):
        for name in ("head.weight", "head.bias"):
            trainer.model.net.weights[name][...] = trainer.before[name]
        return found

    failed_at("one step", "head.weight", BOTH[spec], train_step=forgets)


def test_a_gradient_applied_twice_fails_at_one_step():
    def twice(found, trainer):
        for name, weight in trainer.model.net.weights.items():
            weight += weight - trainer.before[name]
        return found

    failed_at("one step", "stage1.0.conv.weight", train_step=twice)


def test_momentum_that_is_ignored_fails_at_ten_steps():
    failed_at(
        "ten steps", "stage1.0.conv.weight", Trainer=lambda recipe: replace(recipe, momentum=0)
    )


@pytest.mark.parametrize("number", [2, 9, 10])
def test_a_fault_of_any_later_step_fails_at_ten_steps(number):
    def fault(found, trainer):
        if trainer.backend.calls.count("train_step") == number:
            trainer.model.net.weights["head.bias"][0] += 1e-6
        return found

    failed_at("ten steps", "head.bias", TINY_BN, train_step=fault)
    # Without a norm the fault is carried on, and whatever it has moved by the tenth is named.
    assert checked(TINY, train_step=fault).failed.name == "ten steps"


def test_the_unbiased_running_variance_fails_at_the_running_statistics():
    def fault(found, trainer):
        weights = trainer.model.net.weights
        for name, value in unbiased(TINY_BN, 8, trainer.before, weights).items():
            weights[name][...] = value
        return found

    name = "stage1.0.norm.running_var"
    failed_at("running statistics", name, TINY_BN, train_step=fault)


def test_momentum_as_the_weight_of_the_new_value_fails_at_the_running_statistics():
    def fault(found, trainer):
        for name, weight in trainer.model.net.weights.items():
            if is_running(name):
                new = (weight - 0.9 * trainer.before[name]) / 0.1
                weight[...] = 0.1 * trainer.before[name] + 0.9 * new
        return found

    failed_at("running statistics", "stage1.0.norm.running_mean", TINY_BN, train_step=fault)


PROBED = ("parameters", "gradients", "state")  # by the backend; the others by `device_name`


def lies_on(kind, *devices):
    """A fault: what is of this kind lies on these devices, batch and outputs in turn."""
    if kind in PROBED:
        return {"tensor_devices": lambda found, trainer: {**found, kind: set(devices)}}
    named = count()

    def name(device, tensor):
        of_the_batch = isinstance(tensor, np.ndarray)
        if of_the_batch != (kind == "batch"):
            return device
        return devices[next(named) % len(devices)]

    return {"device_name": name}


@pytest.mark.parametrize("kind", [*PROBED, "batch", "outputs"])
def test_what_lies_on_another_device_fails_at_the_device(kind):
    failed_at("device", f"{kind} on gpu:0, chosen cpu", **lies_on(kind, "gpu:0"))
    failed_at("device", f"{kind} on cpu, gpu:0, chosen cpu", **lies_on(kind, "cpu", "gpu:0"))


def test_labels_alone_on_another_device_fail_at_the_device():
    def name(device, tensor):
        return "gpu:0" if getattr(tensor, "dtype", None) == np.int64 else device

    failed_at("device", "batch on cpu, gpu:0, chosen cpu", device_name=name)


@pytest.mark.parametrize("kind", ["parameters", "state"])
def test_what_lies_elsewhere_before_the_first_step_alone_fails_at_the_device(kind):
    """Some frameworks move it in the first step."""

    def fault(found, trainer):
        return found if trainer.teacher.steps else {**found, kind: {"gpu:0"}}

    failed_at("device", f"{kind} on cpu, gpu:0, chosen cpu", tensor_devices=fault)


def test_a_batch_on_another_device_fails_at_the_device_behind_a_norm_too():
    failed_at("device", "batch on gpu:1, chosen cpu", TINY_BN, **lies_on("batch", "gpu:1"))


@pytest.mark.parametrize("kind", ["parameters", "gradients", "batch", "outputs"])
def test_what_lies_nowhere_fails_at_the_device(kind):
    def drop(found, trainer):
        return {key: places for key, places in found.items() if key != kind}

    for faults in {
        "parameters": (lies_on(kind), {"tensor_devices": drop}),
        "gradients": (lies_on(kind), {"tensor_devices": drop}),
        "batch": (lies_on(kind, ""),),
        "outputs": (lies_on(kind, ""), {"train_step": lambda found, trainer: ()}),
    }[kind]:
        report = checked(**faults)
        assert report.failed is not None, report.sentence()
        assert report.failed.name == "device"
        assert kind in report.failed.where


def test_plain_gradient_descent_has_no_state_to_lie_anywhere():
    assert checked(**lies_on("state")).failed is None


RAISED = {
    "build": "parameters",
    "write_weights": "parameters",
    "read_weights": "parameters",
    "forward": "shapes",
    "gradients": "loss",
    "Trainer": "one step",
    "tensor_devices": "one step",
    "place": "one step",
    "place_labels": "one step",
    "train_step": "one step",
    "device_name": "device",
}


@pytest.mark.parametrize("error", [RuntimeError, KeyError])
@pytest.mark.parametrize("function", RAISED)
def test_what_a_framework_raises_is_a_check_that_failed(function, error):
    def raises(*_):
        raise error("device cpu:\n  expected gpu:0")

    report = checked(**{function: raises})
    failed = report.failed
    assert (failed.name, failed.passed, failed.error) == (RAISED[function], False, None)
    assert failed.where.startswith(f"{error.__name__}: ")
    assert "\n" not in failed.where
    assert "FAILED" in report.sentence()


def test_a_long_message_is_cut():
    def raises(*_):
        raise RuntimeError("word " * 1000)

    assert len(checked(forward=raises).failed.where) < 200


# One tensor, several tensors


@pytest.mark.parametrize(
    ("got", "want", "error"),
    [
        ([1.0, 2.5], [1.0, 2.0], 0.25),
        ([-1.0, 4.0], [1.0, -4.0], 2.0),
        ([1.0, 2.0], [1.0, 2.0], 0.0),
        ([0.0, 0.0], [0.0, 0.0], 0.0),
        ([1.0], [1.0, 1.0], math.inf),
        ([[1.0, 1.0]], [1.0, 1.0], math.inf),
        (1.0, [1.0], math.inf),
        ([1.0, math.nan], [1.0, 1.0], math.inf),
        ([math.inf, 1.0], [1.0, 1.0], math.inf),
        ([-math.inf, 1.0], [1.0, 1.0], math.inf),
    ],
)
def test_the_error_of_a_tensor(got, want, error):
    assert tensor_error(np.array(got), np.array(want)) == error


def test_the_error_of_a_tensor_that_should_be_zero_is_measured_by_the_floor():
    assert tensor_error(np.array([1e-12]), np.zeros(1), 1e-9) == pytest.approx(1e-3)
    assert tensor_error(np.array([3.0]), np.array([2.0]), 1e-9) == 0.5
    assert tensor_error(np.zeros(1), np.zeros(1), 1e-9) == 0


def test_a_tensor_that_should_be_zero_and_has_no_floor_is_infinitely_wrong():
    assert tensor_error(np.array([1e-12]), np.zeros(1)) == math.inf
    zeros = {"stage5": np.zeros((2, 3)), "head": np.ones(2)}
    check = compare("forward", {**zeros, "stage5": np.ones((2, 3))}, zeros, 1e-12)
    assert (check.passed, check.error, check.where) == (False, math.inf, "stage5")


def test_the_error_is_measured_in_float64():
    got = np.array([1, 1 + 2**-23], np.float32)
    assert tensor_error(got, np.array([1.0, 1.0])) == 2**-23
    assert tensor_error(np.array([1.0, 1 + 2**-52]), np.ones(2, np.float32)) == 2**-52
    assert tensor_error(np.ones(1, np.float32), np.array([1 + 2**-30])) > 2**-31


def test_compare_names_the_first_that_differs_and_not_the_worst():
    want = {name: np.ones(2) for name in ("stage1", "stage2", "stage3")}
    got = {"stage3": np.full(2, 9.0), "stage2": np.full(2, 1.5), "stage1": np.ones(2)}
    assert compare("forward", got, want, 0.1) == Check("forward", False, 0.5, 0.1, "stage2")


def test_compare_names_the_worst_where_all_hold():
    want = {name: np.ones(2) for name in ("stage1", "stage2", "stage3")}
    got = {name: want[name] + error for name, error in zip(want, (0.25, 0.5, 0.125), strict=True)}
    assert compare("forward", got, want, 1.0) == Check("forward", True, 0.5, 1.0, "stage2")
    assert compare("forward", got, want, 0.5).passed, "the tolerance itself is still allowed"
    assert compare("forward", want, want, 0.0) == Check("forward", True, 0.0, 0.0, "")


def test_compare_fails_for_what_is_missing_and_leaves_out_what_was_not_asked_for():
    want = {"stage1": np.ones(2), "stage2": np.ones(2)}
    check = compare("forward", {"stage1": np.ones(2)}, want, 1.0)
    assert check == Check("forward", False, None, 1.0, "stage2 is missing")
    assert compare("forward", {**want, "stage9": np.zeros(1)}, want, 0.0).passed


@pytest.mark.parametrize("fault", [np.ones(3), np.array([1, np.nan]), np.array([np.inf, 1])])
def test_compare_fails_for_what_cannot_be_compared(fault):
    check = compare("forward", {"stage1": fault}, {"stage1": np.ones(2)}, 1e9)
    assert check == Check("forward", False, math.inf, 1e9, "stage1")


def test_a_tiny_tensor_is_measured_by_the_largest_of_its_kind():
    want = {"a.conv.bias": np.array([1e-13]), "b.conv.bias": np.array([-2.0])}
    want |= {"a.conv.weight": np.array([1e-13]), "head.bias": np.array([1e6])}
    got = {**want, "a.conv.bias": np.array([0.0])}
    check = compare("gradients", got, want, 1e-4)
    assert check.error == pytest.approx(1e-13 / 2e-9)
    assert (check.passed, check.where) == (True, "a.conv.bias")
    got = {**want, "a.conv.weight": np.array([0.0])}  # the only one of its kind
    assert compare("gradients", got, want, 1e-4).error == 1
    got = {**want, "b.conv.bias": np.array([-1.0])}  # the floor raises no larger scale
    assert compare("gradients", got, want, 1e-4).error == 0.5


# Reports

RAISES = {"read_weights": lambda found: 1 / 0}
WRONG = {"forward": at("stage2", off(1e-3))}


@pytest.mark.parametrize("faults", [{}, RAISES, WRONG], ids=["honest", "raises", "wrong"])
def test_a_report_is_plain_data(faults):
    report = checked(**faults)
    plain = report.as_json()
    assert list(plain) == ["backend", "version", "spec", "size", "dtype", "rungs"]  # as users know
    head = [plain[key] for key in ("backend", "version", "spec", "size", "dtype")]
    assert head == ["fake", "0.1", "tiny", SIZE, "float64"]
    for check in plain[CHECKS_KEY]:
        stages = ["stages"] if check["name"] == "forward" else []
        assert list(check) == ["name", "passed", "error", "tolerance", "where", *stages]
    again = json.loads(json.dumps(plain, allow_nan=False))
    assert again == plain
    assert Report.from_json(again) == report


def test_what_is_no_report_is_refused():
    plain = checked().as_json()
    with pytest.raises(KeyError):
        Report.from_json({key: value for key, value in plain.items() if key != CHECKS_KEY})
    with pytest.raises(TypeError):
        Report.from_json({key: value for key, value in plain.items() if key != "spec"})
    with pytest.raises(TypeError):
        Report.from_json({**plain, CHECKS_KEY: [{"name": "forward", "colour": "red"}]})


def test_what_caught_a_bug_is_plain_data():
    caught = checked(**WRONG).caught()
    assert list(caught) == [CHECK_KEY, "error", "where"] == ["rung", "error", "where"]
    assert (caught[CHECK_KEY], caught["where"]) == ("forward", "stage2")
    assert caught["error"] == pytest.approx(1e-3)
    raised = {"error": None, "where": "ZeroDivisionError: division by zero"}
    assert checked(**RAISES).caught() == {CHECK_KEY: "parameters", **raised}
    assert checked().caught() == {}, "nothing did"


def test_an_infinite_error_is_json_too():
    plain = checked(forward=at("stage2", lambda y: y * np.nan)).as_json()
    json.dumps(plain, allow_nan=False)
    assert plain[CHECKS_KEY][-1]["stages"]["stage2"] is None


def test_a_forward_pass_says_the_error_of_every_stage():
    stages = checked(**WRONG).failed.stages
    assert list(stages) == ["stage1", "stage2", "stage3", "stage4", "stage5", "head"]
    assert stages["stage2"] == pytest.approx(1e-3)
    assert [error for name, error in stages.items() if name != "stage2"] == [0] * 5


def test_the_outcome_in_one_line():
    head = "fake 0.1  tiny at 9, float64:"
    assert checked().sentence().startswith(f"{head} all 8 checks hold, worst ")
    wrong = checked(**WRONG).sentence()
    assert wrong == f"{head} FAILED at 'forward': stage2, error 1.0e-03 of 1e-12"
    raised = checked(**RAISES).sentence()
    assert raised == f"{head} FAILED at 'parameters': ZeroDivisionError: division by zero"


# Fixtures


@pytest.mark.parametrize("spec", [*BOTH.values(), *(s.at(size=33) for s in EVERY.values())])
def test_on_a_fixture_every_number_matters(spec):
    fixture = draw_fixture(spec)
    batch = 8 if spec.norm else 2
    assert fixture.inputs.shape == (batch, *spec.input)
    assert fixture.inputs.dtype == np.float32, "every backend gets the same bits"
    assert 0 <= fixture.inputs.min() < 0.1 < 0.9 < fixture.inputs.max() <= 1
    assert fixture.labels.dtype == np.int64
    assert fixture.labels.tolist() == [k % spec.head.width for k in range(batch)]
    assert {name: w.shape for name, w in fixture.weights.items()} == shapes(spec)
    for name, weight in fixture.weights.items():
        assert weight.dtype == np.float32
        some = set(weight.ravel()[:500].tolist())
        # of 500 values in float32 two may be equal by chance
        assert len(some - {0.0, 1.0}) >= 0.99 * min(500, weight.size), f"{name} repeats itself"
        assert not name.endswith("running_var") or weight.min() > 0
    assert spec.norm is None or fixture.recipe.momentum == 0
    assert spec.norm is not None or fixture.recipe.momentum == Recipe(momentum=0.9).momentum


def test_a_fixture_is_the_same_every_time_and_another_for_another_seed():
    first, second, other = draw_fixture(TINY), draw_fixture(TINY), draw_fixture(TINY, 1)
    assert all((first.weights[name] == w).all() for name, w in second.weights.items())
    assert (first.inputs == second.inputs).all()
    assert all((first.weights[name] != w).any() for name, w in other.weights.items())


def test_a_run_starts_from_the_vetted_seed_where_there_is_one(monkeypatch):
    spec = replace(TINY, name="vetted")
    monkeypatch.setitem(SEEDS, ("vetted", 11), 5)
    for size, seed in ((11, 5), (12, 0)):
        found, want = fixtures.fixture_of(spec, size), draw_fixture(spec.at(size=size), seed)
        assert found.spec == want.spec
        assert (found.inputs == want.inputs).all()


CASES = [
    (name, size)
    for name, sizes in DEFAULTS.items()
    for size in sizes
    if find(name).norm is None and size != 97
]


@pytest.mark.parametrize(("name", "size"), CASES)
def test_the_loss_stays_large_enough_to_prove_something(name, size):
    fixture = fixtures.fixture_of(find(name), size)
    teacher = Teacher(GoogLeNet(fixture.spec, fixture.weights), fixture.recipe)
    inputs = fixture.inputs.astype(np.float64)
    losses = [teacher.train_step(inputs, fixture.labels)[0] for _ in range(10)]
    assert min(losses) > LEAST_LOSS
    assert losses[-1] < losses[0]


def distances(fixture, monkeypatch):
    """How near the fixture comes to a tie: of a ReLU with 0, of a pool's largest with its next.

    Each is a share of its tensor's standard deviation. Values that are equal are the zeros that a
    ReLU left: no rounding parts them, and a window whose largest is 0 passes no gradient on.
    """
    found = []
    relu, max_pool = googlenet.relu, googlenet.max_pool

    def watched_relu(x):
        found.append(np.abs(x).min() / x.std())
        return relu(x)

    def watched_pool(x, row):
        w = googlenet.windows(x, row, -np.inf)
        largest = w.max((-1, -2), keepdims=True)
        below = np.where(w < largest, w, -np.inf).max((-1, -2))
        gaps = (largest[..., 0, 0] - below)[largest[..., 0, 0] > 0]
        if gaps.size:
            found.append(gaps.min() / x.std())
        return max_pool(x, row)

    with monkeypatch.context() as patch:
        patch.setattr(googlenet, "relu", watched_relu)
        patch.setattr(googlenet, "max_pool", watched_pool)
        GoogLeNet(fixture.spec, fixture.weights).forward(fixture.inputs.astype(np.float64))
    assert len(found) > 4, "the ReLUs and pools were not watched"
    return found


@pytest.mark.parametrize(("name", "size"), SEEDS)
def test_the_vetted_fixtures_lie_far_from_every_tie(name, size, monkeypatch):
    fixture = fixtures.fixture_of(find(name), size)
    assert min(distances(fixture, monkeypatch)) > 1e-6


def test_an_arbitrary_fixture_does_not_lie_far_from_every_tie(monkeypatch):
    fixture = draw_fixture(find("d2l").at(size=96), 38)
    assert min(distances(fixture, monkeypatch)) < 1e-8


def test_the_distance_to_a_tie_of_a_pool_is_seen(monkeypatch):
    idle = (MaxPool(1, stride=1),)
    pool = (MaxPool(2, stride=2), GlobalAvgPool())
    spec = Spec("pool", (1, 2, 4), (Conv(1),), idle, idle, idle, pool, Linear(1))
    fixture = draw_fixture(spec)
    fixture.weights["stage1.0.conv.weight"][...] = 1
    fixture.weights["stage1.0.conv.bias"][...] = 0
    fixture.inputs[...] = np.array([[1, 2, -1, -1], [2, 1.75, -1, -1]])
    found = distances(fixture, monkeypatch)
    std = np.maximum(fixture.inputs, 0).std()
    assert found[-1] == pytest.approx(0.25 / std)  # 2 and 2 are equal, 1.75 is next; -1: no window


# verify()


@pytest.fixture
def asked(monkeypatch):
    """What `verify` runs, in place of the runs."""
    found = []

    def note(backend, name, spec, sizes, dtype, device):
        for size in sizes:
            found.append((name, spec.name, size, dtype, device))
            yield len(found)

    monkeypatch.setattr(suite, "load", lambda name: Fake())
    monkeypatch.setattr(suite, "run_checks", note)
    return found


@pytest.mark.parametrize(
    ("spec", "size", "cases"),
    [
        (None, None, DEFAULTS),
        ("d2l", None, {"d2l": (96, 97, 33, 1)}),
        ("blog-224", None, {"blog-224": (96, 97, 33, 21)}),
        ("d2l-bn", None, {"d2l-bn": (96, 97)}),
        (None, 40, {"d2l": (40,)}),
        ("blog-224", 50, {"blog-224": (50,)}),
        ("d2l-bn", 96, {"d2l-bn": (96,)}),
        ("mini", None, {"mini": (33,)}),  # no default: at its own size
    ],
)
def test_verify_runs_for_every_case_in_both_dtypes(asked, spec, size, cases):
    count = sum(map(len, cases.values()))
    assert list(verify("torch", spec, size)) == list(range(1, 2 * count + 1))
    assert asked == [
        ("torch", case, at, dtype, "gpu:0")
        for case, sizes in cases.items()
        for dtype in FORWARD
        for at in sizes
    ]


def test_the_defaults_hold_every_spec_or_one_that_it_is_a_part_of():
    parts = {"mini", "torchvision", "torchvision-aux", "torchvision-imagenet", "googlenet-paper"}
    parts |= {"d2l-v2", "d2l-factorized", "d2l-residual"}
    parts |= {name for name in SPECS if name.startswith(("bn-inception", "inception-"))}
    assert set(DEFAULTS) == set(SPECS) - (parts - {"inception-v3"})
    assert sum(map(len, DEFAULTS.values())) == 14
    assert list(FORWARD) == ["float64", "float32"]


def test_the_sizes_of_a_spec_share_one_model():
    backend = Fake()
    reports = list(run_checks(backend, "fake", TINY, [SIZE, SIZE + 2], "float64", "cpu"))
    assert [report.failed for report in reports] == [None, None]
    assert [report.size for report in reports] == [SIZE, SIZE + 2]
    first, second = ([check.name for check in report.checks] for report in reports)
    assert (first[: len(second)], first[len(second) :]) == (
        second,
        ["one step", "ten steps", "device"],
    )
    assert second[-1] == "gradients"
    assert backend.calls.count("build") == 1


def test_verify_runs_one_case_at_a_time(asked):
    reports = verify("torch")
    assert asked == [], "a generator"
    next(reports)
    assert asked == [("torch", "d2l", 96, "float64", "gpu:0")]


def test_verify_runs_on_the_device_that_was_asked_for(asked):
    list(verify("torch", "d2l", 1, "cpu"))
    assert {case[-1] for case in asked} == {"cpu"}
    with pytest.raises(DeviceError):
        list(verify("torch", "d2l", 1, "gpu:7"))


@pytest.mark.parametrize(
    ("simulated", "device", "wanted"),
    [
        (False, "auto", "gpu:0"),
        (False, "cpu", "cpu"),
        (True, "auto", "simulated:0"),
        (True, "cpu", "simulated:0"),
        (True, "gpu", "gpu:0"),
        (True, "gpu:0", "gpu:0"),
    ],
)
def test_a_bug_that_no_cpu_shows_is_on_the_simulated_device_unless_a_gpu_is_asked_for(
    asked, monkeypatch, simulated, device, wanted
):
    injected = []
    monkeypatch.setattr(suite.simulated, "start", lambda name: "simulated:0")
    monkeypatch.setattr(suite, "inject", lambda *what: injected.append(what) or nullcontext())
    bug = InjectedBug("a-bug", "what it does", ("device",), TINY, SIZE, simulated)
    suite.verify_injected("torch", bug, device)
    assert asked == [("torch", TINY.name, SIZE, "float64", wanted)]
    assert injected == [("torch", "a-bug")]


@pytest.mark.parametrize("spec", [SMALL, SMALL_BN, LINEAR_STEM, SMALL_AUX], ids=lambda s: s.name)
def test_a_bug_s_network_has_one_block_in_each_stage_of_blocks(spec):
    """Each stage has an edge where a bug may show; more blocks only take time."""
    blocks = [sum(isinstance(row, Inception) for row in rows) for _, rows in spec.stages()]
    assert blocks == [0, 0, 1, 1, 1]


@pytest.mark.parametrize(
    ("spec", "size"), [("blog-224", 20), ("blog-224", 0), (None, 0), (None, -3), ("none", 33)]
)
def test_what_no_network_can_take_is_refused_before_any_is_built(monkeypatch, spec, size):
    backend = Fake()
    monkeypatch.setattr(suite, "load", lambda name: backend)
    with pytest.raises(SpecError):
        list(verify("torch", spec, size))
    assert backend.calls == []


def test_an_unknown_spec_is_refused_without_a_size_too(asked):
    with pytest.raises(SpecError):
        list(verify("torch", "none"))


def test_verify_ends_in_reports_of_the_real_run(monkeypatch):
    monkeypatch.setattr(suite, "load", lambda name: Fake())
    reports = list(verify("torch", "d2l", 1, "cpu"))
    assert [report.failed for report in reports] == [None, None]
    assert [(r.backend, r.spec, r.size, r.dtype) for r in reports] == [
        ("torch", "d2l", 1, "float64"),
        ("torch", "d2l", 1, "float32"),
    ]

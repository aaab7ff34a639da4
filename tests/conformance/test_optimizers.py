"""Every optimizer is the reference's textbook formula, under a rate that changes at every step."""

from dataclasses import replace

import numpy as np
import pytest
from small_specs import NARROW  # in tests/support
from steps import step

from backends.numpy import GoogLeNet, Trainer
from common.parity.fixtures import draw_fixture
from common.parity.report import compare
from common.recipe import Recipe

SPEC = NARROW  # without a norm gradients agree to the last bits
STEPS = 6

RULES = {
    "sgd": Recipe(lr=1e-3),
    "momentum": Recipe(lr=1e-3, momentum=0.9),
    "nesterov": Recipe(lr=1e-3, momentum=0.9, nesterov=True),
    "adam": Recipe(lr=1e-3, optimizer="adam"),
}
DECAYED = {
    f"{name}, decay and smoothing": replace(rule, weight_decay=0.05, label_smoothing=0.1)
    for name, rule in RULES.items()
}
RULES |= DECAYED


def pair(backend, built, recipe):
    """The backend's trainer in float64 and the reference's, from the same weights."""
    fixture = draw_fixture(SPEC)
    model = built(SPEC, "float64")
    backend.write_weights(model, fixture.weights)
    reference = GoogLeNet(SPEC, fixture.weights)
    return fixture, backend.Trainer(model, recipe), Trainer(reference, recipe)


def both_step(backend, fixture, ours, theirs, number):
    """One step of both at that step's rate, on a batch of its own; the difference of the losses."""
    rate = replace(ours.recipe, schedule="cosine", warmup=0.3).rate(number, STEPS)
    random = np.random.RandomState(number)
    x, labels = random.rand(*fixture.inputs.shape), random.randint(0, 10, len(fixture.labels))
    ours.set_step(rate, number)
    theirs.set_step(rate, number)
    loss, _ = step(backend, ours, x, labels)
    return abs(float(loss) - theirs.train_step(x, labels)[0])


def assert_same(backend, ours, theirs):
    weights = backend.read_weights(ours.model)
    check = compare("weights", weights, theirs.model.weights, 1e-11)
    assert check.passed, check
    state = ours.read_state()
    assert list(state) == list(theirs.state)
    for slot, want in theirs.state.items():
        check = compare(slot, state[slot], want, 1e-11)
        assert check.passed, check


@pytest.mark.parametrize("rule", RULES)
def test_steps_at_changing_rates_are_the_textbooks(backend, built, rule):
    fixture, ours, theirs = pair(backend, built, RULES[rule])
    for number in range(STEPS):
        assert both_step(backend, fixture, ours, theirs, number) < 1e-11
    assert_same(backend, ours, theirs)


@pytest.mark.parametrize("rule", ["nesterov", "adam"])
@pytest.mark.parametrize("used", [True, False], ids=["used before", "new"])
def test_the_state_goes_from_one_trainer_into_another(backend, built, rule, used):
    """Into a new one and into one that has made steps of its own already."""
    fixture, ours, theirs = pair(backend, built, RULES[rule])
    for number in range(3):
        both_step(backend, fixture, ours, theirs, number)
    weights, state = backend.read_weights(ours.model), ours.read_state()
    other = backend.Trainer(ours.model, RULES[rule])
    if used:
        step(backend, other, fixture.inputs, fixture.labels)
    backend.write_weights(other.model, weights)
    other.write_state(state, 3)
    for number in range(3, STEPS):
        both_step(backend, fixture, other, theirs, number)
    assert_same(backend, other, theirs)


def test_a_new_trainers_state_is_zero(backend, built):
    _, ours, theirs = pair(backend, built, RULES["adam"])
    state = ours.read_state()
    assert {slot: list(arrays) for slot, arrays in state.items()} == {
        slot: list(arrays) for slot, arrays in theirs.state.items()
    }
    assert not any(array.any() for arrays in state.values() for array in arrays.values())
    assert ours.recipe.slots() == ("mean", "square")
    assert pair(backend, built, RULES["sgd"])[1].read_state() == {}

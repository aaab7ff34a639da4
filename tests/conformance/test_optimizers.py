"""Every optimizer is the reference's textbook formula, under a rate that changes at every step."""

from dataclasses import replace

import numpy as np
import pytest
from small_specs import NARROW  # in tests/support
from steps import step, step_in_parts

from backends.numpy import GoogLeNet, Trainer
from common.parity.fixtures import draw_fixture
from common.parity.report import compare
from common.recipe import Recipe

SPEC = NARROW  # without a norm gradients agree to the last bits
STEPS = 6
EXAMPLES = 5
CLIP = 4.0

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
#: about half of the norm: the weight decay is added to what is clipped
RULES |= {f"{name}, clipped": replace(rule, clip=CLIP) for name, rule in DECAYED.items()}
#: parts of 2, 2 and 1 examples: of the norm of the whole batch, and of no part's
RULES |= {
    "nesterov, parts": replace(RULES["nesterov"], accumulate=3),
    "adam, clipped, parts": replace(RULES["adam"], clip=CLIP, accumulate=3),
    "more parts than examples": replace(RULES["sgd"], clip=CLIP, accumulate=7),
}


def pair(backend, built, recipe):
    """The backend's trainer in float64 and the reference's, from the same weights."""
    fixture = draw_fixture(SPEC)
    model = built(SPEC, "float64")
    backend.write_weights(model, fixture.weights)
    reference = GoogLeNet(SPEC, fixture.weights)
    return fixture, backend.Trainer(model, recipe), Trainer(reference, recipe)


def both_step(backend, ours, theirs, number):
    """One step of both, with the rate and a batch of that number; the difference of the losses.

    Ours is in the parts of its recipe.
    """
    rate = replace(ours.recipe, schedule="cosine", warmup=0.3).rate(number, STEPS)
    random = np.random.RandomState(number)
    x, labels = random.rand(EXAMPLES, *SPEC.input), random.randint(0, 10, EXAMPLES)
    ours.set_step(rate, number)
    theirs.set_step(rate, number)
    loss = step_in_parts(backend, ours, x, labels)
    return abs(loss - theirs.train_step(x, labels)[0])


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
    _, ours, theirs = pair(backend, built, RULES[rule])
    for number in range(STEPS):
        assert both_step(backend, ours, theirs, number) < 1e-11
    assert_same(backend, ours, theirs)


@pytest.mark.parametrize("rule", ["nesterov", "adam"])
@pytest.mark.parametrize("used", [True, False], ids=["used before", "new"])
def test_the_state_goes_from_one_trainer_into_another(backend, built, rule, used):
    """Into a new one and into one that has made steps of its own already."""
    fixture, ours, theirs = pair(backend, built, RULES[rule])
    for number in range(3):
        both_step(backend, ours, theirs, number)
    weights, state = backend.read_weights(ours.model), ours.read_state()
    other = backend.Trainer(ours.model, RULES[rule])
    if used:
        step(backend, other, fixture.inputs, fixture.labels)
    backend.write_weights(other.model, weights)
    other.write_state(state, 3)
    for number in range(3, STEPS):
        both_step(backend, other, theirs, number)
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


def test_a_norm_below_the_largest_changes_nothing(backend, built):
    """To the last bit, but for Keras, which multiplies by clip / clip."""
    found = []
    for clip in (0.0, 100.0):
        _, ours, theirs = pair(backend, built, replace(RULES["sgd"], clip=clip))
        both_step(backend, ours, theirs, 0)
        found.append(backend.read_weights(ours.model))
    check = compare("weights", *found, 1e-15)
    assert check.passed, check

"""The reference's optimizers: by hand, and against closed forms that are written in another way.

The gradients are given, so no network has a part in it; the smoothed loss is held against central
differences.
"""

import math
from fractions import Fraction
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backends.numpy import Trainer, cross_entropy
from common.recipe import Recipe

close = pytest.approx


def trainer(recipe, **weights):
    """The reference's trainer over these weights, beside a running mean that no step may touch."""
    arrays = {name: np.array(value, float) for name, value in weights.items()}
    arrays["norm.running_mean"] = np.array([7.0])
    return Trainer(SimpleNamespace(weights=arrays, dtype=np.dtype("float64")), recipe)


def walk(recipe, start, gradients, rates=None):
    """The weight of one number after each of these gradients."""
    found, one = [], trainer(recipe, w=[start])
    for gradient, rate in zip(gradients, rates or [recipe.lr] * len(gradients), strict=True):
        one.set_step(rate, 0)
        one.apply({"w": np.array([gradient], float)})
        found.append(one.model.weights["w"].item())
    assert one.model.weights["norm.running_mean"].item() == 7
    return found


# By hand: the gradients 1, 2 and 3 from the weight 1; binary fractions, so that `==` is right


def test_gradient_descent_by_hand():
    assert walk(Recipe(lr=0.5), 1, [1, 2, 3]) == [0.5, -0.5, -2]


def test_momentum_by_hand():  # velocities 1, 2.5, 4.25
    assert walk(Recipe(lr=0.5, momentum=0.5), 1, [1, 2, 3]) == [0.5, -0.75, -2.875]


def test_nesterov_by_hand():
    # velocities 1, 2.5, 4.25; directions 1 + 0.5, 2 + 1.25, 3 + 2.125
    recipe = Recipe(lr=0.5, momentum=0.5, nesterov=True)
    assert walk(recipe, 1, [1, 2, 3]) == [0.25, -1.375, -3.9375]


def test_a_changed_rate_leaves_the_velocity_alone():
    recipe = Recipe(lr=0.5, momentum=0.5)
    assert walk(recipe, 1, [1, 2, 3], [0.5, 0.25, 0.125]) == [0.5, -0.125, -0.65625]
    recipe = Recipe(lr=0.5, momentum=0.5, nesterov=True)
    assert walk(recipe, 1, [1, 2, 3], [0.5, 0, 0.25]) == [0.25, 0.25, -1.03125]


def test_adam_by_hand():
    # beta1 = beta2 = 1/2, eps = 1. Of the gradients 1 and 3:
    # m = 1/2, then 7/4; m / (1 - beta1^t) = 1, then 7/3
    # s = 1/2, then 19/4; s / (1 - beta2^t) = 1, then 19/3
    recipe = Recipe(optimizer="adam", lr=0.5, beta1=0.5, beta2=0.5, eps=1)
    first, second = walk(recipe, 2, [1, 3])
    assert first == 2 - 0.5 * 1 / (1 + 1)
    assert second == close(first - 0.5 * (7 / 3) / (math.sqrt(19 / 3) + 1), rel=1e-15)


def test_adam_s_eps_stands_outside_the_corrected_root():
    # a first step is lr g / (|g| + eps), whatever the betas: with eps inside the root, or
    # corrected with it, it would be another
    for gradient in (4.0, 0.25, -3.0):
        for betas in ({}, {"beta1": 0.5, "beta2": 0.25}):
            recipe = Recipe(optimizer="adam", lr=0.5, eps=2, **betas)
            want = 1 - 0.5 * gradient / (abs(gradient) + 2)
            assert walk(recipe, 1, [gradient]) == [close(want, rel=1e-15)]


def test_adam_under_a_changing_rate():
    # of a constant gradient both moments are corrected to it: each step is rate g / (|g| + eps)
    recipe = Recipe(optimizer="adam", lr=1, eps=1)
    found = walk(recipe, 0, [3] * 4, [0.5, 0.25, 0, 1])
    assert found == close([-0.375, -0.5625, -0.5625, -1.3125], rel=1e-12)


# Clipping: of the gradients 3 and 4 together the norm is 5


def clipped(recipe):
    one = trainer(recipe, w=[[1.0]], bias=[1.0])
    one.apply({"w": np.array([[3.0]]), "bias": np.array([4.0])})
    return [one.model.weights[name].item() for name in ("w", "bias")]


def test_clipping_by_hand():
    assert clipped(Recipe(lr=1, clip=2.5)) == [1 - 1.5, 1 - 2]
    for clip in (0, 5, 6):
        assert clipped(Recipe(lr=1, clip=clip)) == [1 - 3, 1 - 4]


def test_the_weight_decay_is_not_clipped():
    assert clipped(Recipe(lr=1, clip=2.5, weight_decay=8)) == [1 - (1.5 + 8), 1 - 2]


def test_gradients_of_zero_have_no_norm_to_divide_by():
    assert walk(Recipe(lr=1, clip=1), 1, [0, 4, 0.5]) == [1, 0, -0.5]


# Closed forms, for any gradients

gradients_of = st.lists(st.floats(-4, 4, width=16), min_size=1, max_size=8)
share = st.floats(0.125, 0.96875, width=16)


@settings(deadline=None)
@given(gradients_of, share, st.booleans())
def test_momentum_is_a_sum_of_powers(gradients, momentum, nesterov):
    """In fractions: the velocity after step t is the sum of momentum^(t - i) g_i."""
    recipe = Recipe(lr=0.25, momentum=momentum, nesterov=nesterov)
    mu, exact = Fraction(momentum), [Fraction(gradient) for gradient in gradients]
    weight, want = Fraction(1), []
    for t, gradient in enumerate(exact):
        velocity = sum(mu ** (t - i) * exact[i] for i in range(t + 1))
        weight -= Fraction(1, 4) * (gradient + mu * velocity if nesterov else velocity)
        want.append(float(weight))
    assert walk(recipe, 1, gradients) == close(want, rel=1e-12, abs=1e-12)


@settings(deadline=None)
@given(gradients_of, share, share)
def test_adam_is_weighted_means(gradients, beta1, beta2):
    """Corrected, its moments are means of g and g^2 with the weights beta^(t - i)."""
    recipe = Recipe(optimizer="adam", lr=0.25, beta1=beta1, beta2=beta2, eps=0.5)
    weight, want = 1.0, []
    for t in range(len(gradients)):
        seen = np.array(gradients[: t + 1])
        mean = np.average(seen, weights=beta1 ** np.arange(t, -1.0, -1))
        square = np.average(seen**2, weights=beta2 ** np.arange(t, -1.0, -1))
        weight -= 0.25 * mean / (math.sqrt(square) + 0.5)
        want.append(weight)
    assert walk(recipe, 1, gradients) == close(want, rel=1e-11, abs=1e-11)


# Weight decay


@pytest.mark.parametrize(
    "changes",
    [{}, {"momentum": 0.5}, {"momentum": 0.5, "nesterov": True}, {"optimizer": "adam", "eps": 1}],
)
def test_weight_decay_is_a_gradient_of_weights_and_of_nothing_else(changes):
    recipe = Recipe(lr=0.5, weight_decay=0.25, **changes)
    plain = Recipe(lr=0.5, **changes)
    shapes = {"conv.weight": (2, 1, 1, 1), "head.weight": (1, 2), "head.bias": (2,)}
    shapes["norm.weight"] = (2,)
    weights = {name: np.full(shape, 2.0) for name, shape in shapes.items()}
    decayed, undecayed = trainer(recipe, **weights), trainer(plain, **weights)
    for step in (1.0, 3.0, -2.0):
        gradients = {name: np.full(shape, step) for name, shape in shapes.items()}
        # what decay adds, added by hand; a bias and a norm get nothing
        by_hand = {
            name: gradient
            + 0.25 * undecayed.model.weights[name] * ("head.w" in name or "conv" in name)
            for name, gradient in gradients.items()
        }
        decayed.apply(gradients)
        undecayed.apply(by_hand)
    for name in shapes:
        assert decayed.model.weights[name].tolist() == undecayed.model.weights[name].tolist(), name
    again = trainer(plain, **weights)
    for step in (1.0, 3.0, -2.0):
        again.apply({name: np.full(shape, step) for name, shape in shapes.items()})
    same = {n for n in shapes if (again.model.weights[n] == decayed.model.weights[n]).all()}
    assert same == {"head.bias", "norm.weight"}


def test_weight_decay_by_hand():
    one = trainer(Recipe(lr=0.5, weight_decay=0.5), w=[[4.0]], b=[4.0])
    one.apply({"w": np.array([[1.0]]), "b": np.array([1.0])})
    assert one.model.weights["w"].item() == 4 - 0.5 * (1 + 2)
    assert one.model.weights["b"].item() == 4 - 0.5 * 1


def test_the_gradients_that_were_given_stay_as_they_were():
    for changes in ({"momentum": 0.5}, {"optimizer": "adam"}):
        one, gradient = trainer(Recipe(weight_decay=0.5, **changes), w=[[4.0]]), np.array([[1.0]])
        one.apply({"w": gradient})
        one.apply({"w": gradient})
        assert gradient.item() == 1


# The state


KINDS = [
    {},
    {"momentum": 0.5},
    {"momentum": 0.5, "nesterov": True},
    {"optimizer": "adam", "beta1": 0.5, "beta2": 0.75},
]


@pytest.mark.parametrize("changes", KINDS)
@pytest.mark.parametrize("after", [1, 3])
def test_a_state_that_is_handed_on_goes_on_as_if_nothing_had_been(changes, after):
    recipe = Recipe(lr=0.25, weight_decay=0.125, **changes)
    steps = [{"w": np.array([[g, -g / 2]])} for g in (1.0, -2.0, 0.5, 4.0, -1.0)]
    whole, head = trainer(recipe, w=[[1.0, 2.0]]), trainer(recipe, w=[[1.0, 2.0]])
    for step in steps:
        whole.apply(step)
    for step in steps[:after]:
        head.apply(step)
    state = head.read_state()
    tail = trainer(recipe, w=head.model.weights["w"])
    tail.write_state(state, after)
    head.apply(steps[0])  # the state that was read is a copy
    for step in steps[after:]:
        tail.apply(step)
    assert tail.model.weights["w"].tolist() == whole.model.weights["w"].tolist()
    assert set(state) == set(recipe.slots())
    assert all(set(part) == {"w"} for part in state.values())


@pytest.mark.parametrize("changes", KINDS)
def test_a_state_is_zero_before_a_step(changes):
    for part in trainer(Recipe(**changes), w=[[1.0, 2.0]]).read_state().values():
        assert part["w"].tolist() == [[0, 0]]


def test_what_the_states_hold_by_hand():
    one = trainer(Recipe(momentum=0.5, lr=0.25), w=[1.0])
    for gradient in (1.0, 2.0):
        one.apply({"w": np.array([gradient])})
    assert one.read_state()["velocity"]["w"].tolist() == [2.5]  # no rate in it
    one = trainer(Recipe(optimizer="adam", beta1=0.5, beta2=0.75), w=[1.0])
    for gradient in (1.0, 2.0):
        one.apply({"w": np.array([gradient])})
    assert one.read_state()["mean"]["w"].tolist() == [1.25]  # 1/2, then 1/4 + 1: not corrected
    assert one.read_state()["square"]["w"].tolist() == [1.1875]  # 1/4, then 3/16 + 1


# The smoothed loss


def test_smoothing_by_hand():
    # of logits 0 and log 3 the probabilities are 1/4 and 3/4
    logits = np.array([[0, math.log(3)]])
    quarter, three = math.log(4), math.log(4 / 3)
    for label, (one, other) in ((0, (quarter, three)), (1, (three, quarter))):
        for smoothing in (0, 0.5):
            target = 1 - smoothing / 2  # all classes, the label too, divide the share
            loss, gradient = cross_entropy(logits, np.array([label]), smoothing)
            assert loss == close(target * one + (1 - target) * other, rel=1e-15)
            wanted = [target, 1 - target][:: -1 if label else 1]
            assert gradient[0] == close(np.array([0.25, 0.75]) - wanted, rel=1e-14)


def test_smoothing_divides_the_share_among_all_classes():
    even, labels = np.zeros((3, 5)), np.array([0, 1, 4])
    for smoothing in (0, 0.1, 0.9):
        loss, gradient = cross_entropy(even, labels, smoothing)
        assert loss == close(math.log(5), rel=1e-15), "of even odds it makes no difference"
        assert gradient[0, 1] == close((1 - smoothing) / 5 / 3, rel=1e-13)
        assert np.abs(gradient.sum(1)).max() < 1e-15


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.75])
def test_the_gradient_of_the_smoothed_loss_agrees_with_central_differences(smoothing):
    random = np.random.RandomState(3)
    logits, labels = random.randn(4, 6), random.randint(0, 6, 4)
    gradient = cross_entropy(logits, labels, smoothing)[1]
    for at in np.ndindex(*logits.shape):
        step = np.zeros_like(logits)
        step[at] = 1e-5
        up, down = (cross_entropy(logits + s, labels, smoothing)[0] for s in (step, -step))
        assert gradient[at] == close((up - down) / 2e-5, rel=1e-7, abs=1e-10)


def test_a_smoothed_loss_is_least_at_the_smoothed_odds():
    smoothing, labels = 0.1, np.array([2])
    odds = np.full((1, 5), smoothing / 5)
    odds[0, 2] += 1 - smoothing
    loss, gradient = cross_entropy(np.log(odds), labels, smoothing)
    assert np.abs(gradient).max() < 1e-15
    assert loss == close(-(odds * np.log(odds)).sum(), rel=1e-15)


def test_a_step_uses_the_recipe_s_smoothing_and_returns_the_loss_and_the_number_correct():
    seen = []
    model = SimpleNamespace(
        weights={"w": np.array([1.0])},
        dtype=np.dtype("float64"),
        outputs={"head": np.array([[0.0, 1.0], [1.0, 0.0], [0.0, 2.0]])},
        gradients=lambda x, labels, smoothing: (
            seen.append((x, labels, smoothing)),
            (0.25, {"w": np.array([2.0])}),
        )[1],
    )
    one = Trainer(model, Recipe(lr=0.5, label_smoothing=0.125))
    labels = np.array([1, 1, 1])
    assert one.train_step("x", labels) == (0.25, 2)
    assert seen == [("x", labels, 0.125)]
    assert model.weights["w"].item() == 0


# What is mirrored


def test_the_flipped_are_mirrored_left_to_right_and_no_other():
    images = np.random.RandomState(0).randint(0, 256, (3, 2, 4, 4)).astype(np.uint8)
    model = SimpleNamespace(weights={}, spec=SimpleNamespace(input=(2, 4, 4)))
    one, before = Trainer(model, Recipe()), images.copy()
    found = one.prepare(images, np.array([True, False, True]))
    want = images / 255
    assert found[1].tolist() == want[1].tolist()
    for mirrored in (0, 2):
        for row in range(4):
            for column in range(4):
                side = found[mirrored, :, row, column].tolist()
                assert side == want[mirrored, :, row, 3 - column].tolist()
    assert (images == before).all()
    assert one.prepare(images).tolist() == want.tolist()

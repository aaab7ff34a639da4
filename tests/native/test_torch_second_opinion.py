"""The reference is the same function as an implementation written apart from it, on random specs.

The backends are held against the reference; this test holds the reference. Only PyTorch's suite has
it, because the second opinion (tests/support/second_opinion.py) calls PyTorch's functional API.
"""

from collections import defaultdict
from dataclasses import fields, is_dataclass

import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from random_specs import specs  # in tests/support
from second_opinion import SecondOpinion

from backends.numpy import GoogLeNet, Trainer
from common.parity.fixtures import draw_fixture
from common.recipe import Recipe
from common.spec import inner_rows
from common.spec.serialize import KINDS, to_config

CLOSE = 1e-10  #: of a difference over the largest value of the tensor
#: of a difference, for tensors that are 0 but for rounding: the gradient of a bias before a norm
FLOOR = 1e-12


def differences(got, want, floor=FLOOR):
    """The largest difference of each array that differs by more than rounding, by name."""
    assert got.keys() == want.keys()
    found = {}
    for name, tensor in want.items():
        array = tensor.detach().numpy()
        assert got[name].shape == array.shape, name
        error = np.abs(got[name] - array).max()
        if not error <= CLOSE * np.abs(array).max() + floor:
            found[name] = error
    return found


def alive(weights):
    """The weights with larger biases, so that few ReLUs are 0 for the whole batch."""
    biases = ("conv.bias", "norm.bias", "hidden.bias")
    return {
        name: array.astype(np.float64) + 0.3 * name.endswith(biases)
        for name, array in weights.items()
    }


def compare(spec, seed, batch, recipe):
    """The outputs in both modes, the gradients, and one training step of both implementations."""
    random = np.random.RandomState(seed)
    weights = alive(draw_fixture(spec, seed).weights)
    x = random.uniform(-1, 1, (batch, *spec.input))
    labels = random.randint(0, spec.head.width, batch)

    second = SecondOpinion(to_config(spec), weights)
    reference = GoogLeNet(spec, weights)
    assert not differences(reference.forward(x), second.outputs(x, False)), "evaluation"

    spec = spec.at(dropout=0.0)  # what training drops is random
    reference = GoogLeNet(spec, weights)
    assert not differences(reference.forward(x, training=True), second.outputs(x, True)), "training"

    loss, gradients = second.gradients(x, labels)
    got, found = GoogLeNet(spec, weights).gradients(x, labels)
    floor = FLOOR * max(1.0, *(float(each.abs().max()) for each in gradients.values()))
    assert abs(got - loss) <= CLOSE * loss
    assert not differences(found, gradients, floor), "gradients"

    loss, gradients = second.gradients(x, labels, recipe.label_smoothing)
    after = second.weights | second.running
    for name, gradient in gradients.items():
        decay = recipe.weight_decay if gradient.ndim > 1 else 0.0
        after[name] = after[name] - recipe.lr * (gradient + decay * after[name])
    trainer = Trainer(GoogLeNet(spec, weights), recipe)
    trainer.set_step(recipe.lr, 0)
    got, _ = trainer.train_step(x, labels)
    assert abs(got - loss) <= CLOSE * loss
    assert not differences(trainer.model.weights, after), "after a step"


def parts(value):
    """The parts of a spec, itself too: its norm, its heads, its rows and the rows within those."""
    if isinstance(value, tuple):
        for each in value:
            yield from parts(each)
    elif is_dataclass(value):
        yield value
        for field in fields(value):
            yield from parts(getattr(value, field.name))


def test_the_reference_agrees_with_a_second_opinion_on_random_specs():
    values, nested = defaultdict(set), set()

    @settings(
        max_examples=150,
        derandomize=True,  # or a field might never vary in a run
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(
        spec=specs(),
        seed=st.integers(0, 2**32 - 1),
        batch=st.integers(1, 3),
        recipe=st.builds(
            Recipe,
            label_smoothing=st.sampled_from((0.0, 0.1)),
            weight_decay=st.sampled_from((0.0, 0.5)),
        ),
    )
    def agree(spec, seed, batch, recipe):
        compare(spec, seed, batch, recipe)
        for part in parts(spec):
            for field in fields(part):
                values[type(part), field.name].add(getattr(part, field.name))
            inner = {type(row).__name__ for _, rows in inner_rows(part) for row in rows}
            nested.update((type(part).__name__, name) for name in inner)

    agree()
    for kind in KINDS.values():
        for field in fields(kind):
            named = (kind.__name__, field.name) == ("Spec", "name")
            assert named or len(values[kind, field.name]) > 1, f"{kind}.{field.name} never varies"
    for block in ("Branches", "Residual"):
        assert {(block, name) for name in ("Inception", "Branches", "Residual")} <= nested

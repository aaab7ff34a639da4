"""Recipes in full: steps and evaluations with dropout, norm, smoothing, decay, schedule and flips.

A framework draws its own dropout. So its masks are read out, and the reference takes the same ones.
"""

from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest
from dropout import masks, observed  # in tests/support
from small_specs import NARROW, thin
from steps import channels_first, evaluate

from backends.numpy import GoogLeNet, Trainer, cross_entropy
from common.data.sampling import flip_mask
from common.data.sources import load
from common.parity.fixtures import draw_fixture
from common.parity.report import compare
from common.recipe import RECIPES, Recipe
from common.spec import MINI, SPECS

RATES = {"head": 0.2, "auxiliary.0": 0.7, "auxiliary.1": 0.5}
SHARES = (0.25, 0.4)  #: of the auxiliary heads


def narrowed(name):
    """The network with thin layers and one Inception block a stage, or with two in stage4.

    No two heads of it have the same dropout, nor the same share.
    """
    spec = thin(SPECS[name])
    first = spec.stage4[: bool(spec.auxiliary)]
    heads = [
        replace(row, after=index, dropout=RATES[f"auxiliary.{index}"], share=SHARES[index])
        for index, row in enumerate(spec.auxiliary)
    ]
    return replace(
        spec,
        name=f"narrow {name}",
        stage3=spec.stage3[1:],
        stage4=first + spec.stage4[-2:],
        stage5=spec.stage5[1:],
        dropout=RATES["head"],
        auxiliary=tuple(heads),
    ).at(33, 1)


AUX = narrowed("torchvision-aux")
NARROWED = {
    "d2l": NARROW,
    "d2l-bn": MINI,
    "mini": MINI,
    "blog-224": narrowed("blog-224"),
    "torchvision-aux": AUX,
}
CASES = {**RECIPES, "best, auxiliary heads": replace(RECIPES["best"], spec="torchvision-aux")}
del CASES["d2l-512"]  # `d2l` with another batch size, and each step here takes 8 images
TOLERANCE = 1e-7  #: of float64: Paddle and MXNet take 1 - rate in float32
SEEDS = (0, 1_000_003, 15_485_863)  #: as the loop has them: steps 0 and 1, step 0 of worker 1


@pytest.fixture
def case(request, monkeypatch):
    """A named recipe with a narrow network of 33 pixels."""
    recipe = CASES[request.param]
    network = NARROWED[recipe.spec]
    monkeypatch.setitem(SPECS, network.name, network)
    return replace(recipe, spec=network.name, size=33, precision="float32")


def batch(number, recipe):
    """The images, labels and flip mask of a step."""
    data, part = load("sample"), slice(8 * number, 8 * number + 8)
    flips = flip_mask(8, recipe.seed, number) if recipe.flip else None
    return data.train_images[part], data.train_labels[part], flips


def mostly_right(reference, inputs):
    """Labels of which the head has all but two right, and each other head another number."""
    kept = {name: array.copy() for name, array in reference.weights.items()}
    outputs = reference.forward(inputs, training=True)
    for name, array in kept.items():  # the pass has moved the running statistics
        reference.weights[name][...] = array
    labels = outputs["head"].argmax(1).astype(np.int64)
    labels[:2] = (labels[:2] + 1) % 10
    right = {name: int((outputs[name].argmax(1) == labels).sum()) for name in reference.masks}
    assert right.pop("head") == 6
    assert 6 not in right.values(), "the count of another head would not show"
    return labels


@pytest.mark.parametrize("case", CASES, indirect=True)
def test_a_recipes_steps_and_evaluation_are_the_references(backend, name, case):
    """Two steps at different rates, each from the reference's weights; then an evaluation."""
    recipe, spec = case, case.network()
    model = backend.build(spec, "float64", "cpu")
    reference = GoogLeNet(spec, draw_fixture(spec).weights)
    ours, theirs = backend.Trainer(model, recipe), Trainer(reference, recipe)
    for number, seed in ((1, 1_000_003), (7, 7_000_021)):
        images, labels, flips = batch(number, recipe)
        native = ours.prepare(images, flips)
        inputs = channels_first(native).astype(np.float64)
        assert np.abs(inputs - theirs.prepare(images, flips)).max() < 5e-6
        backend.write_weights(model, reference.weights)
        rate = recipe.rate(number, 10)
        reference.masks = masks(name, ours, native, rate, seed)
        labels = mostly_right(reference, inputs)
        backend.write_weights(model, reference.weights)
        ours.set_step(rate, seed)
        theirs.set_step(rate, seed)
        loss, correct = ours.train_step(native, backend.place_labels(model, labels))
        want, wanted = theirs.train_step(inputs, labels)
        assert float(loss) == pytest.approx(want, rel=TOLERANCE)
        assert int(correct) == wanted
        check = compare("weights", backend.read_weights(model), reference.weights, TOLERANCE)
        assert check.passed, (number, check)
    backend.write_weights(model, reference.weights)
    images, labels, _ = batch(9, recipe)
    want, accuracy = evaluate(theirs, [(images, labels)])
    smoothed, _ = cross_entropy(theirs.logits(images), labels, 0.1)
    assert abs(smoothed - want) > 1e-4 * want, "smoothing would not show"
    assert evaluate(ours, [(images, labels)]) == pytest.approx((want, accuracy), rel=1e-5)


@pytest.fixture
def dropping(backend, built):
    """A trainer whose heads drop, and its inputs."""
    model = built(AUX)
    backend.write_weights(model, draw_fixture(AUX).weights)
    images = np.random.RandomState(0).rand(128, *AUX.input).astype(np.float32)
    return backend.Trainer(model, Recipe()), backend.place(model, images)


def test_every_head_drops_at_its_rate_and_scales_what_it_keeps(name, dropping):
    trainer, inputs = dropping
    trainer.set_step(0.1, SEEDS[1])
    seen = observed(name, trainer, inputs)
    assert set(seen) == set(RATES)
    for head, (got, given) in seen.items():
        counts, kept = got != 0, given != 0
        assert counts.sum() > 4000
        assert 1 - kept[counts].mean() == pytest.approx(RATES[head], abs=0.03), head
        assert given[kept] / got[kept] == pytest.approx(1 / (1 - RATES[head]), rel=1e-5), head


def test_an_evaluation_drops_and_scales_nothing(name, dropping):
    trainer, inputs = dropping
    seen = observed(name, trainer, inputs, training=False)
    assert "head" in seen
    for head, (got, given) in seen.items():
        assert got.any()
        assert np.array_equal(got, given), head


def test_every_step_head_and_worker_draws_a_mask_of_its_own(name, dropping):
    """Two independent masks keep the product of their shares in common."""
    trainer, inputs = dropping
    drawn = {}
    for seed in SEEDS:
        trainer.set_step(0.1, seed)
        drawn |= {(seed, head): both for head, both in observed(name, trainer, inputs).items()}
    for (one, (got, given)), (other, (too, second)) in combinations(drawn.items(), 2):
        counts = (got != 0) & (too != 0)
        common = ((given != 0) & (second != 0))[counts].mean()
        product = (1 - RATES[one[1]]) * (1 - RATES[other[1]])
        assert common == pytest.approx(product, abs=0.03), (one, other)


def test_a_seed_draws_the_same_masks_again(name, dropping):
    """So a resumed run drops what it would have dropped."""
    first, other, again = (masks(name, *dropping, 0.1, SEEDS[index]) for index in (1, 2, 1))
    for head in RATES:
        assert np.array_equal(first[head], again[head])
        assert not np.array_equal(first[head], other[head])

"""Test weights and inputs that make every number of the network matter; the expected results."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from backends.numpy import GoogLeNet
from common.parity.report import kind
from common.recipe import Recipe
from common.spec import BLOG_224, D2L, Spec
from common.weights import Weights, shapes

#: Seeds whose fixtures are far from every tie of a ReLU or a max pool. At a tie, one rounding to
#: float32 could change a gradient. A test measures the distance.
SEEDS = {(D2L.name, 96): 51, (BLOG_224.name, 96): 4}


@dataclass(frozen=True, eq=False)  # compared by identity, because `expected` caches by it
class Fixture:
    """Weights, a batch and a recipe that make every number of the network matter."""

    spec: Spec
    inputs: np.ndarray  # (N, C, H, W), values that float32 holds exactly
    labels: np.ndarray
    weights: Weights
    recipe: Recipe


def draw_fixture(spec: Spec, seed: int | None = None) -> Fixture:
    """He-normal weights; biases and norm values that are not 0, not 1 and not equal."""
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
    batch = 8 if spec.norm else 2  # batch norm needs more than a few images
    inputs = random.uniform(0, 1, (batch, *spec.input)).astype(np.float32)
    labels = np.arange(batch) % spec.head.width
    # With these rates the loss falls and stays above LEAST_LOSS. With norm each step starts from
    # the reference's weights, so there is no velocity from one step to the next.
    recipe = Recipe(lr=5e-5) if spec.norm else Recipe(lr=1e-4, momentum=0.9)
    return Fixture(spec, inputs, labels, weights, recipe)


@dataclass(frozen=True)
class Expected:
    """The reference's results for a fixture."""

    evaluation: Weights
    training: Weights
    loss: float
    gradients: Weights


@lru_cache
def expected(fixture: Fixture) -> Expected:
    """The reference's activations, loss and gradients for a fixture, computed once."""
    inputs = fixture.inputs.astype(np.float64)
    reference = GoogLeNet(fixture.spec, fixture.weights)
    evaluation = reference.forward(inputs)
    training = reference.forward(inputs, training=True)
    return Expected(evaluation, training, *reference.gradients(inputs, fixture.labels))


@lru_cache
def fixture_of(spec: Spec, size: int) -> Fixture:
    """The fixture of a spec at a size, drawn once, without dropout."""
    return draw_fixture(spec.at(size=size, dropout=0.0))

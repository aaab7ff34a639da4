"""Every field of a spec and of a recipe means something: none is ignored in silence.

For each field there is another value, what exactly that changes, and values that are refused. The
fields come from the dataclasses, so a new field without a case fails. Long because each field has a
row in a table here.
"""

import json
import re
from dataclasses import fields, replace
from types import SimpleNamespace
from zlib import crc32

import numpy as np
import pytest

from backends.numpy import GoogLeNet, Trainer
from common import spec as specs
from common.check.graph import build as build_graph
from common.errors import SpecError
from common.recipe import Recipe, read_recipe
from common.spec import (
    AdaptiveAvgPool,
    Affine,
    Auxiliary,
    AvgPool,
    Branches,
    Conv,
    GlobalAvgPool,
    Inception,
    Linear,
    LocalNorm,
    MaxPool,
    Norm,
    Residual,
    Spec,
    inception,
)
from common.spec.arithmetic import layers, stage_shapes
from common.spec.serialize import KINDS, row_from_config, row_to_config
from common.spec.serialize import from_config as spec_from_config
from common.spec.serialize import to_config as spec_to_config
from common.training.checkpoint import Checkpoint, Config
from common.training.loop import TrainingLoop
from common.weights import is_running, shapes

NAN, INF = float("nan"), float("inf")

# Specs

SIDE = Auxiliary(
    after=0,
    pool=AdaptiveAvgPool(3),
    conv=Conv(2, activation=False),
    features=18,
    hidden=Linear(4, activation=True),
    dropout=0.5,
    share=0.25,
)
BASE = Spec(
    name="base",
    input=(2, 10, 9),
    stage1=(Conv(4, 3, 2, 1),),  # (N, 4, 5, 5)
    stage2=(Conv(4, activation=False),),  # a row under test comes behind it
    stage3=(Conv(4, norm=False),),  # a norm would undo a scale or shift
    stage4=(Conv(4, activation=False), Conv(3)),
    stage5=(Conv(3), GlobalAvgPool()),
    head=Linear(3),
    norm=Norm(eps=0.01, momentum=0.75),
    dropout=0.25,
    auxiliary=(SIDE,),
)
FUNCTION = {"evaluation", "training", "dropped", "running", "gradients"}
LISTED = FUNCTION | {"layers"}
SIZED = LISTED | {"shapes"}
MORE = LISTED | {"weights"}
ALL = SIZED | {"weights"}

WIDTHS = (0, -1, 1.5, True, "3", None)
PAIRS = ((1, 1, 1), (1,), (), 1.5, (1, 1.0), True, (1, True), "11", [1, 1], None)
WINDOWS = (0, -1, (3, 0), (0, 3), *PAIRS)
PADDINGS = (-1, (-1, 0), (0, -1), *PAIRS)
FLAGS = (0, 1, "yes", None)
REALS = (0.0, NAN, INF, "1", True, None)
SHARES = (-0.1, 1, 1.5, NAN, "0.5", [0.5], True, None)
INPUTS = ((0, 9, 9), (1, 0, 9), (1, 9, 0), (9, 9), (1, 1, 9, 9), (1, 9.0, 9), [1, 9, 9], 9)
BODY = ((), [Conv(4)], Conv(4), ("Conv",), (GlobalAvgPool(),), None)
CONV = Conv(4, 3, 1, 1)
MAX, AVG = MaxPool(2, 1), AvgPool(3, 1, 1)
BLOCK = inception(1, (1, 1), (1, 1), 1)
FORK = Branches(((Conv(2),), (Conv(2),)))
SUM = Residual((Conv(4, activation=False),))
LRN = LocalNorm(3, 0.5, 0.75, 1.0)
CONSTANTS = Affine((1.0, 2.0, 0.5, -1.0), (0.0, 0.5, 0.0, -0.5))
OTHER = (Conv(4, 3, padding=1, activation=False),)  # another function of the same shape

#: for each field of a part: the part, another value, what that changes, and what is refused
CASES = {
    (Conv, "width"): (CONV, 5, ALL, WIDTHS),
    (Conv, "kernel"): (CONV, (1, 3), ALL, WINDOWS),
    (Conv, "stride"): (CONV, (1, 2), SIZED, WINDOWS),
    (Conv, "padding"): (CONV, (1, 0), SIZED, PADDINGS),
    (Conv, "activation"): (CONV, False, LISTED, FLAGS),
    (Conv, "bias"): (
        CONV,
        False,
        MORE - {"training", "dropped"},  # the norm behind it takes the batch's mean away
        FLAGS,
    ),
    (Conv, "norm"): (CONV, False, MORE, FLAGS),
    (MaxPool, "kernel"): (MAX, (3, 2), SIZED, WINDOWS),
    (MaxPool, "stride"): (MAX, (1, 2), SIZED, WINDOWS),
    (MaxPool, "padding"): (MAX, (0, 1), SIZED, (*PADDINGS, 2)),
    (MaxPool, "ceil"): (MaxPool(2, 2), True, SIZED, FLAGS),
    (AvgPool, "kernel"): (AVG, (2, 3), SIZED, WINDOWS),
    (AvgPool, "stride"): (AVG, (2, 1), SIZED, WINDOWS),
    (AvgPool, "padding"): (AVG, (1, 0), SIZED, (*PADDINGS, 2)),
    (AvgPool, "counted"): (AVG, False, FUNCTION, FLAGS),
    (AdaptiveAvgPool, "size"): (
        AdaptiveAvgPool((2, 3)),
        (3, 2),
        LISTED,
        WINDOWS,
    ),
    **{
        (Inception, name): (BLOCK, (Conv(1, 3, padding=1),), MORE, (*BODY, (CONSTANTS,)))
        for name in ("branch1x1", "branch3x3", "branch5x5", "branch_pool")
    },
    (Branches, "branches"): (
        FORK,
        ((Conv(2),), (Conv(1), Conv(2))),
        MORE,
        ((), ((Conv(4),),), [(Conv(4),), (Conv(4),)], ((Conv(4),), ()), None),
    ),
    (Residual, "rows"): (SUM, OTHER, MORE, BODY),
    (Residual, "scale"): (SUM, 0.5, FUNCTION, REALS),
    (Residual, "activation"): (SUM, False, LISTED, FLAGS),
    (LocalNorm, "size"): (LRN, 5, FUNCTION, (0, 2, 1.0, None)),
    (LocalNorm, "alpha"): (LRN, 0.25, FUNCTION, REALS),
    (LocalNorm, "beta"): (LRN, 0.5, FUNCTION, REALS),
    (LocalNorm, "k"): (LRN, 2.0, FUNCTION, REALS),
    (Affine, "scale"): (CONSTANTS, (1.0, 2.0, 0.5, 1.0), FUNCTION, ((), [1.0], 1.0, (NAN,) * 4)),
    (Affine, "shift"): (CONSTANTS, (0.0,) * 4, FUNCTION, ((), (1.0,), 1.0, ("0",) * 4, None)),
    (Linear, "width"): (SIDE.hidden, 5, MORE - {"running"}, WIDTHS),
    (Linear, "activation"): (SIDE.hidden, False, LISTED - {"running"}, FLAGS),
    (Norm, "eps"): (BASE.norm, 0.1, FUNCTION, REALS),
    (Norm, "momentum"): (BASE.norm, 0.5, {"running"}, SHARES),
    (Auxiliary, "after"): (SIDE, 1, MORE, (-1, 0.5, True, None)),
    (Auxiliary, "pool"): (SIDE, AvgPool(3, 1), LISTED, (MAX, None)),
    (Auxiliary, "conv"): (
        SIDE,
        Conv(2, (3, 1), padding=(1, 0), activation=False),
        MORE,
        (MAX, Linear(2), None),
    ),
    (Auxiliary, "features"): (SIDE, 17, {"refused"}, (0, 1.5, None)),
    (Auxiliary, "hidden"): (
        SIDE,
        Linear(5, activation=True),
        MORE - {"running"},
        (MAX, AVG, 0),
    ),
    (Auxiliary, "dropout"): (SIDE, 0.25, {"dropped"}, SHARES),
    (Auxiliary, "share"): (SIDE, 0.5, {"gradients"}, (0, -1, NAN, "0.3", None)),
    (Spec, "name"): (BASE, "other", {"name"}, (3, None)),
    (Spec, "input"): (BASE, (2, 10, 12), SIZED, INPUTS),
    (Spec, "stage1"): (BASE, (Conv(4, 5, 2, 2),), MORE, BODY),
    (Spec, "stage2"): (BASE, OTHER, MORE, BODY),
    (Spec, "stage3"): (BASE, OTHER, MORE, BODY),
    (Spec, "stage4"): (BASE, (*OTHER, Conv(3)), MORE, BODY),
    (Spec, "stage5"): (
        BASE,
        (Conv(3), Conv(3), GlobalAvgPool()),
        MORE,
        ((), (Conv(4),), (GlobalAvgPool(), Conv(4)), GlobalAvgPool(), None),
    ),
    (Spec, "head"): (BASE, Linear(4), ALL - {"running"}, (None, Conv(3), Linear(3, True))),
    (Spec, "norm"): (BASE, None, MORE, (3, Conv(3))),
    (Spec, "dropout"): (BASE, 0.5, {"dropped"}, SHARES),
    (Spec, "auxiliary"): (BASE, (), ALL, (SIDE, (3,), [SIDE], None)),
}


def network(part):
    """The base network with the part in its place."""
    match part:
        case Spec():
            return part
        case Norm():
            return replace(BASE, norm=part)
        case Auxiliary():
            return replace(BASE, auxiliary=(part,))
        case Linear():
            return replace(BASE, auxiliary=(replace(SIDE, hidden=part),))
        case AdaptiveAvgPool():
            return replace(BASE, auxiliary=(replace(SIDE, pool=part, features=12),))
    return replace(BASE, stage2=(*BASE.stage2, part))


def weights_of(spec):
    """Weights that depend on their names and shapes alone; few ReLUs are 0 for the whole batch."""
    found, positive = {}, ("running_var", "norm.weight", "bias")
    for name, shape in shapes(spec).items():
        drawn = np.random.RandomState(crc32(name.encode())).uniform(-1, 1, shape)
        found[name] = np.abs(drawn) + 0.25 if name.endswith(positive) else drawn
    return found


def observed(spec):
    """All that a spec says, by aspect: its listing, its weights and what the reference computes."""
    try:
        table = layers(spec)
    except SpecError as error:
        assert_sentence(error)
        return {"refused": str(error)}
    weights, random = weights_of(spec), np.random.RandomState(0)
    x, labels = random.uniform(-1, 1, (3, *spec.input)), np.array([0, 1, 2])
    model = GoogLeNet(spec, weights)
    evaluation = model.forward(x)
    assert {name: (1, *y.shape[1:]) for name, y in evaluation.items()} == stage_shapes(spec)
    checked = build_graph(spec).run(x, weights)  # `googlenet check` reads the rows too
    np.testing.assert_allclose(checked["output"], evaluation["head"], rtol=1e-9, atol=1e-12)
    for index in range(len(spec.auxiliary)):
        name = f"auxiliary.{index}"
        got = checked[f"output.{name}"]
        np.testing.assert_allclose(got, evaluation[name], rtol=1e-9, atol=1e-12)
    training = model.forward(x, training=True)
    running = {name: array for name, array in model.weights.items() if is_running(name)}
    loss, gradients = GoogLeNet(spec, weights).gradients(x, labels)
    model = GoogLeNet(spec, weights)
    model.masks["head"] = random.randint(0, 2, (3, spec.channels()[-1]))
    for index, side in enumerate(spec.auxiliary):
        model.masks[f"auxiliary.{index}"] = random.randint(0, 2, (3, side.hidden.width))
    return {
        "name": table[0].name,
        "layers": [replace(table[0], name=""), *table[1:]],
        "shapes": stage_shapes(spec),
        "weights": shapes(spec),
        "evaluation": heads(evaluation),
        "training": heads(training),
        "dropped": heads(model.forward(x, training=True)),
        "running": running,
        "gradients": gradients | {"loss": np.array(loss)},
    }


def heads(outputs):
    return {name: array for name, array in outputs.items() if not name.startswith("stage")}


def changes(before, after):
    """The aspects of the second that are not those of the first."""
    return {aspect for aspect in after if not same(before.get(aspect), after[aspect])}


def same(one, other):
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(same(one[name], other[name]) for name in one)
    if isinstance(one, np.ndarray):
        return one.shape == other.shape and np.allclose(one, other, rtol=1e-9, atol=1e-9)
    return one == other


def assert_sentence(error):
    assert "\n" not in str(error)
    assert str(error).endswith(".")


def test_every_field_of_a_spec_has_a_case():
    assert {*CASES} == {(kind, each.name) for kind in KINDS.values() for each in fields(kind)}


@pytest.mark.parametrize(("kind", "field"), CASES, ids=lambda each: getattr(each, "__name__", each))
def test_another_value_changes_what_the_field_says_and_no_more(kind, field):
    part, value, expected, _ = CASES[kind, field]
    changed = replace(part, **{field: value})
    assert changes(observed(network(part)), observed(network(changed))) == expected
    spec = kind is Spec
    to_config, from_config = (
        (spec_to_config, spec_from_config) if spec else (row_to_config, row_from_config)
    )
    config, plain = to_config(part), to_config(changed)
    assert {name for name in plain if plain[name] != config[name]} == {field}
    assert from_config(json.loads(json.dumps(plain))) == changed != part
    assert hash(changed) != hash(part)


@pytest.mark.parametrize(
    ("kind", "field", "value"),
    [(*case, value) for case, (_, _, _, refused) in CASES.items() for value in refused],
    ids=lambda each: getattr(each, "__name__", repr(each)),
)
def test_what_is_no_value_of_a_field_is_refused_by_name(kind, field, value):
    part = CASES[kind, field][0]
    with pytest.raises(SpecError) as caught:
        replace(part, **{field: value})
    assert_sentence(caught.value)
    owner = BASE.name if kind is Spec and field != "name" else kind.__name__
    assert re.match(rf"{owner}\.{field}\b.* is .*: it must be .*\.$", str(caught.value)), (
        caught.value
    )


# Recipes

SMALL = Recipe(
    name="small", spec="base", size=9, batch_size=4, epochs=2, momentum=0.5, flip=True, seed=1
)
ADAM = replace(SMALL, optimizer="adam", momentum=0.0)
STEPS = {"batches", "rates", "seeds"}  # they have an entry for each step
COUNTS = (0, -1, 1.5, 2.0, True, "3", None)
RATES = (-0.1, NAN, INF, -INF, 1e60, "1", [0.1], True, None)
WORDS = ("", "SGD", "linear", "float64", "bf16", None)

#: for each field of a recipe: the recipe, another value, what that changes, and what is refused
RECIPES = {
    "name": (SMALL, "other", {"name"}, (3, None, "a\nb", "a" * 101)),
    "spec": (SMALL, "wider", {"network", "start", "update"}, (3, None, "a\nb", "a" * 101)),
    "size": (SMALL, 11, {"network", "update"}, COUNTS),
    "batch_size": (SMALL, 3, STEPS, COUNTS),
    "epochs": (SMALL, 3, STEPS | {"mirrored"}, COUNTS),
    "optimizer": (replace(SMALL, momentum=0.0), "adam", {"update", "state"}, WORDS),
    "lr": (SMALL, 0.2, {"rates"}, RATES),
    "momentum": (SMALL, 0.75, {"update"}, (*SHARES, 0.99999999999)),
    "nesterov": (SMALL, True, {"update"}, FLAGS),
    "beta1": (ADAM, 0.5, {"update"}, SHARES),
    "beta2": (ADAM, 0.5, {"update"}, SHARES),
    "eps": (ADAM, 0.5, {"update"}, (0, *RATES)),
    "schedule": (SMALL, "cosine", {"rates"}, WORDS),
    "warmup": (SMALL, 0.5, {"rates"}, SHARES),
    "clip": (SMALL, 0.01, {"update"}, RATES),
    "accumulate": (SMALL, 2, {"batches"}, (*COUNTS, 5)),  # of the four in a batch
    "weight_decay": (SMALL, 0.5, {"update"}, RATES),
    "label_smoothing": (SMALL, 0.25, {"update"}, SHARES),
    "dropout": (SMALL, 0.25, {"network"}, SHARES),
    "flip": (SMALL, False, {"mirrored"}, FLAGS),
    "precision": (SMALL, "bfloat16", {"precision"}, WORDS),
    "seed": (SMALL, 2, {"start", "batches", "mirrored", "seeds"}, (-1, 2**32, *COUNTS[2:])),
}


@pytest.fixture
def known(monkeypatch):
    """Two networks that recipes find by name."""
    plain = replace(BASE, input=(1, 9, 9), dropout=0.0, auxiliary=())
    monkeypatch.setitem(specs.SPECS, "base", plain)
    wider = replace(plain, name="wider", stage3=(Conv(5),))
    monkeypatch.setitem(specs.SPECS, "wider", wider)


@pytest.fixture
def run(known, reference, pictures):
    """All that a recipe says, by aspect: a run's steps, and what its optimizer makes of weights."""
    data = pictures(10, 2)
    numbers = {image.tobytes(): number for number, image in enumerate(data.train_images)}

    def observe(recipe):
        steps, mirrored, built = [], [], []

        class Noted(Trainer):
            def set_step(self, rate, seed):
                super().set_step(rate, seed)
                steps.append([rate, seed])

            def prepare(self, images, flip_mask=None):
                found = [numbers.get(image.tobytes()) for image in images]
                if None not in found:  # no images of the evaluation
                    steps[-1].append(found)
                    flags = [None] * len(found) if flip_mask is None else flip_mask.tolist()
                    mirrored.extend(zip(found, flags, strict=True))
                return super().prepare(images, flip_mask)

        def build(spec, dtype, device):
            built.append((spec, dtype))
            return reference.build(spec, dtype, device)

        backend = SimpleNamespace(**vars(reference) | {"Trainer": Noted, "build": build})
        first = Checkpoint.first(Config.of(recipe, "numpy", data))
        TrainingLoop(backend, "numpy", first, data, "cpu")()
        rates, seeds = zip(*(step[:2] for step in steps), strict=True)
        ((spec, precision),) = built
        trainer = Trainer(GoogLeNet(spec, weights_of(spec)), recipe)
        trainer.set_step(0.1, 0)
        for number in range(2):
            x = trainer.prepare(data.train_images[4 * number : 4 * number + 4])
            trainer.train_step(x, data.train_labels[4 * number : 4 * number + 4] % 3)
        return {
            "name": recipe.name,
            "network": spec,
            "precision": precision,
            "start": first.weights,
            "rates": rates,
            "seeds": seeds,
            "batches": [step[2:] for step in steps],  # of each step its parts
            "mirrored": sorted(mirrored),
            "update": trainer.model.weights,
            "state": sorted(trainer.read_state()),
        }

    return observe


def test_every_field_of_a_recipe_has_a_case():
    assert [*RECIPES] == [field.name for field in fields(Recipe)]


@pytest.mark.parametrize("field", RECIPES)
def test_another_value_changes_what_the_field_of_a_recipe_says_and_no_more(field, run, tmp_path):
    recipe, value, expected, _ = RECIPES[field]
    changed = replace(recipe, **{field: value})
    assert changes(run(recipe), run(changed)) == expected
    before, after = recipe.as_json(), changed.as_json()
    assert {name for name in after if after[name] != before[name]} == {field}
    assert Recipe(**json.loads(json.dumps(after))) == changed != recipe
    lines = [f"{name} = {json.dumps(each)}" for name, each in after.items()]
    (tmp_path / "mine.toml").write_text("\n".join(lines))
    assert read_recipe(tmp_path / "mine.toml") == changed


@pytest.mark.parametrize(
    ("field", "value"),
    [(field, value) for field, (_, _, _, refused) in RECIPES.items() for value in refused],
    ids=lambda each: repr(each)[:20],
)
def test_what_is_no_value_of_a_recipe_s_field_is_refused_by_name(field, value):
    with pytest.raises(SpecError) as caught:
        replace(RECIPES[field][0], **{field: value})
    assert_sentence(caught.value)
    assert re.match(rf"The recipe's {field} is .*: it must be ", str(caught.value)), caught.value

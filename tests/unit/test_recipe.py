"""What a recipe may say, its learning rates, and the recipes that have a name."""

import math
import re
from dataclasses import FrozenInstanceError, fields, replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from common.errors import SpecError
from common.recipe import D2L, RECIPES, Recipe, find_recipe, recipe_of, shortest
from common.spec import MINI, SPECS, find, float32


def single(value):
    return float(np.float32(value))


def test_the_defaults_are_the_book_s():
    assert Recipe() == D2L == RECIPES["d2l"]
    assert (D2L.spec, D2L.size, D2L.batch_size, D2L.epochs) == ("d2l", 96, 128, 10)
    assert (D2L.optimizer, D2L.lr, D2L.momentum) == ("sgd", single(0.1), 0)
    assert (D2L.clip, D2L.accumulate) == (0, 1)
    assert (D2L.schedule, D2L.weight_decay, D2L.label_smoothing) == ("constant", 0, 0)
    assert (D2L.dropout, D2L.flip, D2L.precision, D2L.seed) == (0, False, "float32", 0)


def test_the_published_recipes_differ_from_the_book_s_where_they_say():
    assert list(RECIPES) == ["d2l", "d2l-512", "blog-224", "d2l-bn", "best", "quick", "fast"]
    assert all(RECIPES[name].name == name for name in RECIPES)
    assert replace(RECIPES["d2l-512"], name="d2l", batch_size=128) == D2L
    adam = RECIPES["blog-224"]
    assert (adam.optimizer, adam.lr, adam.size, adam.spec) == (
        "adam",
        single(0.001),
        224,
        "blog-224",
    )
    assert (adam.beta1, adam.beta2, adam.eps) == (single(0.9), single(0.999), single(1e-8))
    assert replace(adam, name="d2l", spec="d2l", size=96, optimizer="sgd", lr=0.1) == D2L
    assert replace(RECIPES["d2l-bn"], name="d2l", spec="d2l") == D2L
    assert all(recipe.epochs <= 10 for name, recipe in RECIPES.items() if name != "quick")


def test_an_unknown_recipe_lists_the_known_ones():
    assert find_recipe("best") is RECIPES["best"]
    with pytest.raises(SpecError, match="named 'worst'; choose one of d2l, d2l-512, blog-224, "):
        find_recipe("worst")


@pytest.mark.parametrize(
    ("called", "kind", "name", "near"),
    [
        (find_recipe, "recipe", "Bset", "best"),
        (find, "spec", "d2l_bn", "d2l-bn"),
        (find, "spec", "D2L", "d2l"),
        (find, "spec", "inceptionv4", "inception-v4"),
    ],
)
def test_the_error_for_an_unknown_name_suggests_a_known_one_that_is_near(called, kind, name, near):
    with pytest.raises(SpecError) as caught:
        called(name)
    assert str(caught.value) == (
        f"There is no {kind} named '{name}': did you mean '{near}'? `googlenet {kind}s` lists all."
    )


def test_the_error_for_a_spec_that_is_near_none_lists_all():
    with pytest.raises(SpecError, match=r"named 'resnet'; choose one of d2l, d2l-bn, .*-v2\.$"):
        find("resnet")


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_s_network_has_its_size_and_dropout(name):
    recipe = RECIPES[name]
    network = recipe.network()
    assert network == SPECS[recipe.spec].at(size=recipe.size, dropout=recipe.dropout)
    assert network.dropout == recipe.dropout
    assert recipe.network(3, 7).at(channels=1, classes=10) == network


def test_nesterov_takes_a_momentum():
    assert Recipe(nesterov=True, momentum=0.9).nesterov
    with pytest.raises(SpecError):
        Recipe(nesterov=True, momentum=0.9, optimizer="adam")


def test_adam_takes_no_momentum_and_an_eps():
    with pytest.raises(SpecError, match=r"^The recipe's momentum is .*: it must be 0 with adam"):
        Recipe(optimizer="adam", momentum=0.9)
    with pytest.raises(SpecError, match=r"^The recipe's eps is 0.*: it must be larger than 0"):
        Recipe(optimizer="adam", eps=0)


def test_edges_that_make_sense_are_taken():
    recipe = Recipe(size=1, batch_size=1, epochs=1, seed=2**32 - 1, lr=0, momentum=0)
    assert (recipe.seed, recipe.lr) == (2**32 - 1, 0)


REALS = ("lr", "clip", "momentum", "beta1", "beta2", "eps", "warmup", "weight_decay", "dropout")


@pytest.mark.parametrize("field", [*REALS, "label_smoothing"])
@settings(deadline=None)
@given(value=st.floats(0, 1, exclude_max=True))
def test_real_numbers_are_rounded_to_float32_once(field, value):
    if single(value) == 1:
        return
    recipe = Recipe(**{field: value})
    found = getattr(recipe, field)
    assert found == single(value)
    assert replace(recipe) == recipe, "what is rounded stays"


def test_a_recipe_is_frozen_and_a_key():
    with pytest.raises(FrozenInstanceError):
        D2L.lr = 1
    assert len({D2L, Recipe(), replace(D2L, lr=0.2)}) == 2
    for field in fields(Recipe):
        assert getattr(replace(D2L), field.name) == getattr(D2L, field.name)


# Rates


def test_a_constant_rate_is_constant():
    assert {D2L.rate(step, 4690) for step in range(4690)} == {single(0.1)}


def test_a_cosine_by_hand():
    recipe = Recipe(lr=2, schedule="cosine")
    want = [2, 1 + math.sqrt(0.5), 1, 1 - math.sqrt(0.5)]  # at 0, 1/4, 1/2 and 3/4 of a half turn
    assert [recipe.rate(step, 4) for step in range(4)] == [single(value) for value in want]


def test_a_warm_up_by_hand():
    recipe = Recipe(lr=1, warmup=0.5)  # 4 of 8 steps: it is reached by the fifth
    found = [recipe.rate(step, 8) for step in range(8)]
    assert found == [single(value) for value in (0.2, 0.4, 0.6, 0.8, 1, 1, 1, 1)]
    recipe = Recipe(lr=1, warmup=0.5, schedule="cosine")
    found = [recipe.rate(step, 8) for step in range(8)]
    want = (0.2, 0.4, 0.6, 0.8, 1, (1 + math.sqrt(0.5)) / 2, 0.5, (1 - math.sqrt(0.5)) / 2)
    assert found == pytest.approx(want, abs=1e-7)


@given(
    steps=st.integers(1, 5000),
    warmup=st.floats(0, 0.9375, width=32),
    schedule=st.sampled_from(["constant", "cosine"]),
    lr=st.floats(2**-20, 10, width=32),
)
def test_a_rate_rises_then_falls_and_is_never_above_the_recipe_s_nor_0(steps, warmup, schedule, lr):
    recipe = Recipe(lr=lr, warmup=warmup, schedule=schedule)
    some = sorted({*range(min(steps, 40)), *range(0, steps, 97), steps - 1})
    rates = [recipe.rate(step, steps) for step in some]
    assert all(0 < rate <= recipe.lr for rate in rates)
    assert all(rate == single(rate) for rate in rates)
    warm = recipe.warmup * steps
    rising = [rate for step, rate in zip(some, rates, strict=True) if step <= warm]
    falling = [rate for step, rate in zip(some, rates, strict=True) if step > warm]
    assert rising == sorted(rising)
    assert falling == sorted(falling, reverse=True)
    if schedule == "constant":
        assert set(falling) <= {recipe.lr}


def test_the_rate_does_not_leap():
    recipe = RECIPES["best"]
    rates = np.array([recipe.rate(step, 4690) for step in range(4690)])
    assert np.abs(np.diff(rates)).max() < recipe.lr / 700
    assert rates[0] < recipe.lr / 700
    assert rates[-1] < recipe.lr / 1e6
    assert rates.argmax() == pytest.approx(0.15 * 4690, abs=1)


# The optimizer's state


@pytest.mark.parametrize(
    ("changes", "slots"),
    [
        ({}, ()),
        ({"momentum": 0.9}, ("velocity",)),
        ({"momentum": 0.9, "nesterov": True}, ("velocity",)),
        ({"optimizer": "adam"}, ("mean", "square")),
    ],
)
def test_the_state_of_each_optimizer(changes, slots):
    assert Recipe(**changes).slots() == slots


def test_mini_is_an_eighth_of_the_book_s_with_norm():
    ours, book = MINI.channels(), SPECS["d2l-bn"].channels()
    assert ours[0] == book[0] == 1
    assert [8 * channels for channels in ours[1:]] == list(book[1:])
    assert (MINI.norm, MINI.input) == (SPECS["d2l-bn"].norm, (1, 33, 33))


# Recipes in a file


def written(tmp_path, text):
    path = tmp_path / "mine.toml"
    path.write_text(text)
    return path


def test_a_toml_file_changes_fields_of_a_recipe(tmp_path):
    path = written(tmp_path, 'recipe = "best"\nspec = "mini"\nlr = 0.05\nepochs = 3\n')
    found = recipe_of(str(path))
    assert found == replace(RECIPES["best"], name="mine", spec="mini", lr=0.05, epochs=3)
    found = recipe_of(str(written(tmp_path, "clip = 0.1\naccumulate = 4\n")))
    assert found == replace(Recipe(), name="mine", clip=0.1, accumulate=4)
    assert recipe_of(str(written(tmp_path, ""))) == replace(Recipe(), name="mine")
    assert recipe_of("best") == RECIPES["best"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("lr = nan", "mine.toml: lr is nan: it must be"),
        ("batch-size = 3", "'batch-size' is not a field of a recipe: name, spec, size, batch_size"),
        ('recipe = "worst"', "no recipe named 'worst'"),
        ("recipe = 3", "no recipe named '3'"),
        ("lr = ", "is not a TOML file"),
        ('name = "/tmp/x"', "mine.toml: name is '/tmp/x': it must be without / and \\, because"),
        ("epochs = 1.5", "epochs is 1.5: it must be a whole number"),
        ("accumulate = 200", "accumulate is 200: it must be at most batch_size, 128."),
        ('lr = "high"', "lr is 'high': it must be a number"),
    ],
)
def test_a_file_that_is_no_recipe_is_refused(tmp_path, text, said):
    with pytest.raises(SpecError, match=re.escape(said)):
        recipe_of(str(written(tmp_path, text)))


def test_a_file_that_is_not_there_or_not_text_is_refused(tmp_path):
    with pytest.raises(SpecError, match=r"none\.toml cannot be read \(No such file"):
        recipe_of(str(tmp_path / "none.toml"))
    (tmp_path / "bytes.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(SpecError, match=r"bytes\.toml is not a TOML file"):
        recipe_of(str(tmp_path / "bytes.toml"))


def test_numbers_are_shown_with_the_digits_that_they_need():
    found = Recipe(lr=0.1, momentum=0.9, weight_decay=5e-4).as_json()
    assert (found["lr"], found["momentum"], found["weight_decay"]) == (0.1, 0.9, 5e-4)
    assert Recipe(**found) == Recipe(lr=0.1, momentum=0.9, weight_decay=5e-4)
    third = float32(1 / 3)
    assert float32(shortest(third)) == third

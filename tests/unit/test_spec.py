"""The numbers of the network, and what no spec may say."""

import math
import struct
from dataclasses import FrozenInstanceError, replace

import pytest

from common.errors import SpecError
from common.recipe import D2L as RECIPE
from common.recipe import Recipe
from common.spec import (
    BLOG_224,
    D2L,
    D2L_BN,
    SPECS,
    TORCHVISION_AUX,
    TORCHVISION_IMAGENET,
    AdaptiveAvgPool,
    Affine,
    AvgPool,
    Conv,
    GlobalAvgPool,
    Inception,
    Linear,
    MaxPool,
    Norm,
    find,
)

ONE = (Conv(1),)
POINT_NINE = 0.89999997615814208984375  # the float32 nearest to 0.9
TENTH = 0.100000001490116119384765625

#: The book's nine blocks, from its page: the stage and row, and the widths of the four paths.
BOOK = """
3a  stage3 0   64   96 128  16  32   32
3b  stage3 1  128  128 192  32  96   64
4a  stage4 0  192   96 208  16  48   64
4b  stage4 1  160  112 224  24  64   64
4c  stage4 2  128  128 256  24  64   64
4d  stage4 3  112  144 288  32  64   64
4e  stage4 4  256  160 320  32 128  128
5a  stage5 0  256  160 320  32 128  128
5b  stage5 1  384  192 384  48 128  128
"""


def refusal(call, *words):
    """Check that `call` raises SpecError with one sentence that has the `words`."""
    with pytest.raises(SpecError) as caught:
        call()
    sentence = str(caught.value)
    assert "\n" not in sentence
    assert sentence.endswith(".")
    assert [word for word in words if word not in sentence] == [], sentence


def test_a_pool_may_be_padded_by_half_of_its_kernel_and_no_more():
    assert MaxPool(3, 1, 1).padding == (1, 1)
    assert MaxPool((4, 3), 1, (2, 1)).padding == (2, 1)
    for kernel, padding in ((3, 2), (1, 1), ((3, 4), (2, 2)), ((4, 3), (2, 2))):
        refusal(lambda k=kernel, p=padding: MaxPool(k, 1, p), "MaxPool.padding is ", "half")
    assert Conv(1, 1, padding=5).padding == (5, 5)


def test_a_pair_and_its_number_are_the_same_row():
    assert Conv(8, 3, 2, 1) == Conv(8, (3, 3), (2, 2), (1, 1))
    assert hash(Conv(8, 3, 2, 1)) == hash(Conv(8, (3, 3), (2, 2), (1, 1)))
    assert MaxPool(3, 2, 1) == MaxPool((3, 3), (2, 2), (1, 1))
    assert Conv(8, (3, 2)) != Conv(8, (2, 3))
    assert Conv(8).kernel == (1, 1)


@pytest.mark.parametrize("branch", ["branch1x1", "branch3x3", "branch5x5", "branch_pool"])
@pytest.mark.parametrize(
    "rows", [(), (GlobalAvgPool(),), (Conv(1), Linear(1)), ("Conv",), (D2L.stage3[0],)]
)
def test_an_empty_or_wrong_branch_is_refused_by_name(branch, rows):
    branches = dict.fromkeys(("branch1x1", "branch3x3", "branch5x5", "branch_pool"), ONE)
    refusal(lambda: Inception(**{**branches, branch: rows}), f"Inception.{branch} is ")


def test_a_branch_is_a_tuple():
    refusal(lambda: Inception(ONE, ONE, Conv(1), ONE), "Inception.branch5x5 is Conv(")
    refusal(lambda: Inception(ONE, ONE, [Conv(1)], ONE), "Inception.branch5x5 is [Conv(")


@pytest.mark.parametrize("row", [GlobalAvgPool(), Linear(10), "Conv", ONE])
@pytest.mark.parametrize("stage", ["stage1", "stage4"])
def test_a_row_that_does_not_belong_in_a_stage_is_refused_by_name(stage, row):
    rows = (*getattr(D2L, stage), row)
    refusal(lambda: replace(D2L, **{stage: rows}), f"d2l.{stage}", repr(row))


def test_the_last_row_is_the_global_pool_and_no_other_is():
    for rows in (D2L.stage5[:2], (*D2L.stage5, Conv(1)), (*D2L.stage5, GlobalAvgPool())):
        refusal(lambda rows=rows: replace(D2L, stage5=rows), "d2l.stage5 is ", "GlobalAvgPool")


def test_an_eps_or_momentum_that_only_rounding_spoils_is_refused():
    refusal(lambda: Norm(1e-60, 0.9), "Norm.eps is ", "larger than 0")
    refusal(lambda: Norm(1e60, 0.9), "Norm.eps is ")
    refusal(lambda: Norm(1e-3, 1 - 1e-12), "Norm.momentum is ", "below 1")


def test_hyper_parameters_are_rounded_to_float32():
    norm = Norm(eps=1e-3, momentum=0.9)
    assert norm.eps == struct.unpack("f", struct.pack("f", 1e-3))[0] == 0.001000000047497451305
    assert norm.momentum == POINT_NINE
    assert norm == D2L_BN.norm == Norm(norm.eps, norm.momentum)
    assert Norm(0.5, 0).momentum == 0
    recipe = Recipe(lr=0.1, momentum=0.9)
    assert (recipe.lr, recipe.momentum) == (TENTH, POINT_NINE)
    assert replace(recipe, lr=0.3).lr == struct.unpack("f", struct.pack("f", 0.3))[0]


def test_the_recipe_is_the_book_s():
    assert Recipe() == RECIPE
    assert (RECIPE.lr, RECIPE.momentum, RECIPE.batch_size) == (TENTH, 0, 128)
    assert (RECIPE.epochs, RECIPE.seed) == (10, 0)


def test_what_frameworks_round_up_differently_is_refused():
    assert MaxPool(3, 2, ceil=True).ceil
    for window in ({"kernel": 3, "stride": 2, "padding": 1}, {"kernel": 2, "stride": 3}):
        refusal(lambda w=window: MaxPool(**w, ceil=True), "MaxPool.ceil is True", "False with")


def test_constants_for_other_channels_are_refused():
    refusal(lambda: Affine((1.0,), (1.0, 2.0)), "Affine.shift is (1.0, 2.0)", "as long as")
    refusal(TORCHVISION_IMAGENET.at(channels=1).channels, "input channels is 1", "3: the network's")


def test_an_auxiliary_head_that_makes_no_sense_is_refused():
    side = TORCHVISION_AUX.auxiliary[0]
    for field, value in (("after", -1), ("features", 0), ("dropout", 1), ("share", 0)):
        wrong = {field: value}
        refusal(lambda w=wrong: replace(side, **w), f"Auxiliary.{field} is {value}")
    refusal(
        lambda: replace(TORCHVISION_AUX, auxiliary=(replace(side, after=6),)),
        "torchvision-aux.auxiliary.after is 6",
        "a row of stage4, 0 to 5",
    )
    turned = TORCHVISION_AUX.auxiliary[::-1]
    refusal(
        lambda: replace(TORCHVISION_AUX, auxiliary=turned),
        "torchvision-aux.auxiliary is [3, 0]",
        "in the order of stage4's rows",
    )
    for field in ("pool", "conv", "hidden"):
        refusal(lambda f=field: replace(side, **{f: 3}), f"Auxiliary.{field} is 3", "a row ")
    refusal(lambda: AdaptiveAvgPool(0), "AdaptiveAvgPool.size is 0")
    refusal(lambda: AvgPool(3, 0), "AvgPool.stride is 0")


def test_the_auxiliary_heads_drop_out_with_the_head():
    assert [row.dropout for row in TORCHVISION_AUX.auxiliary] == [0.7, 0.7]
    assert [row.dropout for row in TORCHVISION_AUX.at(size=96).auxiliary] == [0.7, 0.7]
    still = TORCHVISION_AUX.at(dropout=0.0)
    assert [still.dropout, *(row.dropout for row in still.auxiliary)] == [0, 0, 0]


def test_an_unknown_name_lists_the_known_ones():
    refusal(lambda: find("resnet"), "'resnet'", "d2l, d2l-bn, blog-224")
    assert {name: find(name) for name in SPECS} == SPECS
    ours = ["d2l", "d2l-bn", "blog-224", "mini"]
    imagenet = ["torchvision-imagenet", "torchvision-imagenet-aux"]
    others = ["torchvision", "torchvision-aux", *imagenet, "paddle-vision"]
    exercises = ["d2l-v2", "d2l-factorized", "d2l-residual", "googlenet-paper", "mini-family"]
    v3 = ["", "-aux", "-imagenet", "-imagenet-aux", "-keras", "-paddle"]
    later = [*(f"inception-v3{end}" for end in v3), "bn-inception", "inception-v4"]
    names = [*ours, *others, *exercises, *later, "inception-resnet-v2"]
    assert [spec.name for spec in SPECS.values()] == names == [*SPECS]


@pytest.mark.parametrize("thing", [D2L, D2L.stage1[0], D2L.stage1[1], D2L.head, RECIPE])
def test_specs_and_recipes_are_frozen_and_hashable(thing):
    field = next(iter(vars(thing)))
    with pytest.raises(FrozenInstanceError):
        setattr(thing, field, 1)
    assert hash(thing) == hash(replace(thing))
    assert thing == replace(thing)


def test_specs_are_keys():
    more = {D2L.at(), D2L.at(size=96), D2L.at(size=97), D2L.at(dropout=0.5)}
    assert len({*SPECS.values(), *more}) == len(SPECS) + 2


def test_at_changes_what_it_is_asked_to_and_nothing_else():
    assert D2L.at() == D2L
    assert D2L.at(size=33) == replace(D2L, input=(1, 33, 33))
    assert D2L.at(channels=3) == replace(D2L, input=(3, 96, 96))
    assert D2L.at(classes=7) == replace(D2L, head=Linear(7))
    assert D2L.at(dropout=0.5) == replace(D2L, dropout=0.5)
    assert D2L.at(dropout=0.5).at(size=33).dropout == 0.5
    assert D2L.at(dropout=0.5).at(dropout=0) == D2L
    assert D2L.at(1, 2, 3) == replace(D2L, input=(2, 1, 1), head=Linear(3))
    oblong = replace(D2L, input=(3, 40, 60))
    assert oblong.at(classes=7).input == (3, 40, 60)
    assert oblong.at(channels=2).input == (2, 40, 60)
    assert oblong.at(size=9).input == (3, 9, 9)
    refusal(lambda: D2L.at(size=0), "d2l.input is (1, 0, 0): ")
    refusal(lambda: D2L.at(channels=0), "d2l.input is (0, 96, 96): ")
    refusal(lambda: D2L.at(classes=0), "Linear.width is 0: ")
    for dropout in (-0.1, 1, math.nan):
        refusal(lambda dropout=dropout: D2L.at(dropout=dropout), "d2l.dropout is ")


def test_every_block_has_the_widths_of_the_book():
    lines = [line.split() for line in BOOK.strip().splitlines()]
    assert sum(isinstance(row, Inception) for _, rows in D2L.stages() for row in rows) == len(lines)
    for label, stage, index, *widths in lines:
        one, reduce3, three, reduce5, five, pool = map(int, widths)
        block = getattr(D2L, stage)[int(index)]
        paths = {
            "branch1x1": (Conv(one, 1, 1, 0, True),),
            "branch3x3": (Conv(reduce3, 1, 1, 0, True), Conv(three, 3, 1, 1, True)),
            "branch5x5": (Conv(reduce5, 1, 1, 0, True), Conv(five, 5, 1, 2, True)),
            "branch_pool": (MaxPool(3, 1, 1), Conv(pool, 1, 1, 0, True)),
        }
        assert block.branches() == list(paths.items()), label
        assert block.channels(1) == one + three + five + pool, label


def test_the_rows_between_the_blocks_are_the_book_s():
    pool = MaxPool(3, 2, 1)
    assert D2L.stage1 == (Conv(64, 7, 2, 3, True), pool)
    assert D2L.stage2 == (Conv(64, 1, 1, 0, True), Conv(192, 3, 1, 1, True), pool)
    assert D2L.stage3[2:] == D2L.stage4[5:] == (pool,)
    assert D2L.stage5[2:] == (GlobalAvgPool(),)
    assert D2L.head == Linear(10, activation=False)
    assert (D2L.input, D2L.norm) == ((1, 96, 96), None)


def test_the_variants_differ_from_the_book_where_they_say():
    assert replace(D2L, name="d2l-bn", norm=Norm(1e-3, 0.9)) == D2L_BN
    assert BLOG_224.stage1 == (Conv(64, 7, 1, 0), MaxPool(3, 3, 0))
    assert BLOG_224.stage2 == (Conv(64, 1), Conv(192, 3, 1, 0), MaxPool(3, 3, 0))
    a, b, _, d, e, pool = D2L.stage4
    assert BLOG_224.stage4 == (a, b, d, e, pool)
    same = {"name": "d2l", "input": (1, 96, 96), "stage1": D2L.stage1, "stage2": D2L.stage2}
    assert replace(BLOG_224, **same, stage4=D2L.stage4) == D2L
    assert BLOG_224.input == (1, 224, 224)


def test_the_channels_between_the_stages():
    assert D2L.channels() == (1, 64, 192, 480, 832, 1024)
    assert BLOG_224.at(channels=3).channels() == (3, 64, 192, 480, 832, 1024)
    pools = replace(D2L, stage2=(MaxPool(3, 2), MaxPool(3, 2)))
    assert pools.channels() == (1, 64, 64, 480, 832, 1024)
    assert [row.channels(480) for row in D2L.stage4] == [512, 512, 512, 528, 832, 480]
    assert GlobalAvgPool().channels(7) == 7

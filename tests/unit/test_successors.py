"""The numbers of every spec; the rows of the later Inception networks, and what no row may say."""

import json
from dataclasses import replace
from types import SimpleNamespace

import pytest

from common.errors import SpecError
from common.page import results
from common.recipe import D2L as RECIPE
from common.spec import (
    D2L,
    D2L_BN,
    D2L_FACTORIZED,
    D2L_RESIDUAL,
    D2L_V2,
    GOOGLENET_PAPER,
    INCEPTION_V3,
    INCEPTION_V3_AUX,
    INCEPTION_V3_IMAGENET,
    INCEPTION_V3_IMAGENET_AUX,
    INCEPTION_V3_KERAS,
    INCEPTION_V3_PADDLE,
    MINI,
    MINI_FAMILY,
    SPECS,
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
    inner_rows,
)
from common.spec.arithmetic import layers, smallest_input, stage_shapes, totals, walk
from common.spec.networks import each_row
from common.spec.serialize import KINDS, from_config, row_from_config, row_to_config, to_config
from common.weights import is_running, shapes

#: parameters, multiply-adds, tensors, ReLUs, smallest image, channels between the stages
NUMBERS = {
    "d2l": (5_977_530, 276_066_304, 116, 57, 1, (64, 192, 480, 832, 1024)),
    "d2l-bn": (5_992_090, 276_066_304, 344, 57, 1, (64, 192, 480, 832, 1024)),
    "blog-224": (5_467_426, 1_423_985_408, 104, 51, 21, (64, 192, 480, 832, 1024)),
    "mini": (46_068, 610_776, 128, 21, 1, (8, 24, 60, 104, 128)),
    "torchvision": (6_624_904, 1_498_376_192, 287, 57, 31, (64, 192, 480, 832, 1024)),
    "torchvision-aux": (13_004_888, 1_506_748_416, 305, 61, 31, (64, 192, 480, 832, 1024)),
    "torchvision-imagenet": (6_624_904, 1_498_376_192, 287, 57, 31, (64, 192, 480, 832, 1024)),
    "torchvision-imagenet-aux": (13_004_888, 1_506_748_416, 305, 61, 31, (64, 192, 480, 832, 1024)),
    "paddle-vision": (11_535_736, 1_437_161_728, 69, 37, 189, (64, 192, 480, 832, 1024)),
    "d2l-v2": (6_279_274, 286_544_896, 398, 66, 1, (64, 192, 480, 832, 1024)),
    "d2l-factorized": (5_888_106, 271_135_744, 398, 66, 1, (64, 192, 480, 832, 1024)),
    "d2l-residual": (5_992_090, 276_066_304, 344, 57, 1, (64, 192, 480, 832, 1024)),
    "googlenet-paper": (13_378_280, 1_591_044_096, 128, 61, 223, (64, 192, 480, 832, 1024)),
    "mini-family": (14_734, 410_272, 94, 15, 17, (8, 24, 28, 52, 52)),
    "inception-v3": (23_834_568, 5_713_216_096, 472, 94, 75, (64, 192, 288, 768, 2048)),
    "inception-v3-aux": (27_161_264, 5_718_899_296, 484, 96, 299, (64, 192, 288, 768, 2048)),
    "inception-v3-imagenet": (23_834_568, 5_713_216_096, 472, 94, 75, (64, 192, 288, 768, 2048)),
    "inception-v3-imagenet-aux": (
        27_161_264,
        5_718_899_296,
        484,
        96,
        299,
        (64, 192, 288, 768, 2048),
    ),
    "inception-v3-keras": (23_834_568, 5_713_216_096, 472, 94, 75, (64, 192, 288, 768, 2048)),
    "inception-v3-paddle": (23_834_568, 5_713_216_096, 472, 94, 75, (64, 192, 288, 768, 2048)),
    "bn-inception": (11_295_240, 2_032_600_064, 416, 69, 63, (64, 192, 576, 1056, 1024)),
    "inception-v4": (42_679_816, 12_253_974_624, 747, 149, 75, (160, 384, 384, 1024, 1536)),
    "inception-resnet-v2": (55_843_464, 13_155_794_016, 1102, 243, 75, (64, 192, 320, 1088, 1536)),
}

PADDED = AvgPool(3, 1, 1)


def refusal(call, *words):
    """Check that `call` raises SpecError with one sentence that has the `words`."""
    with pytest.raises(SpecError) as caught:
        call()
    sentence = str(caught.value)
    assert sentence.endswith(".")
    assert [word for word in words if word not in sentence] == [], sentence


@pytest.mark.parametrize("name", SPECS)
def test_the_numbers_of_a_network(name):
    parameters, multiply_adds, tensors, relus, smallest, channels = NUMBERS[name]
    spec = SPECS[name]
    assert totals(layers(spec)) == (parameters, multiply_adds)
    assert len(shapes(spec)) == tensors
    assert [layer.kind for layer in layers(spec)].count("ReLU") == relus
    assert smallest_input(spec) == smallest
    assert spec.channels()[1:] == channels


def test_the_paper_s_network_without_its_auxiliary_heads():
    assert totals(layers(replace(GOOGLENET_PAPER, auxiliary=())))[0] == 6_998_552


def test_the_numbers_that_keras_counts():
    """Keras's norms have no weight, and its count has the running statistics."""
    found = shapes(INCEPTION_V3_KERAS)
    sizes = {name: shape[0] for name, shape in found.items() if len(shape) == 1}
    gammas = sum(size for name, size in sizes.items() if name.endswith("norm.weight"))
    running = sum(size for name, size in sizes.items() if is_running(name))
    parameters = totals(layers(INCEPTION_V3_KERAS))[0]
    assert (parameters, gammas, running) == (23_834_568, 17_216, 34_432)
    assert parameters - gammas == 23_817_352
    assert parameters - gammas + running == 23_851_784


def test_five_functions_have_one_list_of_shapes():
    twins = (INCEPTION_V3_IMAGENET, INCEPTION_V3_KERAS, INCEPTION_V3_PADDLE)
    for twin in twins:
        assert [*shapes(twin).values()] == [*shapes(INCEPTION_V3).values()]
        assert stage_shapes(twin) == stage_shapes(INCEPTION_V3)
    assert [*shapes(INCEPTION_V3_IMAGENET_AUX).values()] == [*shapes(INCEPTION_V3_AUX).values()]
    norms = [spec.norm for spec in (INCEPTION_V3, INCEPTION_V3_KERAS, INCEPTION_V3_PADDLE)]
    assert norms == [Norm(1e-3, 0.9), Norm(1e-3, 0.99), Norm(1e-5, 0.9)]


def pools(spec):
    """All average pools of a spec, those inside blocks too."""
    found = []
    for _, rows in spec.stages():
        each_row(rows, lambda row: found.append(row) or row)
    return [row for row in found if isinstance(row, AvgPool)]


def test_who_counts_the_padding():
    counts = {spec.name: [row.counted for row in pools(spec)] for spec in SPECS.values()}
    assert {name: found for name, found in counts.items() if found} == {
        **dict.fromkeys(("inception-v3", "inception-v3-aux", "inception-v3-paddle"), [True] * 9),
        **dict.fromkeys(("inception-v3-imagenet", "inception-v3-imagenet-aux"), [True] * 9),
        "inception-v3-keras": [False] * 9,
        "bn-inception": [True] * 7,
        "inception-v4": [False] * 14,
        "inception-resnet-v2": [False],
        "mini-family": [True, True, False],
    }


def test_where_every_tap_of_v3_meets_a_pixel():
    """The least image in which no tap of a kernel sees padding alone: parity runs at this size."""
    sides = [stage_shapes(INCEPTION_V3.at(size=107))[f"stage{n}"][2:] for n in (1, 2, 3, 4)]
    assert sides == [(25, 25), (11, 11), (11, 11), (5, 5)]

    def last(size):  # of the maps under the forks
        rows = INCEPTION_V3.stage5[:1]
        shape = (1, *stage_shapes(INCEPTION_V3.at(size=size))["stage4"][1:])
        return walk(rows, shape, None)[1][2:]

    assert (last(106), last(107)) == ((1, 1), (2, 2))


def test_every_kind_of_row_is_in_a_small_network():
    found = set()

    def look(rows):
        for row in rows:
            found.add(type(row).__name__)
            for _, inner in inner_rows(row):
                look(inner)

    for spec in (MINI, MINI_FAMILY):
        for _, rows in spec.stages():
            look(rows)
    assert found == KINDS.keys() - {
        "Spec",
        "Norm",
        "Auxiliary",
        "Affine",
        "AdaptiveAvgPool",
        "Linear",
    }
    assert isinstance(MINI_FAMILY.auxiliary[0].hidden, Conv)
    down, right = stage_shapes(MINI_FAMILY)["stage3"][2:]
    assert down != right


def test_the_exercises_change_what_they_say():
    for spec in (D2L_V2, D2L_FACTORIZED, D2L_RESIDUAL):
        assert (spec.input, spec.head, spec.norm) == (D2L_BN.input, D2L_BN.head, D2L_BN.norm)
        assert (spec.stage1, spec.stage2) == (D2L.stage1, D2L.stage2)
    block = D2L.stage3[0]
    five, one = block.branch5x5[1], block.branch5x5[:1]
    three = replace(five, kernel=3, padding=1)
    assert D2L_V2.stage3[0] == replace(block, branch5x5=(*one, three, three))
    sides = [(conv.kernel, conv.padding) for conv in D2L_FACTORIZED.stage4[2].branch5x5[1:]]
    assert sides == [((1, 5), (0, 2)), ((5, 1), (2, 0))]
    around = [
        (stage, index)
        for stage, rows in D2L_RESIDUAL.stages()
        for index, row in enumerate(rows)
        if isinstance(row, Residual)
    ]
    assert around == [("stage4", 1), ("stage4", 2), ("stage5", 0)]
    assert D2L_RESIDUAL.stage4[1] == Residual((D2L.stage4[1],), activation=False)


def test_the_names_of_weights_in_blocks():
    names = [*shapes(MINI_FAMILY)]
    assert "stage3.0.branches.0.1.branches.1.0.norm.running_var" in names
    assert "stage4.0.rows.0.branches.1.0.conv.weight" in names
    assert "auxiliary.0.hidden.norm.weight" in names
    assert "stage4.0.rows.1.conv.bias" in names
    assert not [name for name in names if name.startswith("stage4.0.rows.1.norm")]
    fork = Branches(((Conv(1),), (Conv(2),)))
    inception = Inception(*[(Conv(1),)] * 4)
    words = ["branch1x1", "branch3x3", "branch5x5", "branch_pool"]
    assert [name for name, _ in inner_rows(inception)] == words
    assert inner_rows(fork) == [("branches.0", (Conv(1),)), ("branches.1", (Conv(2),))]
    assert inner_rows(Residual((Conv(3),))) == [("rows", (Conv(3),))]
    assert inner_rows(Conv(3)) == []


def test_every_new_row_comes_back_from_json():
    for row in (
        MINI_FAMILY.stage3[0],
        MINI_FAMILY.stage4[0],
        MINI_FAMILY.stage2[0],
        PADDED,
        MINI_FAMILY.auxiliary[0],
    ):
        assert row_from_config(json.loads(json.dumps(row_to_config(row)))) == row
    with pytest.raises(SpecError):
        row_from_config({"type": "Residual", "rows": [], "scale": 1.0})
    with pytest.raises(SpecError):
        from_config(to_config(MINI_FAMILY) | {"stage3": [{"type": "Branches", "branches": [3]}]})


def test_the_layer_table_of_a_block():
    block = Residual((Branches(((Conv(2),), (Conv(1, norm=False),))),), scale=0.5)
    table, shape = walk((block,), (1, 3, 4, 5), Norm(1e-3, 0.9), "x.")
    assert shape == (1, 3, 4, 5)
    assert [(row.name, row.kind) for row in table] == [
        ("x.0", "Residual"),
        ("x.0.rows.0", "Branches"),
        ("x.0.rows.0.branches.0.0.conv", "Conv"),
        ("x.0.rows.0.branches.0.0.norm", "Norm"),
        ("x.0.rows.0.branches.0.0.relu", "ReLU"),
        ("x.0.rows.0.branches.1.0.conv", "Conv"),
        ("x.0.rows.0.branches.1.0.relu", "ReLU"),
        ("x.0.sum", "Sum"),
        ("x.0.relu", "ReLU"),
    ]
    table, shape = walk((AvgPool((3, 2), (2, 1), (1, 0)),), (1, 3, 5, 5), None, "x.")
    assert shape == (1, 3, 3, 4)


def test_branches_that_make_no_sense_are_refused():
    refusal(lambda: Branches(((Conv(1),),)), "Branches.branches is ", "two or more")
    refusal(lambda: Branches([(Conv(1),), (Conv(1),)]), "Branches.branches is ")
    refusal(lambda: Branches(((Conv(1),), ())), "Branches.branches[1] is ()")
    refusal(lambda: Branches(((Conv(1),), (GlobalAvgPool(),))), "Branches.branches[1] is ")
    refusal(lambda: Branches(((Conv(1),), Conv(1))), "Branches.branches[1] is Conv(")
    odd = replace(D2L, stage3=(Branches(((Conv(1),), (Conv(1, 3),))),))
    refusal(lambda: layers(odd), "stage3.0: its branches end in different sizes", "'branches.1'")


def test_a_residual_that_makes_no_sense_is_refused():
    refusal(lambda: Residual(()), "Residual.rows is ()")
    refusal(lambda: Residual((Linear(1),)), "Residual.rows is ")
    for scale in (0, float("nan"), float("inf"), "1"):
        refusal(lambda scale=scale: Residual((Conv(1),), scale), f"Residual.scale is {scale!r}")
    refusal(lambda: Residual((Conv(3),)).channels(2), "Residual", "is 3", "2: the block adds")
    smaller = replace(D2L, stage3=(Residual((Conv(192, 3),)),))
    refusal(lambda: layers(smaller), "stage3.0: its rows leave 192x10x10", "added to 192x12x12")


def test_a_local_norm_that_makes_no_sense_is_refused():
    for size in (0, 2, 1.0, True):
        refusal(lambda size=size: LocalNorm(size, 1, 1), f"LocalNorm.size is {size!r}", "odd")
    for field in ("alpha", "beta", "k"):
        numbers = {"alpha": 1.0, "beta": 1.0, "k": 1.0, field: 0}
        refusal(lambda numbers=numbers: LocalNorm(3, **numbers), f"LocalNorm.{field} is 0")


def test_an_average_that_frameworks_lack_is_refused():
    assert AvgPool((1, 3), 1, (0, 1), counted=False).padding == (0, 1)
    refusal(lambda: AvgPool(3, 1, 2), "AvgPool.padding is (2, 2)", "half")
    for window in ((3, 2, 1), (3, 1, 0), (2, 1, 1)):
        refusal(lambda window=window: AvgPool(*window, counted=False), "AvgPool.counted is False")


def test_a_hidden_convolution_has_as_many_features_as_its_width():
    row = MINI_FAMILY.auxiliary[0]
    refusal(lambda: replace(row, features=7), "Auxiliary.features is 7", "8, the width")
    assert replace(row, hidden=Linear(8), features=7).features == 7
    assert Auxiliary(0, AvgPool(1, 1), Conv(2), 3, Conv(3)).features == 3


def test_a_norm_can_be_left_out_of_one_convolution():
    bare = replace(MINI, stage2=(replace(MINI.stage2[0], norm=False), *MINI.stage2[1:]))
    gone = shapes(MINI).keys() - shapes(bare).keys()
    leaves = ("weight", "bias", "running_mean", "running_var")
    assert gone == {f"stage2.0.norm.{leaf}" for leaf in leaves}
    assert MaxPool(3, 1) in each_row((MaxPool(3, 1),), lambda row: row)


def test_the_rows_of_the_exercise_are_generated():
    """Without runs there is no accuracy; with runs it is the mean over the seeds."""
    rows = results.exercise_rows([])
    assert [row[0] for row in rows] == [f"`{name}`" for name in results.EXERCISES]
    assert rows[3][1:] == ("6,279,274", "286.5 M", 1, None, None)

    def run(seed, accuracy, **changes):
        recipe = replace(RECIPE, spec="d2l-bn", seed=seed, **changes)
        config = SimpleNamespace(recipe=recipe)
        epochs = [SimpleNamespace(test_accuracy=0.1), SimpleNamespace(test_accuracy=accuracy)]
        return SimpleNamespace(name=f"d2l-bn-{seed}", config=config, epochs=epochs)

    found = results.exercise_rows([run(0, 0.90), run(1, 0.91)])[1]
    assert found[4:] == ("0.9050 ± 0.0050", "2 epochs at 96, 2 seeds")
    for change in ({"size": 64}, {"label_smoothing": 0.1}):
        refusal(lambda change=change: results.exercise_rows([run(0, 0.9), run(1, 0.9, **change)]))

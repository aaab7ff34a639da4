"""Shapes, parameters and multiply-adds, held against listings that frameworks printed."""

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.errors import SpecError
from common.spec import (
    BLOG_224,
    D2L,
    D2L_BN,
    PEERS,
    SPECS,
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
)
from common.spec.arithmetic import (
    STORED,
    fewest_bytes,
    layers,
    memory,
    smallest_input,
    stage_shapes,
    totals,
    walk,
)
from common.weights import shapes

KINDS = {  # torchinfo's word: ours
    "Sequential": "GoogLeNet",
    "Conv2d": "Conv",
    "MaxPool2d": "MaxPool",
    "AdaptiveAvgPool2d": "GlobalAvgPool",
}


def listing():
    """Return the rows that torchinfo printed of blog-224, its kinds in our words."""
    lines = Path(__file__).with_name("blog-224.txt").read_text().splitlines()[1:]
    for kind, shape, parameters, depth in (line.split("\t") for line in lines):
        count = None if parameters == "--" else int(parameters)
        yield KINDS.get(kind, kind), tuple(json.loads(shape)), count, int(depth)


def depth(layer):
    if layer.kind == "GoogLeNet":
        return 0
    return 2 if ".branch" in layer.name else 1


def test_every_row_of_the_published_listing_is_met():
    found = [(row.kind, row.shape, row.parameters, depth(row)) for row in layers(BLOG_224)]
    wanted = list(listing())
    assert len(wanted) == 126
    for index, (ours, theirs) in enumerate(zip(found, wanted, strict=True)):
        assert ours == theirs, f"row {index}"


def test_the_totals_of_the_published_listing_are_met():
    table = layers(BLOG_224)
    assert totals(table) == (5_467_426, 1_423_985_408)
    biases = sum(math.prod(row.shape) for row in table if row.parameters)
    assert f"{(1_423_985_408 + biases) / 1e9:.2f}" == "1.43"
    megabytes = {name: f"{size:.2f}" for name, size in memory(BLOG_224).items()}
    assert megabytes == {
        "input": "0.20",
        "forward_backward": "42.89",
        "parameters": "21.87",
        "total": "64.96",
    }


def test_the_totals_of_the_book_s_network():
    assert totals(layers(D2L)) == (5_977_530, 276_066_304)
    assert len(shapes(D2L)) == 116
    assert totals(layers(D2L.at(size=224))) == (5_977_530, 1_502_982_144)
    assert totals(layers(D2L.at(channels=3)))[0] == 5_983_802
    assert totals(layers(D2L.at(classes=1000)))[0] == 5_977_530 + 990 * 1025


def test_memory_counts_the_output_and_the_parameters_of_every_norm():
    """Each convolution's output once more: its norm has one of the same shape."""
    outputs = sum(math.prod(row.shape) for row in layers(D2L) if row.kind == "Conv")
    plain, normed = memory(D2L), memory(D2L_BN)
    more = {name: normed[name] - plain[name] for name in plain}
    assert more["input"] == 0
    assert more["forward_backward"] == pytest.approx(2 * outputs * 4 / 1e6)
    assert more["parameters"] == pytest.approx(14_560 * 4 / 1e6)
    assert more["total"] == pytest.approx(more["forward_backward"] + more["parameters"])


def test_the_fewest_bytes_of_a_step_are_those_of_a_hand_count():
    """A block of two convolutions, a pool, a norm, a sum; the outputs of windows count alone."""
    spec = Spec(
        "tiny",
        input=(1, 4, 4),
        norm=Norm(eps=1e-5, momentum=0.9),
        stage1=(Conv(2, 3, padding=1), MaxPool(2, 2)),  # 2 * 4 * 4 and 2 * 2 * 2
        stage2=(Branches(((Conv(1),), (Conv(3),))),),  # 1 * 2 * 2 and 3 * 2 * 2
        stage3=(Residual((Conv(4, bias=False, norm=False),)),),  # 4 * 2 * 2
        stage4=(LocalNorm(3, alpha=1.0, beta=0.75),),
        stage5=(GlobalAvgPool(),),  # 4
        head=Linear(5),  # 5
    )
    activations = 32 + 8 + 4 + 12 + 16 + 4 + 5
    weights = (2 * 9 + 2 + 4) + (2 + 1 + 2) + (6 + 3 + 6) + 16 + (20 + 5)
    assert totals(layers(spec))[0] == weights
    for precision, width in (("float32", 4), ("bfloat16", 2)):
        moved = 7 * (5 * activations + 2 * 16) * width + 6 * weights * 4
        assert fewest_bytes(spec, 7, precision) == moved


def test_every_layer_is_stored_or_works_on_what_is():
    kinds = {layer.kind for spec in SPECS.values() for layer in layers(spec)}
    blocks = {"GoogLeNet", "Inception", "Branches", "Residual"}
    on_the_way = {"Norm", "ReLU", "Flatten", "Affine", "LocalNorm", "Sum"}
    assert kinds == STORED | blocks | on_the_way


def test_the_norm_adds_two_parameters_a_channel_and_no_multiply_adds():
    assert totals(layers(D2L_BN)) == (5_992_090, 276_066_304)
    kinds = [row.kind for row in layers(D2L_BN)]
    after = [kinds[i + 1 : i + 3] for i, kind in enumerate(kinds) if kind == "Conv"]
    assert after == [["Norm", "ReLU"]] * 57


@pytest.mark.parametrize("spec", SPECS.values(), ids=SPECS)
def test_the_stage_shapes_are_those_of_the_last_rows_of_the_table(spec):
    table = {row.name: row.shape for row in layers(spec)}
    last = {name.split(".")[0]: shape for name, shape in table.items() if ".branch" not in name}
    sides = [f"auxiliary.{index}" for index in range(len(spec.auxiliary))]
    last |= {name: table[f"{name}.head"] for name in sides}
    known = {name: last[name] for name in last if name not in (spec.name, "auxiliary")}
    assert stage_shapes(spec) == known


def test_the_stage_shapes_of_the_book_are_met():
    assert stage_shapes(D2L) == {
        "stage1": (1, 64, 24, 24),
        "stage2": (1, 192, 12, 12),
        "stage3": (1, 480, 6, 6),
        "stage4": (1, 832, 3, 3),
        "stage5": (1, 1024),
        "head": (1, 10),
    }


@pytest.mark.parametrize(
    ("name", "parameters", "first", "last"),
    [
        ("torchvision", 6_624_904, (1, 64, 56, 56), (1, 832, 7, 7)),
        ("torchvision-aux", 13_004_888, (1, 64, 56, 56), (1, 832, 7, 7)),
        ("torchvision-imagenet", 6_624_904, (1, 64, 56, 56), (1, 832, 7, 7)),
        ("paddle-vision", 11_535_736, (1, 64, 55, 55), (1, 832, 6, 6)),
    ],
)
def test_other_packages_networks_have_the_parameters_that_they_publish(
    name, parameters, first, last
):
    """1000 classes; the packages' own counts, from their documentation or their state."""
    spec = SPECS[name]
    assert totals(layers(spec))[0] == parameters
    assert stage_shapes(spec)["stage1"] == first
    assert stage_shapes(spec)["stage4"] == last


def test_an_image_that_an_auxiliary_head_cannot_take_is_refused():
    with pytest.raises(SpecError, match=r"auxiliary\.0: .*128x1x1.*1152 features.*than 96"):
        layers(SPECS["paddle-vision"].at(size=96))
    assert layers(SPECS["torchvision-aux"].at(size=96))


def test_the_parameters_of_every_inception_block():
    table = layers(D2L)
    blocks = [row.name for row in table if row.kind == "Inception"]
    inside = {name: [row for row in table if row.name.startswith(f"{name}.")] for name in blocks}
    labels = ("3a", "3b", "4a", "4b", "4c", "4d", "4e", "5a", "5b")
    counts = dict(zip(labels, inside.values(), strict=True))
    assert {name: totals(rows)[0] for name, rows in counts.items()} == {
        "3a": 163_696,
        "3b": 388_736,
        "4a": 376_176,
        "4b": 449_160,
        "4c": 510_104,
        "4d": 605_376,
        "4e": 868_352,
        "5a": 1_043_456,
        "5b": 1_444_080,
    }


@pytest.mark.parametrize(
    ("name", "parameters", "multiply_adds"),
    [
        ("d2l-bn", 5_992_090, 276_066_304),
        ("blog-224", 5_467_426, 1_423_985_408),
        ("mini", 46_068, 610_776),
        ("mini-family", 14_734, 410_272),
    ],
)
def test_the_totals_of_our_own_networks(name, parameters, multiply_adds):
    """Which no framework lists: as counted when their rows were last read against their sources."""
    assert totals(layers(SPECS[name])) == (parameters, multiply_adds)


def test_the_multiply_adds_of_a_convolution_and_of_the_head():
    table = {row.name: row for row in layers(D2L)}
    assert table["stage1.0.conv"].multiply_adds == 7 * 7 * 1 * 64 * 48 * 48
    assert table["stage2.1.conv"].multiply_adds == 3 * 3 * 64 * 192 * 24 * 24
    assert table["stage3.0.branch5x5.1.conv"].multiply_adds == 5 * 5 * 16 * 32 * 12 * 12
    assert table["head"].multiply_adds == 1024 * 10
    assert {row.kind for row in table.values() if row.multiply_adds} == {"Conv", "Linear"}


def test_the_smallest_inputs():
    assert smallest_input(D2L) == 1
    assert smallest_input(BLOG_224) == 21
    assert smallest_input(BLOG_224.at(size=21)) == 21
    assert smallest_input(BLOG_224.at(size=20)) is None
    assert smallest_input(replace(BLOG_224, input=(1, 5, 30))) == 21
    with pytest.raises(
        SpecError, match=r"^stage2\.2: the kernel 3x3 .* 2x2; use a larger image\.$"
    ):
        layers(BLOG_224.at(size=20))


@pytest.mark.parametrize(
    ("name", "parameters", "multiply_adds"),
    [
        ("AlexNet", 46_764_746, 938_146_176),
        ("VGG-11", 128_806_154, 7_547_232_256),
        ("NiN", 1_992_166, 762_297_352),
    ],
)
def test_the_totals_of_the_networks_to_compare_with(name, parameters, multiply_adds):
    shape, rows = PEERS[name]
    table, out = walk(rows, (1, *shape), None)
    assert totals(table) == (parameters, multiply_adds)
    assert out == (1, 10)


def test_an_input_need_not_be_square():
    assert stage_shapes(replace(D2L, input=(1, 96, 33))) == {
        "stage1": (1, 64, 24, 9),
        "stage2": (1, 192, 12, 5),
        "stage3": (1, 480, 6, 3),
        "stage4": (1, 832, 3, 2),
        "stage5": (1, 1024),
        "head": (1, 10),
    }
    with pytest.raises(SpecError, match=r"^stage2\.2: .* 2x70; "):
        layers(replace(BLOG_224, input=(1, 20, 224)))
    with pytest.raises(SpecError, match=r"^stage2\.2: .* 70x2; "):
        layers(replace(BLOG_224, input=(1, 224, 20)))


def test_a_window_need_not_be_square():
    rows = (Conv(5, kernel=(1, 7), stride=(2, 3), padding=(0, 2)),)
    (conv, relu), out = walk(rows, (1, 4, 9, 20), None, "x.")
    assert conv.shape == relu.shape == out == (1, 5, 5, 6)
    assert (conv.parameters, conv.multiply_adds) == (5 * (4 * 7 + 1), 4 * 7 * 5 * 5 * 6)


def test_without_activation_there_is_no_relu():
    rows = (Conv(5, activation=False), Linear(7, activation=True), Linear(2))
    table, _ = walk(rows, (1, 4, 3, 2), None)
    assert [row.name for row in table] == ["0.conv", "1", "1.relu", "2"]
    assert [row.parameters for row in table] == [25, 5 * 3 * 2 * 7 + 7, None, 16]


@pytest.mark.parametrize("axis", [0, 1])
def test_branches_that_end_in_different_sizes_are_refused_by_name(axis):
    padding = [1, 1]
    padding[axis] = 0
    same = (Conv(1, 3, padding=1),)
    odd = Inception((Conv(1),), same, (Conv(1, 3, padding=tuple(padding)),), same)
    spec = replace(D2L, stage3=(*D2L.stage3[:2], odd))
    sentence = r"^stage3\.2: its branches end in different sizes, .*'branch5x5'.*\.$"
    with pytest.raises(SpecError, match=sentence):
        layers(spec)
    with pytest.raises(SpecError, match=sentence):
        stage_shapes(spec)


def positions(size, kernel, stride, padding):
    """Count the places where a window lies wholly on the padded line, one by one."""
    line = range(-padding, size + padding)
    return sum(start + kernel - 1 in line for start in line[::stride])


SIDE = st.tuples(*[st.integers(low, high) for low, high in ((1, 14), (1, 8), (1, 5), (0, 4))])


@given(SIDE, SIDE, st.booleans())
def test_the_output_size_counts_the_positions_of_the_window(vertical, horizontal, pool):
    sizes, kernel, stride, padding = zip(vertical, horizontal, strict=True)
    if pool:
        padding = tuple(min(pad, side // 2) for pad, side in zip(padding, kernel, strict=True))
        row = MaxPool(kernel, stride, padding)
    else:
        row = Conv(3, kernel, stride, padding)
    sides = zip(sizes, kernel, stride, padding, strict=True)
    wanted = tuple(positions(*side) for side in sides)
    if 0 in wanted:
        with pytest.raises(SpecError, match=r"^row0: the kernel \d+x\d+ is larger than"):
            walk((row,), (1, 3, *sizes), None, "row")
    else:
        assert walk((row,), (1, 3, *sizes), None)[1] == (1, 3, *wanted)

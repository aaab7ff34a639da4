"""The drawings' data: labels and shapes of a spec, curves, axes and ticks, worked out by hand."""

import pytest

from common.page import drawing
from common.spec import SPECS


def named(name):
    """The stages of a spec's drawing by name."""
    return {stage.name: stage for stage in drawing.stages(SPECS[name])}


def test_a_node_shows_its_window_or_its_place():
    stages = named("d2l")
    assert [*stages] == ["stage1", "stage2", "stage3", "stage4", "stage5", "head"]
    labels = {name: [node.label for node in stage.nodes] for name, stage in stages.items()}
    assert labels["stage1"] == ["7×7/2", "3×3/2"]
    assert labels["stage3"] == ["stage3[0]", "stage3[1]", "3×3/2"]
    assert labels["stage5"] == ["stage5[0]", "stage5[1]", "mean"]
    assert labels["head"] == ["linear"]
    inner = {name: [node.label for node in nodes] for name, nodes in in_block(stages).items()}
    assert inner == {
        "branch1x1": ["1×1"],
        "branch3x3": ["1×1", "3×3"],
        "branch5x5": ["1×1", "5×5"],
        "branch_pool": ["3×3", "1×1"],
    }


def in_block(stages):
    """The branches of the first Inception block."""
    return dict(stages["stage3"].nodes[0].branches)


def test_a_node_has_its_place_its_output_and_its_cost():
    block = in_block(named("d2l"))["branch3x3"]
    assert [node.at for node in block] == ["stage3.0.branch3x3.0", "stage3.0.branch3x3.1"]
    assert [node.shape for node in block] == [(1, 96, 12, 12), (1, 128, 12, 12)]
    # a convolution of 3x3 from 96 to 128 channels on 12x12 pixels
    assert block[1].parameters == 9 * 96 * 128 + 128
    assert block[1].multiply_adds == 9 * 96 * 128 * 12 * 12


def test_an_auxiliary_head_begins_at_the_output_of_its_block():
    stages = named("torchvision-aux")
    places = ["auxiliary.1.pool", "auxiliary.1.conv", "auxiliary.1.hidden", "auxiliary.1.head"]
    assert [node.at for node in stages["auxiliary.1"].nodes] == places
    assert [node.kind for node in stages["auxiliary.1"].nodes[2:]] == ["hidden", "head"]
    assert [node.label for node in stages["auxiliary.1"].nodes[:2]] == ["mean 4×4", "1×1"]
    inputs = [stages[f"auxiliary.{index}"].nodes[0].shape[1] for index in (0, 1)]
    assert inputs == [512, 528]  # of 4a and 4d


def test_the_rows_are_plain_data():
    found = drawing.data(SPECS["torchvision-aux"])
    assert found["input"] == (3, 224, 224)
    assert found["norm"] is True
    conv, pool = found["stages"]["stage1"]
    assert conv == {
        "kernel": (7, 7),
        "stride": (2, 2),
        "padding": (3, 3),
        "width": 64,
        "bias": False,
        "norm": True,
    }
    assert pool == {"kernel": (3, 3), "stride": (2, 2), "padding": (0, 0), "ceil": True}
    first, second = found["auxiliary"]
    assert [first["after"], second["after"]] == ["stage4.0", "stage4.3"]
    assert first["features"] == 4 * 4 * 128
    assert first["rows"]["hidden"] == {"linear": 1024}
    assert drawing.data(SPECS["d2l"])["norm"] is False


def test_a_curve_has_the_mean_loss_of_each_block_of_steps_in_its_middle():
    assert drawing.curve([1.0, 2.0, 3.0], 3) == [(0.5, 1.0), (1.5, 2.0), (2.5, 3.0)]
    long = drawing.curve(list(range(2 * drawing.POINTS + 1)), 1)  # blocks of three; the last, one
    assert len(long) == 161
    assert long[1] == (pytest.approx(4.5 / 481), 4.0)
    assert long[-1] == (pytest.approx(480.5 / 481), 480.0)
    assert len(drawing.curve([0.0] * drawing.POINTS, 1)) == drawing.POINTS


def test_an_axis_goes_from_values_to_pixels():
    falling = drawing.Axis(0, 2, 100, 0)
    assert [falling(value) for value in (0, 0.5, 2)] == [100, 75, 0]
    assert [falling(value) for value in (-1, 3)] == [100, 0]  # at the edge
    assert drawing.Axis(1, 100, 10, 30, log=True)(10) == 20
    assert drawing.Axis(0, 3, 0, 100)(1) == 33.3
    line = drawing.polyline([(0, 2), (1, 1.5)], drawing.Axis(0, 1, 0, 10), falling)
    assert line == "0,0 10,25"


def test_a_chart_has_a_line_for_each_run():
    axes = drawing.Axis(0, 1, 0, 10), drawing.Axis(0, 1, 5, 0)
    runs = [("torch", [(0, 0)]), ("tf", [(1, 1)]), ("torch", [(1, 0)])]
    lines = ['"line torch" points="0,5"', '"line tf" points="10,0"', '"line torch" points="10,5"']
    chart = drawing.chart_of(runs, axes)
    assert chart == "".join(f"<polyline class={line}/>" for line in lines)


def test_ticks_are_round():
    assert drawing.ticks(0, 1) == [0, 0.2, 0.4, 0.6, 0.8, 1]
    assert drawing.ticks(0, 2.3) == [0, 0.5, 1, 1.5, 2]
    assert drawing.ticks(87.5, 93.2) == [88, 90, 92]
    assert drawing.ticks(0.5, 10.5, 4) == [5, 10]

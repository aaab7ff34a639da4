"""A spec is the same after it was plain data, and what is no spec is refused."""

import json
from dataclasses import replace

import pytest

from common.errors import SpecError
from common.spec import D2L, MINI, SPECS, TORCHVISION_IMAGENET_AUX, Auxiliary, Norm
from common.spec.serialize import (
    KINDS,
    from_config,
    row_from_config,
    row_to_config,
    to_config,
)


def through_json(config):
    return json.loads(json.dumps(config))


@pytest.mark.parametrize("spec", SPECS.values(), ids=list(SPECS))
def test_a_spec_comes_back_from_json(spec):
    assert from_config(through_json(to_config(spec))) == spec
    assert hash(from_config(through_json(to_config(spec)))) == hash(spec), "its lists are tuples"


def test_every_row_comes_back_alone():
    spec, seen = TORCHVISION_IMAGENET_AUX, set()
    rows = [row for _, stage in spec.stages() for row in stage]
    for row in (*rows, spec.head, spec.norm, *spec.auxiliary, spec.auxiliary[0].pool):
        assert row_from_config(through_json(row_to_config(row))) == row
        seen.add(type(row).__name__)
    assert seen == KINDS.keys() - {"Spec", "AvgPool", "Branches", "Residual", "LocalNorm"}


def test_no_norm_stays_no_norm():
    assert row_to_config(None) is None
    assert row_from_config(None) is None
    assert from_config(to_config(D2L)).norm is None


def test_real_numbers_keep_every_bit():
    norm = Norm(eps=1 / 3, momentum=0.1)
    assert row_from_config(through_json(row_to_config(norm))) == norm
    spec = replace(MINI, dropout=0.1 + 0.2)
    assert from_config(through_json(to_config(spec))).dropout == spec.dropout


def test_data_is_plain():
    """Dicts and lists, which JSON gives back as they were; it would turn a tuple into a list."""
    config = to_config(TORCHVISION_IMAGENET_AUX)
    assert through_json(config) == config


CONV = {"type": "Conv", "width": 3}


@pytest.mark.parametrize(
    "config",
    [
        {},
        {"type": "Dense"},
        {"type": ["Conv"]},
        {"width": 3},
        {"type": "Conv"},
        {"type": "Conv", "width": 0},
        {"type": "Conv", "width": "3"},
        {**CONV, "kernel": [1, 2, 3]},
        {**CONV, "groups": 2},
        {**CONV, "kernel": {"type": "Norm", "eps": 1.0, "momentum": 0.5}},
        {"type": "Norm", "eps": "a", "momentum": 0.5},
        {"type": "Norm", "eps": 1e999, "momentum": 0.5},
        {"type": "Inception", "branch1x1": [CONV]},
        [CONV],
        7,
    ],
    ids=str,
)
def test_what_is_no_row_is_refused(config):
    with pytest.raises(SpecError) as caught:
        row_from_config(config)
    assert str(caught.value).endswith(".")


@pytest.mark.parametrize(
    "change", [{"head": None}, {"stage3": []}, {"auxiliary": [1]}, {"input": 3}, {"norm": 3}]
)
def test_a_spec_that_makes_no_sense_is_refused(change):
    with pytest.raises(SpecError):
        from_config(to_config(D2L) | change)


def test_a_row_is_no_spec_and_a_spec_no_row():
    with pytest.raises(SpecError, match="spec"):
        from_config(CONV)
    with pytest.raises(SpecError, match="row"):
        row_from_config(to_config(D2L))
    assert isinstance(
        row_from_config(row_to_config(TORCHVISION_IMAGENET_AUX.auxiliary[0])), Auxiliary
    )

"""Weights go through the native model and come back as the same bits."""

import numpy as np
import pytest
from small_specs import EVERY  # in tests/support

from common.errors import WeightsError
from common.formats import sandbox
from common.formats.identify import identify
from common.formats.naming import FORMATS
from common.spec import D2L, D2L_BN, MINI
from common.weights import draw, sha256, shapes


@pytest.mark.parametrize("spec", EVERY.values(), ids=list(EVERY))
def test_a_trip_through_the_native_model_changes_no_bit(backend, built, spec):
    weights = draw(spec, 0)
    model = built(spec)
    backend.write_weights(model, weights)
    assert sha256(backend.read_weights(model)) == sha256(weights)


def test_reading_gives_copies(backend, built):
    model = built(D2L)
    backend.write_weights(model, draw(D2L, 0))
    backend.read_weights(model)["head.bias"][:] = 7
    assert not backend.read_weights(model)["head.bias"].any()


def test_writing_copies(backend, built):
    weights = draw(D2L, 0)
    model = built(D2L)
    backend.write_weights(model, weights)
    weights["head.bias"][:] = 7
    assert not backend.read_weights(model)["head.bias"].any()


def test_running_statistics_are_among_the_weights(backend, built):
    model = built(D2L_BN)
    assert {n: w.shape for n, w in backend.read_weights(model).items()} == shapes(D2L_BN)


@pytest.mark.parametrize("fault", ["missing", "extra", "misshapen", "another network's"])
def test_weights_of_another_network_are_refused_by_name(backend, built, fault):
    weights = draw(D2L, 0)
    if fault == "missing":
        del weights["stage3.0.branch1x1.0.conv.bias"]
    elif fault == "extra":
        weights["stage3.0.branch1x1.0.conv.bias2"] = np.zeros(1, np.float32)
    elif fault == "misshapen":
        weights["stage3.0.branch1x1.0.conv.bias"] = np.zeros(65, np.float32)
    else:
        weights = draw(D2L_BN, 0)
    model = built(D2L)
    with pytest.raises(
        WeightsError, match=r"stage[13]\.0\.(branch1x1\.0\.conv\.bias|norm\.weight)"
    ):
        backend.write_weights(model, weights)


def test_the_framework_s_own_file_brings_back_the_same_bits(backend, built, request, tmp_path):
    """To the framework itself, and to `googlenet convert`, which reads it without."""
    name = request.config.getoption("--backend")
    path = tmp_path / f"a{FORMATS[name].suffix}"
    random = np.random.RandomState(0)
    weights = {n: random.uniform(0.5, 1, a.shape).astype("f4") for n, a in draw(MINI, 0).items()}
    model = built(MINI)
    backend.write_weights(model, weights)
    backend.save(model, path)
    backend.write_weights(model, draw(MINI, 0))
    backend.load(model, path)
    assert sha256(backend.read_weights(model)) == sha256(weights)
    known = identify(sandbox.read_file(path), None, "it")
    assert (known.spec, known.naming) == (MINI, "our names")
    assert sha256(known.weights) == sha256(weights)

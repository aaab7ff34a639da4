"""Weight files in memory, with the names that a program gives, and their refusals."""

import numpy as np
import pytest

from common.errors import WeightsError
from common.formats.identify import identify
from common.formats.naming import FORMATS, NAMINGS
from common.formats.readers.base import File
from common.weights import draw


def noise(network, seed=0):
    """Weights that are different everywhere."""
    random = np.random.RandomState(seed)
    drawn = draw(network, 0)
    return {name: random.standard_normal(a.shape).astype(np.float32) for name, a in drawn.items()}


def written(form, network, layers, weights):
    """The file that a program with this naming would write."""
    made, arrays = FORMATS[form], {}
    for name, array in weights.items():
        if array.ndim == 4:
            array = array.transpose(made.conv)
        elif array.ndim == 2:
            array = array.transpose(made.linear)
        arrays[made.name(layers, name)] = array
    return File(form, arrays, "float32")


def layers_of(form, network, naming="our names", which=0):
    return list(NAMINGS[form][naming](network))[which]


def refusal(file, spec_name=None):
    with pytest.raises(WeightsError) as caught:
        identify(file, spec_name, "a.pt")
    said = str(caught.value)
    assert said.startswith("a.pt ")
    assert said.endswith(".")
    assert "\n" not in said
    return said

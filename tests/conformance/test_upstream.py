"""The networks that other packages call GoogLeNet, with weights read from their own state.

The logits of torchvision and paddle.vision for a drawn state are data;
tests/upstream holds that data against the packages themselves.
"""

import numpy as np
import pytest
from upstream_states import ORIGINALS, draw_images, draw_state, read

from common.formats.identify import identify
from common.formats.readers.base import File
from common.parity.checks import FORWARD, TRAINING
from common.parity.report import tensor_error


def converted(spec):
    """The spec and canonical weights that our converter makes of the package's state."""
    written = read(spec)
    form = {"torchvision": "torch", "paddle": "paddle"}[written["package"]]
    state = draw_state(written["tensors"], linear_in_first=form == "paddle")
    chosen = spec if "imagenet" in spec else None  # weights do not show the input's transform
    known = identify(File(form, state, "float64"), chosen, spec)
    return known.spec.at(size=written["size"], dropout=0.0), known.weights, written


@pytest.mark.parametrize("dtype", FORWARD)
@pytest.mark.parametrize("spec", ORIGINALS)
def test_the_logits_of_every_head_are_the_packages_own(backend, spec, dtype):
    network, weights, written = converted(spec)
    assert network.name == spec
    model = backend.build(network, dtype, "cpu")
    backend.write_weights(model, weights)
    images = draw_images(written["size"])
    for mode in ("evaluation", "training"):
        if mode not in written or (dtype, mode) == ("float32", "training"):
            continue  # a norm over two images takes float32's error anywhere
        outputs = backend.forward(model, images, mode == "training")
        tolerance = TRAINING if mode == "training" else FORWARD[dtype]
        assert written[mode]
        for head, logits in written[mode].items():
            want = np.array(logits)
            assert np.abs(want).max() > 0.1
            assert tensor_error(outputs[head], want) <= tolerance, (mode, head)

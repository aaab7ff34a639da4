"""The networks of other packages, with weights read from their own state.

What the packages answered for a drawn state is data (tests/support/upstream_states.py);
tests/upstream and tests/packages hold it against the packages themselves. The reference computes
the cases that have the function of another one (tests/unit/test_upstream.py).
"""

import numpy as np
import pytest
from upstream_states import ORIGINALS, draw_images, identified, read

from common.parity.checks import FORWARD, TRAINING
from common.parity.report import tensor_error

#: in float32 the first ones: the others are larger, of the same rows, and shown in float64
FLOAT32 = ("torchvision", "torchvision-imagenet-aux", "paddle-vision")
CASES = [(case, "float64") for case, original in ORIGINALS.items() if original.whole]
CASES += [(case, "float32") for case in FLOAT32]


@pytest.mark.parametrize(("case", "dtype"), CASES)
def test_the_logits_of_every_head_are_the_packages_own(backend, case, dtype):
    known, written = identified(case), read(case)
    network = known.spec.at(size=written["size"], dropout=0.0)
    assert network.name == ORIGINALS[case].spec
    model = backend.build(network, dtype, "cpu")
    backend.write_weights(model, known.weights)
    images = draw_images(written["size"])
    for mode in ("evaluation", "training"):
        if mode not in written or (dtype, mode) == ("float32", "training"):
            continue  # a norm over two images takes float32's error anywhere
        outputs = backend.forward(model, images, mode == "training")
        # v4 has 149 norms over a few values each: the reference itself differs by 1.2e-11
        deep = 10 if case == "inception-v4" else 1
        tolerance = deep * TRAINING if mode == "training" else FORWARD[dtype]
        assert written[mode]
        for head, logits in written[mode].items():
            want = np.array(logits)
            assert np.abs(want).max() > 0.1
            assert tensor_error(outputs[head], want) <= tolerance, (mode, head)

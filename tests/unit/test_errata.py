"""What published versions of the network say of themselves and their own code does not bear out.

Those that show in a framework are in tests/pitfalls; all are described in docs/porting/errata.md.
"""

from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
from small_specs import thin  # in tests/support

from backends.numpy import GoogLeNet
from common.parity.fixtures import draw_fixture
from common.spec import BLOG_224, D2L, D2L_BN, Conv, MaxPool
from common.spec.arithmetic import layers, stage_shapes, totals

#: what torchinfo printed of the 224-pixel post's network: kind, shape, parameters, depth
TEXT = Path(__file__).with_name("blog-224.txt").read_text()
LISTING = [row.split("\t") for row in TEXT.splitlines()[1:]]


def test_the_224_pixel_post_describes_nine_blocks_and_its_code_has_eight():
    assert sum(kind == "Inception" for kind, *_ in LISTING) == 8
    whole = replace(BLOG_224, stage4=D2L.stage4)  # with 4c again
    printed = 5_467_426
    assert totals(layers(BLOG_224))[0] == printed
    assert totals(layers(whole))[0] == printed + 510_104


def test_the_224_pixel_posts_text_has_a_stem_that_its_code_has_not():
    """Its text: stride 2, padding 3 and pools of stride 2 with padding 1. Its own listing: 218."""
    described = replace(BLOG_224, stage1=D2L.stage1, stage2=D2L.stage2)
    assert stage_shapes(described)["stage1"] == (1, 64, 56, 56)
    assert stage_shapes(BLOG_224)["stage1"] == (1, 64, 72, 72)
    assert next(shape for kind, shape, *_ in LISTING if kind == "Conv2d") == "[1, 64, 218, 218]"


def test_two_reductions_of_the_224_pixel_posts_text_are_others():
    """It says 1/12 of 32/256 and 1/64 of 24/512."""
    for before, block, part in (
        (D2L.stage3[0], D2L.stage3[1], Fraction(1, 8)),  # 3b
        (D2L.stage4[1], D2L.stage4[2], Fraction(3, 64)),  # 4c
    ):
        channels = sum(branch[-1].width for _, branch in before.branches())
        assert Fraction(block.branch5x5[0].width, channels) == part


def test_the_224_pixel_posts_multiply_adds_count_the_biases():
    """1.43 G are printed; without an addition for each bias and pixel they are 1.42 G."""
    table = layers(BLOG_224)
    biases = sum(
        layer.shape[2] * layer.shape[3] * layer.shape[1] if layer.kind == "Conv" else 0
        for layer in table
    )
    _, multiply_adds = totals(table)
    assert f"{multiply_adds / 1e9:.2f}" == "1.42"
    assert f"{(multiply_adds + biases) / 1e9:.2f}" == "1.43"


def test_the_batch_norm_posts_biases_do_nothing():
    """A convolution in front of a norm needs none: the mean takes it out again."""
    biases = sum(row.width for row in every_conv(D2L))
    assert biases == 7_280
    fixture = draw_fixture(thin(D2L_BN).at(size=33))
    without = {
        name: np.zeros_like(array) if name.endswith("conv.bias") else array
        for name, array in fixture.weights.items()
    }
    found = {}
    for training in (True, False):
        one, other = (
            GoogLeNet(fixture.spec, weights).forward(fixture.inputs, training=training)["head"]
            for weights in (fixture.weights, without)
        )
        found[training] = np.abs(one - other).max() / np.abs(one).max()
    assert found[True] < 1e-6
    assert found[False] > 1e-2, "the running means are of the network with biases"


def every_conv(spec):
    """The rows of all convolutions."""
    for _, rows in spec.stages():
        for row in rows:
            if isinstance(row, Conv):
                yield row
            elif not isinstance(row, MaxPool) and hasattr(row, "branches"):
                for _, inner in row.branches():
                    yield from (each for each in inner if isinstance(each, Conv))

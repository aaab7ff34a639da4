"""Specs: every number of a network as frozen data, without any framework.

`rows` has the layers and `Spec`. `networks` has the book's network and variants of it, `family` the
networks of torchvision and paddle.vision, `peers` the networks that the book compares with.
"""

from common.spec.catalog import SPECS, find
from common.spec.family import (
    PADDLE_VISION,
    TORCHVISION,
    TORCHVISION_AUX,
    TORCHVISION_IMAGENET,
    TORCHVISION_IMAGENET_AUX,
)
from common.spec.networks import BLOG_224, D2L, D2L_BN, MINI, divide_widths, each_conv, inception
from common.spec.peers import PEERS
from common.spec.rows import (
    AdaptiveAvgPool,
    Affine,
    Auxiliary,
    AvgPool,
    Conv,
    GlobalAvgPool,
    Inception,
    Linear,
    MaxPool,
    Norm,
    Row,
    Size,
    Spec,
    channels_after,
    float32,
    pair,
)

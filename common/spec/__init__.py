"""Specs: every number of a network as frozen data, without any framework.

`rows` has the layers and `Spec`. `networks` has the book's network and variants of it, `family` the
GoogLeNets of torchvision and paddle.vision, `successors` the later Inception networks, `peers` the
networks that the book compares with.
"""

from common.spec.catalog import SPECS, find
from common.spec.family import (
    PADDLE_VISION,
    TORCHVISION,
    TORCHVISION_AUX,
    TORCHVISION_IMAGENET,
    TORCHVISION_IMAGENET_AUX,
)
from common.spec.networks import (
    BLOG_224,
    D2L,
    D2L_BN,
    D2L_FACTORIZED,
    D2L_RESIDUAL,
    D2L_V2,
    GOOGLENET_PAPER,
    MINI,
    MINI_FAMILY,
    divide_widths,
    each_conv,
    inception,
)
from common.spec.peers import PEERS
from common.spec.rows import (
    AdaptiveAvgPool,
    Affine,
    Auxiliary,
    AvgPool,
    Block,
    Branches,
    Conv,
    GlobalAvgPool,
    Inception,
    Linear,
    LocalNorm,
    MaxPool,
    Norm,
    Residual,
    Row,
    Size,
    Spec,
    channels_after,
    float32,
    inner_rows,
    is_number,
    is_whole,
    pair,
)
from common.spec.successors import (
    BN_INCEPTION,
    INCEPTION_RESNET_V2,
    INCEPTION_V3,
    INCEPTION_V3_AUX,
    INCEPTION_V3_IMAGENET,
    INCEPTION_V3_IMAGENET_AUX,
    INCEPTION_V3_KERAS,
    INCEPTION_V3_PADDLE,
    INCEPTION_V4,
)

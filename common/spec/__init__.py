"""Every number of the network, as frozen data: the book's networks and other packages'."""

from common.spec.catalog import SPECS, find
from common.spec.family import (
    PADDLE_VISION,
    TORCHVISION,
    TORCHVISION_AUX,
    TORCHVISION_IMAGENET,
    TORCHVISION_IMAGENET_AUX,
)
from common.spec.networks import BLOG_224, D2L, D2L_BN, MINI, each_conv, inception, narrow
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

__all__ = [
    "BLOG_224",
    "D2L",
    "D2L_BN",
    "MINI",
    "PADDLE_VISION",
    "PEERS",
    "SPECS",
    "TORCHVISION",
    "TORCHVISION_AUX",
    "TORCHVISION_IMAGENET",
    "TORCHVISION_IMAGENET_AUX",
    "AdaptiveAvgPool",
    "Affine",
    "Auxiliary",
    "AvgPool",
    "Conv",
    "GlobalAvgPool",
    "Inception",
    "Linear",
    "MaxPool",
    "Norm",
    "Row",
    "Size",
    "Spec",
    "channels_after",
    "each_conv",
    "find",
    "float32",
    "inception",
    "narrow",
    "pair",
]

"""All specs by name."""

from __future__ import annotations

from common.errors import UnknownNameError
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
)
from common.spec.rows import Spec
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

SPECS = {
    spec.name: spec
    for spec in (
        *(D2L, D2L_BN, BLOG_224, MINI),
        *(TORCHVISION, TORCHVISION_AUX, TORCHVISION_IMAGENET, TORCHVISION_IMAGENET_AUX),
        PADDLE_VISION,
        *(D2L_V2, D2L_FACTORIZED, D2L_RESIDUAL, GOOGLENET_PAPER, MINI_FAMILY),
        *(INCEPTION_V3, INCEPTION_V3_AUX, INCEPTION_V3_IMAGENET, INCEPTION_V3_IMAGENET_AUX),
        *(INCEPTION_V3_KERAS, INCEPTION_V3_PADDLE),
        *(BN_INCEPTION, INCEPTION_V4, INCEPTION_RESNET_V2),
    )
}


def find(name: str) -> Spec:
    """The spec with this name; UnknownNameError if there is none."""
    if name not in SPECS:
        raise UnknownNameError("spec", name, SPECS)
    return SPECS[name]

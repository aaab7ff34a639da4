"""All specs by name."""

from __future__ import annotations

from common.errors import SpecError
from common.spec.family import (
    PADDLE_VISION,
    TORCHVISION,
    TORCHVISION_AUX,
    TORCHVISION_IMAGENET,
    TORCHVISION_IMAGENET_AUX,
)
from common.spec.networks import BLOG_224, D2L, D2L_BN, MINI
from common.spec.rows import Spec

SPECS = {
    spec.name: spec
    for spec in (
        *(D2L, D2L_BN, BLOG_224, MINI),
        *(TORCHVISION, TORCHVISION_AUX, TORCHVISION_IMAGENET, TORCHVISION_IMAGENET_AUX),
        PADDLE_VISION,
    )
}


def find(name: str) -> Spec:
    """The spec with this name; SpecError lists the known names if there is none."""
    if name not in SPECS:
        raise SpecError(f"There is no spec named {name!r}; choose one of {', '.join(SPECS)}.")
    return SPECS[name]

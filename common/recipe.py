"""Hyper-parameters of a training run, as frozen data."""

from __future__ import annotations

import math
from dataclasses import dataclass

from common.errors import SpecError
from common.spec import float32


@dataclass(frozen=True)
class Recipe:
    """Stochastic gradient descent: v = momentum v + gradient, weight = weight - lr v.

    The defaults are the book's (d2l, section GoogLeNet). Learning rate and momentum are rounded to
    float32, as some frameworks hold them.
    """

    lr: float = 0.1
    momentum: float = 0.0
    batch_size: int = 128
    epochs: int = 10
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0 <= float32(self.lr) < math.inf:
            raise SpecError(
                f"Recipe.lr is {self.lr!r}: it must be at least 0 and finite in float32."
            )
        if not 0 <= float32(self.momentum) < 1:
            raise SpecError(
                f"Recipe.momentum is {self.momentum!r}: it must be at least 0 and below 1."
            )
        object.__setattr__(self, "lr", float32(self.lr))
        object.__setattr__(self, "momentum", float32(self.momentum))


D2L = Recipe()

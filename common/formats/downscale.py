"""The dropout of paddle.vision, which scales the features in evaluation."""

from __future__ import annotations

import numpy as np

from common.spec import Spec, float32
from common.weights import Weights


def downscales(spec: Spec) -> bool:
    """Whether the spec is a network of paddle.vision, whose heads scale their features."""
    return spec.name.startswith(("paddle-vision", "inception-v3-paddle"))


def undo_downscale_in_infer(spec: Spec, weights: Weights) -> Weights:
    """The weights of paddle.vision's heads, converted for our dropout.

    paddle.vision's dropout is `downscale_in_infer`: evaluation multiplies the features by the share
    that training keeps. Our dropout divides by that share in training. Multiplying the heads'
    weights by the share gives the same function in both modes. Paddle stores the share in float32.
    """
    return weights | {name: weights[name] * share for name, share in kept(spec).items()}


def redo_downscale_in_infer(spec: Spec, weights: Weights) -> Weights:
    """The inverse, for a file with paddle.vision's names; the last bit may differ."""
    return weights | {name: weights[name] / np.float32(s) for name, s in kept(spec).items()}


def kept(spec: Spec) -> dict[str, float]:
    """The share of its features that each head keeps in training, by the name of its weight."""
    drops = {"head.weight": spec.dropout}
    drops |= {f"auxiliary.{i}.head.weight": row.dropout for i, row in enumerate(spec.auxiliary)}
    return {name: float32(1 - drop) for name, drop in drops.items()}

"""Canonical weights: the same names, layouts and file format for every backend."""

from common.weights.canonical import (
    RUNNING,
    Weights,
    check,
    draw,
    is_running,
    is_scale,
    norm_name,
    not_finite,
    shapes,
    with_eps,
)
from common.weights.storage import KEY, load, metadata, open_sealed, save, seal, sha256

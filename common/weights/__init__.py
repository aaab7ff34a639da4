"""Canonical weights: one naming, one layout, one file, for every backend."""

from common.weights.canonical import RUNNING, Weights, check, draw, is_running, shapes
from common.weights.storage import KEY, load, metadata, open_sealed, save, seal, sha256

__all__ = [
    "KEY",
    "RUNNING",
    "Weights",
    "check",
    "draw",
    "is_running",
    "load",
    "metadata",
    "open_sealed",
    "save",
    "seal",
    "sha256",
    "shapes",
]

"""The canonical form of weights: names, shapes and initial values.

A name is made of the spec's fields, joined by dots (`stage3.0.branch5x5.1.conv.weight`). Rows are
counted from 0, pools included. Convolutions are (out, in, height, width), linear layers (out, in).
A norm has `weight`, `bias`, `running_mean` and the biased `running_var`. All values are NumPy
arrays.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from common.errors import WeightsError
from common.spec import Conv, Norm, Row, Spec, inner_rows, pair

Weights = dict[str, np.ndarray]

RUNNING = ("running_mean", "running_var")  #: updated in training, without a gradient


def shapes(spec: Spec) -> dict[str, tuple[int, ...]]:
    """The canonical name and shape of every tensor of the network, in the order of its layers.

    The auxiliary heads come before the head.
    """
    found: dict[str, tuple[int, ...]] = {}
    *incoming, features = spec.channels()
    for (stage, rows), channels in zip(spec.stages(), incoming, strict=True):
        found |= _shapes(rows, channels, spec.norm, f"{stage}.")
    for index, (row, channels) in enumerate(spec.aux_inputs()):
        name = f"auxiliary.{index}"
        found |= _conv(row.conv, channels, spec.norm, f"{name}.conv.")
        if isinstance(row.hidden, Conv):
            found |= _conv(row.hidden, row.conv.width, spec.norm, f"{name}.hidden.")
        else:
            found |= _linear(f"{name}.hidden", row.hidden.width, row.features)
        found |= _linear(f"{name}.head", spec.head.width, row.hidden.width)
    return found | _linear("head", spec.head.width, features)


def _linear(name: str, width: int, features: int) -> dict[str, tuple[int, ...]]:
    return {f"{name}.weight": (width, features), f"{name}.bias": (width,)}


def _conv(row: Conv, channels: int, norm: Norm | None, name: str) -> dict[str, tuple[int, ...]]:
    found: dict[str, tuple[int, ...]] = {
        f"{name}conv.weight": (row.width, channels, *pair(row.kernel))
    }
    if row.bias:
        found[f"{name}conv.bias"] = (row.width,)
    for leaf in ("weight", "bias", *RUNNING) if norm and row.norm else ():
        found[f"{name}norm.{leaf}"] = (row.width,)
    return found


def _shapes(
    rows: tuple[Row, ...], channels: int, norm: Norm | None, prefix: str
) -> dict[str, tuple[int, ...]]:
    found: dict[str, tuple[int, ...]] = {}
    for index, row in enumerate(rows):
        name = f"{prefix}{index}."
        if isinstance(row, Conv):
            found |= _conv(row, channels, norm, name)
        for part, inner in inner_rows(row):
            found |= _shapes(inner, channels, norm, f"{name}{part}.")
        channels = row.channels(channels)
    return found


def norm_name(conv: str) -> str:
    """The name of the norm behind a convolution."""
    return conv.removesuffix("conv") + "norm"


def is_running(name: str) -> bool:
    """Whether the tensor of this name is a running statistic, which has no gradient."""
    return name.endswith(RUNNING)


def is_scale(name: str) -> bool:
    """Whether the tensor of this name is the scale of a norm, its gamma."""
    return name.endswith("norm.weight")


def not_finite(weights: Mapping[str, np.ndarray]) -> list[str]:
    """The names of the tensors that hold NaN or infinity."""
    return [name for name, array in weights.items() if not np.isfinite(array).all()]


def with_eps(weights: Weights, eps: float, new: float) -> Weights:
    """The weights that give the same function in evaluation when the norms have another eps.

    A norm multiplies by gamma / sqrt(var + eps), so gamma is multiplied by
    sqrt((var + new) / (var + eps)), computed in float64. Training mode differs, because it uses the
    variance of the batch.
    """
    changed = dict(weights)
    for name, array in weights.items():
        if is_scale(name):
            var = weights[name.removesuffix("weight") + "running_var"].astype(np.float64)
            changed[name] = (array * np.sqrt((var + new) / (var + eps))).astype(array.dtype)
    return changed


def draw(spec: Spec, seed: int) -> Weights:
    """Initial float32 values: d2l's Xavier uniform for weights, zero for biases, identity norms.

    NumPy's `RandomState` is frozen, so a seed gives all four frameworks the same bits. Source:
    Glorot and Bengio (2010).
    """
    random = np.random.RandomState(seed)
    weights: Weights = {}
    for name, shape in shapes(spec).items():
        if len(shape) > 1:
            out, incoming, *window = shape
            bound = math.sqrt(6 / ((out + incoming) * math.prod(window)))
            weights[name] = random.uniform(-bound, bound, shape).astype(np.float32)
        else:
            one = is_scale(name) or name.endswith("running_var")
            weights[name] = np.full(shape, float(one), np.float32)
    return weights


def check(spec: Spec, weights: Mapping[str, np.ndarray]) -> None:
    """WeightsError with the first tensor that does not fit, unless these are the spec's weights."""
    expected = shapes(spec)
    for name, shape in expected.items():
        if name not in weights:
            raise WeightsError(f"{name} is missing: these are not the weights of {spec.name}.")
        if weights[name].shape != shape:
            raise WeightsError(
                f"{name} has shape {weights[name].shape} where {spec.name} has {shape}."
            )
    for name in weights:
        if name not in expected:
            raise WeightsError(f"{name} is not a tensor of {spec.name}.")

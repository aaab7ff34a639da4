"""Converts specs and rows to plain data and back, for JSON and for the configs of frameworks.

Each part of a spec becomes a dict of its fields. `type` is the name of its class. Tuples become
lists.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from typing import Any

from common.errors import SpecError
from common.spec.rows import (
    AdaptiveAvgPool,
    Affine,
    Auxiliary,
    AvgPool,
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
    Spec,
)

Config = dict[str, Any]
Part = Row | Norm | Auxiliary  #: the parts of a spec

KINDS: dict[str, type] = {
    kind.__name__: kind
    for kind in (
        Spec,
        Norm,
        Auxiliary,
        Affine,
        Conv,
        MaxPool,
        Inception,
        Branches,
        Residual,
        LocalNorm,
        AvgPool,
        AdaptiveAvgPool,
        GlobalAvgPool,
        Linear,
    )
}


def to_config(spec: Spec) -> Config:
    """The spec as plain data."""
    return _plain(spec)  # type: ignore[no-any-return]


def from_config(config: Mapping[str, Any]) -> Spec:
    """The spec from plain data; SpecError if the data is not a valid spec."""
    spec = _part(config)
    if not isinstance(spec, Spec):
        raise SpecError(f"A {type(spec).__name__} is not a spec.")
    return spec


def row_to_config(row: Part | None) -> Config | None:
    """A row, norm or auxiliary head as plain data; None stays None (a network without a norm)."""
    return _plain(row)  # type: ignore[no-any-return]


def row_from_config(config: Mapping[str, Any] | None) -> Any:
    """The row, norm or auxiliary head from plain data; SpecError if it is not a valid one."""
    row = None if config is None else _part(config)
    if isinstance(row, Spec):
        raise SpecError("A Spec is not a row.")
    return row


def _plain(value: Any) -> Any:
    if is_dataclass(value):
        values = {field.name: _plain(getattr(value, field.name)) for field in fields(value)}
        return {"type": type(value).__name__, **values}
    return [_plain(each) for each in value] if isinstance(value, tuple) else value


def _part(config: Mapping[str, Any]) -> Any:
    """The spec, row, norm or auxiliary head that the data describes."""
    if not isinstance(config, Mapping):
        raise SpecError(f"{config!r} is not a part of a spec.")
    name = config.get("type")
    if not isinstance(name, str) or name not in KINDS:
        raise SpecError(f"There is no part of a spec of type {name!r}.")
    values = {field: _value(value) for field, value in config.items() if field != "type"}
    try:
        return KINDS[name](**values)
    except SpecError:
        raise
    except (TypeError, ValueError, AttributeError, OverflowError, struct.error) as error:
        raise SpecError(f"This is not a {name}: {error}.") from error


def _value(data: Any) -> Any:
    if isinstance(data, Mapping):
        return _part(data)
    return tuple(map(_value, data)) if isinstance(data, (list, tuple)) else data

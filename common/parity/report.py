"""The results of a check and of a run of the checks; the comparison of two tensors."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

#: keys in JSON, from the first version: files in docs/results and users' scripts have them
CHECK_KEY, CHECKS_KEY = "rung", "rungs"


@dataclass(frozen=True)
class Check:
    """One comparison: the worst error, the tolerance, and the place of the error or exception."""

    name: str
    passed: bool
    error: float | None
    tolerance: float
    where: str
    stages: dict[str, float] = field(default_factory=dict)  #: the error of each, if known


@dataclass(frozen=True)
class Report:
    """One run of the checks: one backend, spec, size and dtype."""

    backend: str
    version: str
    spec: str
    size: int
    dtype: str
    checks: list[Check]

    @property
    def failed(self) -> Check | None:
        """The check that failed, if one did."""
        return next((check for check in self.checks if not check.passed), None)

    def as_json(self) -> dict[str, Any]:
        """The report as plain data; JSON has no infinity, so such an error becomes null."""
        plain: dict[str, Any] = finite(asdict(self))
        plain[CHECKS_KEY] = plain.pop("checks")
        for check in plain[CHECKS_KEY]:
            if not check["stages"]:
                del check["stages"]
        return plain

    @classmethod
    def from_json(cls, found: dict[str, Any]) -> Report:
        """The inverse of `as_json`; TypeError or KeyError for other data."""
        rest = {key: value for key, value in found.items() if key != CHECKS_KEY}
        return cls(**rest, checks=[Check(**check) for check in found[CHECKS_KEY]])

    def caught(self) -> dict[str, Any]:
        """The last check as plain data: what caught an injected bug; empty if nothing did."""
        if self.failed is None:
            return {}
        last = self.as_json()[CHECKS_KEY][-1]
        return {CHECK_KEY: last["name"], "error": last["error"], "where": last["where"]}

    def sentence(self) -> str:
        """The outcome in one line."""
        head = f"{self.backend} {self.version}  {self.spec} at {self.size}, {self.dtype}:"
        check = self.failed
        if check is None:
            worst = max(self.checks, key=lambda check: check.error or 0)
            return (
                f"{head} all {len(self.checks)} checks hold, worst {worst.error:.0e} ({worst.name})"
            )
        size = "" if check.error is None else f", error {check.error:.1e} of {check.tolerance:.0e}"
        return f"{head} FAILED at {check.name!r}: {check.where}{size}"


def finite(data: Any) -> Any:
    """Plain data, with None for every number that is not finite: JSON has none."""
    if isinstance(data, dict):
        return {key: finite(each) for key, each in data.items()}
    if isinstance(data, (list, tuple)):
        return [finite(each) for each in data]
    return None if isinstance(data, float) and not math.isfinite(data) else data


def kind(name: str) -> str:
    """The last two words of a tensor's name: `conv.weight`, `norm.bias`, `head.weight`, ..."""
    return ".".join(name.split(".")[-2:])


def tensor_error(got: np.ndarray, want: np.ndarray, floor: float = 0.0) -> float:
    """The largest difference over the largest wanted value or `floor`; inf for other shapes."""
    if got.shape != want.shape:
        return math.inf
    difference = float(np.max(np.abs(got.astype(np.float64) - want)))
    if not math.isfinite(difference):
        return math.inf
    if not difference:
        return 0.0
    scale = max(float(np.max(np.abs(want))), floor)
    return difference / scale if scale else math.inf


def compare(
    name: str, got: Mapping[str, np.ndarray], want: Mapping[str, np.ndarray], tolerance: float
) -> Check:
    """Compare all tensors of `want` in its order: the first that differs, else the worst."""
    largest: dict[str, float] = {}
    for tensor, array in want.items():
        value = float(np.max(np.abs(array)))
        largest[kind(tensor)] = max(largest.get(kind(tensor), 0.0), value)
    worst, where = 0.0, ""
    for tensor, array in want.items():
        if tensor not in got:
            return Check(name, False, None, tolerance, f"{tensor} is missing")
        error = tensor_error(got[tensor], array, 1e-9 * largest[kind(tensor)])
        if error > tolerance:
            return Check(name, False, error, tolerance, tensor)
        if error > worst:
            worst, where = error, tensor
    return Check(name, True, worst, tolerance, where)

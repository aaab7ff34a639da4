"""Helpers that the injected bugs of several frameworks share."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import Any
from unittest import mock

from common.spec import Norm, Spec, arithmetic
from common.weights import Weights


def after(owner: Any, method: str, change: Callable[..., None]) -> AbstractContextManager[Any]:
    """A patch that calls `change(object)` after each call of the object's `method`."""
    original = getattr(owner, method)

    def changed(self: Any, *args: Any, **kwargs: Any) -> Any:
        result = original(self, *args, **kwargs)
        change(self)
        return result

    return mock.patch.object(owner, method, changed)


@contextmanager
def both(*patches: AbstractContextManager[Any]) -> Iterator[None]:
    """Several patches as one context."""
    with ExitStack() as stack:
        for patch in patches:
            stack.enter_context(patch)
        yield


def unbiased(
    spec: Spec, batch: int, before: Mapping[str, Any], after: Mapping[str, Any]
) -> Weights:
    """The weights after a step, with running variances from the unbiased batch variance."""
    assert isinstance(spec.norm, Norm)
    momentum, weights = spec.norm.momentum, dict(after)
    for layer in arithmetic.layers(spec):
        if layer.kind == "Norm":
            name = f"{layer.name}.running_var"
            count = batch * layer.shape[2] * layer.shape[3]
            new = (after[name] - momentum * before[name]) * count / (count - 1)
            weights[name] = momentum * before[name] + new
    return weights

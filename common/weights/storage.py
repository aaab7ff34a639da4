"""Canonical weights in a safetensors file, and their SHA-256 digest."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from common.errors import WeightsError, one_line
from common.files import write_whole
from common.spec import Spec
from common.weights.canonical import Weights, check, shapes

KEY = "googlenet"  #: the only metadata key, because safetensors writes several keys in random order


def sha256(weights: Mapping[str, np.ndarray]) -> str:
    """A digest of all names, dtypes, shapes and little-endian values, sorted by name."""
    digest = hashlib.sha256()
    for name in sorted(weights):
        array = np.ascontiguousarray(weights[name])
        little = array.astype(array.dtype.newbyteorder("<"), copy=False)
        digest.update(json.dumps([name, array.dtype.name, weights[name].shape]).encode())
        digest.update(little.tobytes())
    return digest.hexdigest()


def save(path: Path, weights: Mapping[str, np.ndarray], spec: Spec) -> None:
    """Write a safetensors file; its metadata has the spec's name, the `sha256` and the norms' eps.

    WeightsError if the weights do not fit the spec or the file cannot be written.
    """
    from safetensors.numpy import save as encode

    check(spec, weights)
    # safetensors copies the memory as it is, which scrambles an array that is not contiguous
    arrays = {name: np.ascontiguousarray(weights[name]) for name in shapes(spec)}
    named: dict[str, Any] = {"spec": spec.name, "sha256": sha256(arrays)}
    if spec.norm:
        named["eps"] = spec.norm.eps
    data = encode(arrays, {KEY: json.dumps(named)})
    try:
        write_whole(path, data)
    except OSError as error:
        raise WeightsError(f"{path} cannot be written: {error.strerror or error}.") from error


def load(path: Path, spec: Spec) -> Weights:
    """Read a safetensors file of this spec's weights; WeightsError for any other file.

    Files of other programs have no digest. They are read without that check.
    """
    from safetensors.numpy import load as read

    try:
        data = path.read_bytes()
        weights: Weights = read(data)
        named = metadata(data).get(KEY)
        digest = json.loads(named)["sha256"] if named else None
    except Exception as error:  # safetensors raises many types, for example for an unknown dtype
        reason = one_line(error)
        raise WeightsError(f"{path} is not a readable safetensors file: {reason}.") from error
    check(spec, weights)
    if digest and digest != sha256(weights):
        raise WeightsError(f"{path} is damaged: its tensors do not have the SHA-256 that it names.")
    return weights


def metadata(data: bytes) -> dict[str, str]:
    """The metadata in the bytes of a safetensors file."""
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    found: dict[str, str] = header.get("__metadata__", {})
    return found


def seal(arrays: Mapping[str, np.ndarray], content: str) -> bytes:
    """Tensors and a JSON text as the bytes of a safetensors file, with one digest of both."""
    from safetensors.numpy import save as encode

    named = json.dumps({"content": content, "sha256": _sealed_digest(arrays, content)})
    data: bytes = encode(dict(arrays), {KEY: named})
    return data


def open_sealed(data: bytes) -> tuple[Weights, str]:
    """The inverse of `seal`; ValueError, with the end of a sentence, if the digest is wrong."""
    from safetensors.numpy import load as decode

    try:
        arrays: Weights = decode(data)
        outer = json.loads(metadata(data)[KEY])
        content, digest = outer["content"], outer["sha256"]
        actual = _sealed_digest(arrays, content)
    except Exception as error:  # safetensors raises many types
        raise ValueError(f"is not a checkpoint: {one_line(error)[:120]}") from error
    if digest != actual:
        raise ValueError("is damaged: its contents do not have the SHA-256 that it names")
    return arrays, content


def _sealed_digest(arrays: Mapping[str, np.ndarray], content: str) -> str:
    return hashlib.sha256((sha256(arrays) + content).encode()).hexdigest()
